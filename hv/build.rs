//! Hands the linker script to the linker when the image itself is built.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=../linker/hv.ld");
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo sets the manifest's folder");
        let script = Path::new(&manifest).join("../linker/hv.ld");
        println!("cargo::rustc-link-arg-bins=-T{}", script.display());
        // A report names the build, so that its addresses are not looked up in another one. xtask writes the ID here.
        println!("cargo::rustc-link-arg-bins=--build-id=0x0000000000000000");
    }
}
