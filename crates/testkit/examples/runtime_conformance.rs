//! Runs the conformance function against the runtime at a socket:
//! `runtime_conformance SOCKET TAG OTHER-TAG-OF-THE-SAME-IMAGE OTHER-IMAGE LARGE-IMAGE MISSING-IMAGE`.

use std::path::Path;

use anyhow::{Result, bail};
use larder_testkit::runtime::{ConformanceImages, conformance};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [socket, first, second, other, large, missing] = arguments.as_slice() else {
        bail!("usage: runtime_conformance SOCKET TAG SAME-IMAGE OTHER-IMAGE LARGE-IMAGE MISSING-IMAGE");
    };
    let images = ConformanceImages {
        tags: [first.clone(), second.clone()],
        other: other.clone(),
        large: large.clone(),
        missing: missing.clone(),
    };
    conformance(Path::new(socket), &images).await?;
    println!("conforms");
    Ok(())
}
