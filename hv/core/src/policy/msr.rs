//! The guest's MSRs: the CPU's own, but for the rows of some tables. There is one for all, and each backend has one of its
//! own; its bitmap is derived from both.

use core::ops::{Range, RangeInclusive};

use crate::mem::addr::Hpa;
use crate::x86::msr;

/// What becomes of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// The CPU answers, with no exit where the bitmap can say so.
    Native,
    /// #GP, as on a CPU that lacks the MSR.
    Refuse,
    /// IA32_FEATURE_CONTROL as firmware leaves it that has switched VMX off: see [`feature_control`].
    FeatureControl,
    /// IA32_EFER as the guest sees it.
    Efer,
    /// IA32_MISC_ENABLE: see [`misc_enable`](crate::policy::misc_enable).
    MiscEnable,
    /// What the CPU answers, but for these bits, which read 0.
    Without(u64),
}

/// What becomes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// The CPU takes it, with no exit where the bitmap can say so.
    Native,
    /// #GP.
    Refuse,
    /// Nothing: the CPU could not do what was asked for from here.
    Ignore,
    /// Nothing, where the CPU has the MSR: what firmware has set up stays.
    Keep,
    /// An update of the CPU's microcode. It begins this number of bytes below the address that is written.
    Microcode(u64),
    /// An MTRR: the second-stage memory types follow it.
    Mtrr,
    /// IA32_APIC_BASE: the APIC may not be laid over Vidar.
    ApicBase,
    /// MMIO_CFG_BASE: the configuration space of PCI may not be laid over Vidar.
    ConfigurationBase,
    /// #GP if a bit of these is set, or else the CPU takes it.
    Without(u64),
    /// IA32_X2APIC_ICR: messages that start CPUs are Vidar's to send.
    Icr,
    /// IA32_EFER: by the rules of [`control::write_efer`](crate::policy::control::write_efer).
    Efer,
    /// IA32_EFER where the CPU takes it with no exit, but while no-execute is disabled for the guest: by the same rules then.
    EferIfWatched,
    /// IA32_MISC_ENABLE: see [`misc_enable`](crate::policy::misc_enable).
    MiscEnable,
}

/// One row: some MSRs, and what becomes of reads and writes.
#[derive(Debug, Clone)]
pub struct Row {
    /// The MSRs.
    pub indices: RangeInclusive<u32>,
    /// Reads.
    pub read: Read,
    /// Writes.
    pub write: Write,
}

impl Row {
    /// The MSRs from `first` to `last`.
    pub const fn new(first: u32, last: u32, read: Read, write: Write) -> Self {
        Self { indices: first..=last, read, write }
    }
}

/// MSRs that Vidar filters, whatever the extension.
///
/// Those that hypervisors define carry guest-physical addresses which a hypervisor below Vidar writes to, and it knows
/// nothing of Vidar's memory. They are refused even if the CPU names no hypervisor, since one can hide itself. No CPU
/// with VT-x or AMD-V has an MSR at these indices. Intel SDM Vol. 4, 2.1 "Architectural MSRs" reserves 40000000H to
/// 400000FFH for this.
pub const COMMON: &[Row] = &[
    Row::new(msr::APIC_BASE, msr::APIC_BASE, Read::Native, Write::ApicBase),
    // The pages of the second stage have one type each. Variable ranges: all that there are numbers for. The CPU refuses
    // those that it lacks.
    Row::new(0x200, 0x24f, Read::Native, Write::Mtrr),
    // Fixed ranges and the default type.
    Row::new(0x250, 0x250, Read::Native, Write::Mtrr),
    Row::new(0x258, 0x259, Read::Native, Write::Mtrr),
    Row::new(0x268, 0x26f, Read::Native, Write::Mtrr),
    Row::new(0x2ff, 0x2ff, Read::Native, Write::Mtrr),
    // KVM's first clock: MSR_KVM_WALL_CLOCK and MSR_KVM_SYSTEM_TIME.
    Row::new(0x11, 0x12, Read::Refuse, Write::Refuse),
    // Hyper-V's, and the page of hypercalls of Xen.
    Row::new(0x4000_0000, 0x4000_ffff, Read::Refuse, Write::Refuse),
    // KVM's.
    Row::new(0x4b56_4d00, 0x4b56_4dff, Read::Refuse, Write::Refuse),
];

/// What is kept besides where Vidar starts CPUs for the guest.
pub const STARTUP: &[Row] = &[Row::new(msr::X2APIC_ICR, msr::X2APIC_ICR, Read::Native, Write::Icr)];

/// What becomes of reads and writes of the MSR `index`, by the rows of `tables`.
pub fn policy(tables: &[&[Row]], index: u32) -> (Read, Write) {
    tables
        .iter()
        .copied()
        .flatten()
        .find(|row| row.indices.contains(&index))
        .map_or((Read::Native, Write::Native), |row| (row.read, row.write))
}

/// IA32_FEATURE_CONTROL as the guest reads it: locked, with VMX and SMX off. Intel SDM Vol. 3C, 24.7 "Enabling and
/// Entering VMX Operation".
pub const fn feature_control(native: u64) -> u64 {
    const LOCK: u64 = 1;
    const VMX_AND_SMX: u64 = 0b110 | 0xff << 8;
    native & !VMX_AND_SMX | LOCK
}

/// The addresses at which MMIO_CFG_BASE of `value` may have the configuration space of PCI: 1 MiB for each bus. `None` where
/// that is switched off. The CPU may compare the address bits above the size alone, so the base is aligned to it; a number of
/// buses that is reserved may mean any. AMD BKDG for family 10h, "MMIO Configuration Base Address Register".
pub const fn configuration_space(value: u64) -> Option<Range<Hpa>> {
    const ENABLED: u64 = 1;
    let bus_bits = value >> 2 & 0xf;
    if value & ENABLED == 0 {
        return None;
    }
    if bus_bits > 8 {
        return Some(Hpa(0)..Hpa(u64::MAX));
    }
    let size = 1 << (20 + bus_bits);
    let base = value & 0x0000_ffff_fff0_0000 & !(size - 1);
    Some(Hpa(base)..Hpa(base + size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_table_names_is_the_cpus() {
        let own = [Row::new(0x10, 0x1f, Read::Refuse, Write::Ignore)];
        let native = (Read::Native, Write::Native);
        assert_eq!(policy(&[COMMON, &own], 0x1f), (Read::Refuse, Write::Ignore));
        assert_eq!(policy(&[COMMON, &own], 0x20), native);
        assert_eq!(policy(&[COMMON], 0x1f), native);
        assert_eq!(policy(&[COMMON, &own], msr::APIC_BASE), (Read::Native, Write::ApicBase));
    }

    #[test]
    fn msrs_of_hypervisors_are_refused() {
        for index in
            [0x11, 0x12, 0x4000_0000, 0x4000_0001, 0x4000_0200, 0x4000_ffff, 0x4b56_4d00, 0x4b56_4d07]
        {
            assert_eq!(policy(&[COMMON], index), (Read::Refuse, Write::Refuse), "{index:#x}");
        }
        assert_eq!(policy(&[COMMON], 0x10), (Read::Native, Write::Native));
    }

    #[test]
    fn configuration_space_of_pci() {
        assert_eq!(configuration_space(0xe000_0021), Some(Hpa(0xe000_0000)..Hpa(0xf000_0000)));
        assert_eq!(configuration_space(0xfd_0000_0001), Some(Hpa(0xfd_0000_0000)..Hpa(0xfd_0010_0000)));
        assert_eq!(configuration_space(0xe000_0020), None, "off");
        assert_eq!(configuration_space(0x0ff0_0021), Some(Hpa(0)..Hpa(0x1000_0000)), "not aligned");
        assert_eq!(configuration_space(0xe000_0025), Some(Hpa(0)..Hpa(u64::MAX)), "512 buses");
    }

    #[test]
    fn feature_control_looks_switched_off() {
        assert_eq!(feature_control(0b101), 1);
        assert_eq!(feature_control(0), 1);
        assert_eq!(feature_control(1 << 20 | 0xff07), 1 << 20 | 1);
    }
}
