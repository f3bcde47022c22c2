//! Which Vidar this is.

#![expect(unsafe_code, reason = "a symbol of the linker's is named here")]

use vidar_abi::{Commit, Release};

unsafe extern "C" {
    /// The note with the build ID: its header of 16 bytes, and the ID.
    #[link_name = "vidar_build_id"]
    safe static NOTE: [u8; 24];
}

/// Returns the build ID of the image: a hash of it that xtask writes there after the linker. `cargo xtask symbolize`
/// compares it.
pub fn build_id() -> u64 {
    let [.., a, b, c, d, e, f, g, h] = NOTE;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The commit that the image was built from. xtask passes it to the compiler.
pub const COMMIT: Option<Commit> = match option_env!("VIDAR_COMMIT") {
    Some(text) => Commit::parse(text),
    None => None,
};

/// The version, with the commit if it is known, for messages.
pub const RELEASE: Release<&str> = Release(env!("CARGO_PKG_VERSION"), COMMIT);
