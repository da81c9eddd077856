//! Compiles the trimmed protocol files; protox stands in for protoc, which build machines may lack.

use std::env;
use std::error::Error;

const FILES: [&str; 8] = [
    "cri.proto",
    "containerd_types.proto",
    "containerd_images.proto",
    "containerd_content.proto",
    "containerd_snapshots.proto",
    "containerd_events.proto",
    "containerd_event_types.proto",
    "containerd_version.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    tonic_prost_build::configure()
        .build_transport(false)
        .build_server(env::var_os("CARGO_FEATURE_SERVER").is_some())
        // Carries passwords; its Debug is written by hand.
        .skip_debug(["runtime.v1.AuthConfig"])
        .compile_fds(descriptors)?;
    Ok(())
}
