//! Passes the linker script to the linker, for the bare-metal target only. On the host the probe is an empty program.

fn main() {
    println!("cargo::rerun-if-changed=probe.ld");
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let directory = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bins=-T{directory}/probe.ld");
    }
}
