//! The MSRs that the boot option `guard` guards. Their rows come before all others, so that they decide.

use super::context::Context;
use super::efer;
use super::row::{Effect, Read, Row, Write};
use crate::x86::msr::{self, Fault};

/// IA32_EFER on an extension where the guest reads the CPU's value.
pub const EFER: Row = Row::new(&[msr::EFER..=msr::EFER], Read::Native, Write::Handled(efer::write));

/// The MSRs that hold where SYSCALL leads to.
pub const SYSCALL_TARGETS: Row =
    Row::new(&[msr::LSTAR..=msr::CSTAR], Read::Native, Write::Handled(write_address));

/// The other MSRs of SYSCALL.
pub const SYSCALL: Row =
    Row::new(&[msr::STAR..=msr::STAR, msr::SFMASK..=msr::SFMASK], Read::Native, Write::Handled(write));

/// The MSRs with the stack and the target of SYSENTER, on a CPU that checks them.
pub const SYSENTER_ADDRESSES: Row =
    Row::new(&[msr::SYSENTER_ESP..=msr::SYSENTER_EIP], Read::Native, Write::Handled(write_address));

/// The MSR with the segments of SYSENTER.
pub const SYSENTER_CS: Row =
    Row::new(&[msr::SYSENTER_CS..=msr::SYSENTER_CS], Read::Native, Write::Handled(write));

/// The MSRs of SYSENTER on AMD's CPUs, which take any address: they have no SYSENTER in long mode.
pub const SYSENTER_OF_AMD: Row =
    Row::new(&[msr::SYSENTER_CS..=msr::SYSENTER_EIP], Read::Native, Write::Handled(write));

fn write(value: u64, _: &mut dyn Context) -> Result<Effect, Fault> {
    Ok(Effect::WriteGuarded(value))
}

/// Refuses an address that is not canonical, as the CPU does, before the guard is asked.
fn write_address(value: u64, context: &mut dyn Context) -> Result<Effect, Fault> {
    let bits = context.cpuid(0x8000_0008, 0).eax >> 8 & 0xff;
    if is_canonical(value, bits) { Ok(Effect::WriteGuarded(value)) } else { Err(Fault) }
}

/// Returns true if all bits of `address` above its `bits` lower ones equal the highest of these. The width is that of
/// the CPU's addresses, whatever CR4.LA57 is: Intel SDM Vol. 3A, 4.5.2 "Linear-Address Translation with 4-Level Paging
/// and 5-Level Paging".
fn is_canonical(address: u64, bits: u32) -> bool {
    let unused = 64_u32.saturating_sub(bits).min(63);
    (address << unused).cast_signed() >> unused == address.cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::context::Fixed;
    use crate::x86::cpuid::Leaf;

    #[test]
    fn an_address_must_be_canonical_in_the_cpus_width() {
        for (address, of_48, of_57) in [
            (0, true, true),
            (0x7fff_ffff_ffff, true, true),
            (0x8000_0000_0000, false, true),
            (0xffff_8000_0000_0000, true, true),
            (0xffff_7fff_ffff_ffff, false, true),
            (0x1000_0000_0000_0000, false, false),
            (u64::MAX, true, true),
        ] {
            for (bits, allowed) in [(48, of_48), (57, of_57)] {
                let leaf = Leaf { eax: bits << 8 | 40, ..Leaf::default() };
                let mut context = Fixed { leaf, ..Fixed::default() };
                let expected = if allowed { Ok(Effect::WriteGuarded(address)) } else { Err(Fault) };
                assert_eq!(write_address(address, &mut context), expected, "{address:#x} of {bits}");
                assert_eq!(write(address, &mut context), Ok(Effect::WriteGuarded(address)));
            }
        }
    }
}
