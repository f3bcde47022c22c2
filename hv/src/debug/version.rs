//! Which Vidar this is.

use vidar_abi::{Commit, Release};

/// The commit that the image was built from. xtask passes it to the compiler.
pub const COMMIT: Option<Commit> = match option_env!("VIDAR_COMMIT") {
    Some(text) => Commit::parse(text),
    None => None,
};

/// The version, with the commit if it is known, for messages.
pub const RELEASE: Release<&str> = Release(env!("CARGO_PKG_VERSION"), COMMIT);
