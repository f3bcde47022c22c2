//! The version of `vidarctl`.

use std::sync::LazyLock;

use vidar_abi::{Commit, Release};

/// The commit that `vidarctl` was built from. xtask passes it to the compiler.
const COMMIT: Option<Commit> = match option_env!("VIDAR_COMMIT") {
    Some(text) => Commit::parse(text),
    None => None,
};

/// Returns the version, with the commit if it is known.
pub fn text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| Release(env!("CARGO_PKG_VERSION"), COMMIT).to_string());
    &TEXT
}
