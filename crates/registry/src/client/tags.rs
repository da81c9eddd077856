//! The tags of a repository, page by page.

use reqwest::{Method, header::LINK};

use super::access::Access;
use crate::{RegistryError, sources::tags::TagList};

impl Access<'_> {
    /// All tags, in the registry's order. Fails where there are more than [`TagList`] takes.
    pub(super) async fn tags(&self) -> Result<Vec<String>, RegistryError> {
        let mut list = TagList::default();
        let mut url = self.endpoint.url(self.image, "tags", "list")?;
        let page = self.registry.tags_per_page.to_string();
        url.query_pairs_mut().append_pair("n", &page);
        loop {
            let reply = self.ask_at(&Method::GET, url.clone(), None).await?;
            if !reply.status.is_success() {
                return Err(self.fault(&reply));
            }
            let link = reply.headers.get(LINK).and_then(|l| l.to_str().ok());
            let next = list
                .take(&reply.body, link)
                .map_err(|e| self.endpoint.malformed(&e.message))?;
            let Some(next) = next else {
                return Ok(list.tags().map(str::to_owned).collect());
            };
            let next = url
                .join(&next)
                .map_err(|_| self.endpoint.malformed("the next page of tags is no URL"))?;
            // The credentials would go along.
            if next.origin() != url.origin() {
                return Err(self
                    .endpoint
                    .malformed("the next page of tags is on another host"));
            }
            url = next;
        }
    }
}
