use std::collections::BTreeMap;

use super::*;

mod failures;
mod rules;

const BASE: &str = "https://registry.example/main";

/// Documents in memory, by address; what is not there is not found.
#[derive(Default)]
struct Memory(BTreeMap<String, Result<String, SourceReason>>);

impl Memory {
    /// Of documents by their path below the registry's folder, or by their whole address.
    fn of<const N: usize>(documents: [(&str, &str); N]) -> Self {
        let mut memory = Self::default();
        for (path, body) in documents {
            memory.put(path, Ok(body.to_owned()));
        }
        memory
    }

    fn put(&mut self, path: &str, answer: Result<String, SourceReason>) {
        let address = if path.starts_with("http") {
            path.to_owned()
        } else {
            format!("{BASE}/{path}")
        };
        self.0.insert(address, answer);
    }
}

#[async_trait]
impl Documents for Memory {
    async fn get(&self, url: &str, _: usize) -> Result<Document, FetchError> {
        let answer = self.0.get(url).cloned().unwrap_or(Err(SourceReason::NotFound));
        let body = answer.map_err(|reason| FetchError {
            reason,
            message: format!("status for {reason}"),
        })?;
        Ok(Document {
            body: body.into_bytes(),
        })
    }
}

fn read_brand(memory: &Memory, brand: &str) -> Result<Found, SourceError> {
    futures::executor::block_on(read(memory, BASE, brand))
}

/// `app image` lines and errors.
fn lines(memory: &Memory, brand: &str) -> (Vec<String>, Vec<String>) {
    let found = read_brand(memory, brand).unwrap();
    let image = |i: SourceImage| format!("{} {} {}", i.app.unwrap(), i.service.unwrap(), i.image);
    let images = found.images.into_iter().map(image).collect();
    let error = |e: &SourceError| format!("{} {e}", e.reason);
    (images, found.errors.iter().map(error).collect())
}

fn images(memory: &Memory, brand: &str) -> Vec<String> {
    let (images, errors) = lines(memory, brand);
    assert_eq!(errors, Vec::<String>::new());
    images
}

fn refusal(memory: &Memory, brand: &str) -> String {
    let error = read_brand(memory, brand).unwrap_err();
    assert_eq!(error.app, None);
    format!("{} {error}", error.reason)
}

/// A compose file of one service.
fn compose(image: &str) -> String {
    format!("services:\n  main:\n    image: {image}\n")
}

/// A registry, with compose files of one service in the folder `apps`; the image is named after the app.
fn registry(contexts: &str, apps: &[&str]) -> Memory {
    let registry = format!("repositories: {{apps: {{url: apps}}}}\ncontexts:\n{contexts}");
    let mut memory = Memory::of([("app-registry.yaml", registry.as_str())]);
    for app in apps {
        memory.put(
            &format!("apps/{app}/docker-compose.yaml"),
            Ok(compose(&format!("{app}:1"))),
        );
    }
    memory
}
