//! The guest's MSRs: the CPU's own, but for the rows of these tables. Backends say which of them they need, and derive
//! their bitmaps from them.

use core::ops::RangeInclusive;

use crate::arch::msr;

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
    /// An MTRR: the second-stage memory types follow it.
    Mtrr,
    /// IA32_APIC_BASE: the APIC may not be laid over Vidar.
    ApicBase,
    /// #GP if a bit of these is set, or else the CPU takes it.
    Without(u64),
    /// IA32_EFER: by the rules of [`control::write_efer`](super::control::write_efer).
    Efer,
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

const fn row(first: u32, last: u32, read: Read, write: Write) -> Row {
    Row { indices: first..=last, read, write }
}

/// What no guest is simply given, whatever the extension.
pub const TABLE: &[Row] = &[
    row(msr::APIC_BASE, msr::APIC_BASE, Read::Native, Write::ApicBase),
    row(msr::FEATURE_CONTROL, msr::FEATURE_CONTROL, Read::FeatureControl, Write::Refuse),
    // The value is a linear address of the guest's, which is none of Vidar's; reading it is #GP by itself.
    row(msr::BIOS_UPDT_TRIG, msr::BIOS_UPDT_TRIG, Read::Native, Write::Ignore),
    row(msr::PATCH_LOADER, msr::PATCH_LOADER, Read::Native, Write::Ignore),
    row(msr::SMM_MONITOR_CTL, msr::SMM_MONITOR_CTL, Read::Refuse, Write::Refuse),
    // XD Bit Disable would make the no-execute bit of Vidar's own pages a reserved one.
    row(msr::MISC_ENABLE, msr::MISC_ENABLE, Read::Native, Write::Without(1 << 34)),
    // The CPU goes on to write event records after an exit, to the guest's linear address in Vidar's address space.
    row(msr::PEBS_ENABLE, msr::PEBS_ENABLE, Read::Native, Write::Without(u64::MAX)),
    row(msr::VMX_BASIC, msr::VMX_EXIT_CTLS2, Read::Refuse, Write::Refuse),
    // Those of KVM below Vidar, which is not for Vidar's guest.
    row(0x4b56_4d00, 0x4b56_4dff, Read::Refuse, Write::Refuse),
    row(msr::VM_CR, msr::VM_CR, Read::Refuse, Write::Refuse),
    row(msr::VM_HSAVE_PA, msr::SVM_KEY, Read::Refuse, Write::Refuse),
];

/// The MTRRs, for an extension whose second stage has memory types in their place.
pub const MTRRS: &[Row] = &[
    // Variable ranges: all that there are numbers for. The CPU refuses those that it lacks.
    row(0x200, 0x24f, Read::Native, Write::Mtrr),
    // Fixed ranges and the default type.
    row(0x250, 0x250, Read::Native, Write::Mtrr),
    row(0x258, 0x259, Read::Native, Write::Mtrr),
    row(0x268, 0x26f, Read::Native, Write::Mtrr),
    row(0x2ff, 0x2ff, Read::Native, Write::Mtrr),
];

/// EFER, for an extension that needs a bit of it for itself.
pub const EFER: &[Row] = &[row(msr::EFER, msr::EFER, Read::Efer, Write::Efer)];

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

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &[&[Row]] = &[TABLE, MTRRS, EFER];

    #[test]
    fn rows_do_not_overlap() {
        let rows: Vec<_> = ALL.iter().copied().flatten().collect();
        for (i, a) in rows.iter().enumerate() {
            for b in &rows[i + 1..] {
                assert!(
                    a.indices.end() < b.indices.start() || b.indices.end() < a.indices.start(),
                    "{a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn what_the_guest_must_not_reach() {
        let hidden = [msr::SMM_MONITOR_CTL, msr::VM_CR, msr::VM_HSAVE_PA, msr::SVM_KEY];
        for index in (0x480..=0x493).chain(hidden) {
            assert_eq!(policy(&[TABLE], index), (Read::Refuse, Write::Refuse), "{index:#x}");
        }
        let native = (Read::Native, Write::Native);
        assert_eq!(policy(ALL, 0x277), native, "PAT lies between the MTRRs and is the guest's");
        assert_eq!(policy(ALL, 0x2ff).1, Write::Mtrr);
    }

    #[test]
    fn tables_that_a_backend_does_not_need_do_not_count() {
        for index in [0x200, 0x2ff, msr::EFER] {
            assert_eq!(policy(&[TABLE], index), (Read::Native, Write::Native), "{index:#x}");
            assert_ne!(policy(ALL, index), (Read::Native, Write::Native), "{index:#x}");
        }
    }

    #[test]
    fn feature_control_looks_switched_off() {
        assert_eq!(feature_control(0b101), 1);
        assert_eq!(feature_control(0), 1);
        assert_eq!(feature_control(1 << 20 | 0xff07), 1 << 20 | 1);
    }
}
