//! Checks that need more than the tests do: more time, another toolchain, or a program that has to be built first.

pub mod coverage;
pub mod deny;
pub mod miri;
pub mod robust;

/// The package of everything that only decides, which is tested on the host.
const PACKAGE: &str = "vidar-core";
/// Where its source is, below the root of the checkout.
const SOURCE: &str = "hv/core/src";
