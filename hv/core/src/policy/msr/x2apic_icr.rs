//! IA32_X2APIC_ICR, if Vidar starts CPUs for the guest: Vidar sends the messages that start them.

use super::row::{Effect, Read, Row, Write};
use crate::x86::msr::X2APIC_ICR;

/// The row for the tables.
pub const ROW: Row =
    Row::new(&[X2APIC_ICR..=X2APIC_ICR], Read::Native, Write::Handled(|value, _| Ok(Effect::SendIcr(value))));
