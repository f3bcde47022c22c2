//! A symbol of a kernel.

/// A symbol of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// The address.
    pub address: u64,
    /// The letter of the type, as `nm` has it.
    pub kind: u8,
    /// The name.
    pub name: String,
}
