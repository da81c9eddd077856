//! Links the release build as a static program without a C library or its start files.
//!
//! Only the release profile aborts on panic, which a program without the standard library needs; a development
//! build links in the ordinary way (see `main.rs`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(freestanding)");
    if std::env::var("PROFILE").as_deref() != Ok("release") {
        return;
    }
    println!("cargo::rustc-cfg=freestanding");
    for arg in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,-z,norelro",
    ] {
        println!("cargo::rustc-link-arg-bins={arg}");
    }
}
