//! Why Vidar gives no answer.

use std::fmt;

use vidar_abi::{Call, VERSION, Version};

/// What there is to say where Vidar is not.
pub const NOT_UNDER_VIDAR: &str =
    "this Linux does not run under Vidar: choose an entry \"under Vidar\" in GRUB's menu";

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There is no Vidar.
    NotUnderVidar,
    /// There is, but one that speaks another language.
    Incompatible(Version),
    /// Vidar answered what its ABI does not allow.
    Nonsense(Call),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUnderVidar => f.write_str(NOT_UNDER_VIDAR),
            Self::Incompatible(Version { major, minor }) => write!(
                f,
                "Vidar speaks version {major}.{minor} of the hypercall ABI, this vidarctl {}.{}: take the vidarctl \
                 that came with this Vidar",
                VERSION.major, VERSION.minor
            ),
            Self::Nonsense(call) => write!(
                f,
                "Vidar did not answer the call {call:?} as its ABI says: take the vidarctl that came with this Vidar"
            ),
        }
    }
}
