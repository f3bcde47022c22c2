//! The MSRs that the boot option `guard` guards. Their rows come before all others, so that they decide.

use super::efer;
use super::row::{Read, Row, Write};
use crate::x86::msr;

/// IA32_EFER on an extension where the guest reads the CPU's value.
pub const EFER: Row = Row::new(&[msr::EFER..=msr::EFER], Read::Native, Write::Handled(efer::write));
