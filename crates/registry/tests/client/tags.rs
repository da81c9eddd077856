//! Lists of tags, page by page.

use anyhow::Result;
use larder_api::names::Reason;
use larder_registry::{Credentials, HttpRegistry, Options, Tags, address::Policy};
use larder_testkit::registry::{Auth, FakeRegistry, Fault};

use super::{amd64, image, options, plain, token_auth};

fn client(tags_per_page: usize) -> Result<HttpRegistry> {
    let policy = Policy {
        allow_private: true,
        ..Policy::default()
    };
    let options = Options {
        tags_per_page,
        ..options(policy)
    };
    Ok(HttpRegistry::new(plain(), &options)?)
}

#[tokio::test]
async fn pages_are_asked_for_one_after_the_other_with_the_same_token() -> Result<()> {
    let registry = FakeRegistry::start(token_auth("a")).await?;
    for tag in ["1", "2", "3", "4", "5"] {
        registry.put("a", tag, &amd64(tag));
    }
    let tags = client(2)?
        .tags(&image(&registry, "a")?, &Credentials::anonymous())
        .await?;
    assert_eq!(tags, ["1", "2", "3", "4", "5"]);
    let asked: Vec<String> = registry
        .take_log()
        .into_iter()
        .map(|entry| format!("{}?{}", entry.path, entry.query))
        .filter(|line| line.starts_with("/v2/"))
        .collect();
    assert_eq!(
        asked,
        [
            "/v2/a/tags/list?n=2",
            "/v2/a/tags/list?n=2",
            "/v2/a/tags/list?last=2&n=2",
            "/v2/a/tags/list?last=4&n=2",
        ]
    );
    Ok(())
}

#[tokio::test]
async fn a_next_page_elsewhere_or_without_end_is_refused() -> Result<()> {
    let registry = FakeRegistry::start(Auth::Open).await?;
    registry.put("a", "1", &amd64("x"));
    let list = async |link: &'static str| {
        registry.fault("/v2/a/*", Fault::Headers(vec![("link", link)]));
        let answer = client(2)?
            .tags(&image(&registry, "a")?, &Credentials::anonymous())
            .await;
        let error = answer.err();
        Ok::<_, anyhow::Error>(error.map(|e| (e.reason(), e.to_string())))
    };
    let (reason, words) = list("<http://example.com/v2/a/tags/list>; rel=\"next\"")
        .await?
        .unwrap_or((Reason::NotFound, String::new()));
    assert_eq!(reason, Reason::RegistryUnreachable);
    assert!(
        words.ends_with("the next page of tags is on another host"),
        "{words}"
    );
    registry.take_log();
    let (_, words) = list("</v2/a/tags/list>; rel=\"next\"")
        .await?
        .unwrap_or((Reason::NotFound, String::new()));
    assert!(words.contains("more than 20000 tags or 40 pages"), "{words}");
    assert_eq!(registry.take_log().len(), 40);
    Ok(())
}
