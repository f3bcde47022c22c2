//! Loads a kernel module whose code may end in an oops.
//!
//! Linux notes each load by finit_module(2), which insmod calls, in a list whose entries are on the callers' stacks
//! (`idempotent_init_module`, from Linux 6.5 on). An oops ends the caller and frees its stack, but leaves the entry, so
//! that Linux itself faults in a later load. It notes no load by init_module(2).

use std::fs;

/// Loads the module in this file.
pub fn load(path: &str) -> Result<String, String> {
    let image = fs::read(path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let loaded = rustix::system::init_module(&image, c"");
    loaded.map(|()| "loaded".to_owned()).map_err(|error| format!("cannot load {path}: {error}"))
}
