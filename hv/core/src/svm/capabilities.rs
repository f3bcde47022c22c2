//! The capabilities of the CPU's AMD-V, from CPUID and VM_CR. Some are required, others are used if present.

use alloc::vec::Vec;

use crate::x86::cpuid::Leaf;

/// Features in CPUID Fn8000_000A_EDX. AMD APM Vol. 2, 15.4 "Enabling SVM" and Vol. 3, E.4.9 "Function
/// 8000_000Ah-SVM Features".
mod feature {
    /// Nested paging.
    pub const NESTED_PAGING: u32 = 1 << 0;
    /// VM_CR.SVMDIS can be locked. While it is not locked, software can write it.
    pub const SVM_LOCK: u32 = 1 << 2;
    /// nRIP: an exit saves the address of the next instruction.
    pub const NRIP_SAVE: u32 = 1 << 3;
    /// The MSR TSC_RATIO exists. It is the ratio of the guest's TSC to the CPU's.
    pub const TSC_RATIO: u32 = 1 << 4;
    /// VMCB clean bits.
    pub const CLEAN_BITS: u32 = 1 << 5;
    /// The TLB entries of one ASID can be flushed.
    pub const FLUSH_BY_ASID: u32 = 1 << 6;
    /// Decode assists: an exit of MOV to a control register reports the general-purpose register.
    pub const DECODE_ASSISTS: u32 = 1 << 7;
}

/// The optional features of the CPU's AMD-V that Vidar uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// An exit at an intercepted instruction saves the address of the next instruction (nRIP) in the VMCB.
    pub nrip_save: bool,
    /// The VMCB has clean bits: the CPU may keep the parts of the VMCB that are marked as unchanged.
    pub clean_bits: bool,
    /// The CPU can flush the guest's TLB entries alone, and keep Vidar's.
    pub flush_by_asid: bool,
    /// The MSR TSC_RATIO exists. An earlier hypervisor may have left another ratio than 1 in it.
    pub tsc_ratio: bool,
    /// An exit of MOV to a control register reports the general-purpose register.
    pub decode_assists: bool,
}

impl Capabilities {
    /// Returns the name and the value of each feature. They must be the same on all CPUs of a machine.
    pub const fn fields(self) -> [(&'static str, u64); 5] {
        let Self { nrip_save, clean_bits, flush_by_asid, tsc_ratio, decode_assists } = self;
        [
            ("next RIP save", nrip_save as u64),
            ("VMCB clean bits", clean_bits as u64),
            ("flush by ASID", flush_by_asid as u64),
            ("TSC ratio", tsc_ratio as u64),
            ("decode assists", decode_assists as u64),
        ]
    }

    /// Reads the features from `svm`, which CPUID Fn8000_000A returned.
    ///
    /// # Errors
    /// Returns the names of all required features that the CPU lacks.
    pub fn choose(svm: Leaf) -> Result<Self, Vec<&'static str>> {
        let has = |feature| svm.edx & feature != 0;
        let mut missing = Vec::new();
        if !has(feature::NESTED_PAGING) {
            missing.push("nested paging");
        }
        // EBX is the number of ASIDs. ASID 0 is Vidar's own, and the guest needs one as well.
        if svm.ebx < 2 {
            missing.push("address space identifiers");
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        Ok(Self {
            nrip_save: has(feature::NRIP_SAVE),
            clean_bits: has(feature::CLEAN_BITS),
            flush_by_asid: has(feature::FLUSH_BY_ASID),
            tsc_ratio: has(feature::TSC_RATIO),
            decode_assists: has(feature::DECODE_ASSISTS),
        })
    }
}

/// VM_CR.R_INIT: an INIT raises #SX in place of resetting the CPU.
pub const R_INIT: u64 = 1 << 1;

/// What to do before Vidar sets EFER.SVME.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Write this value to VM_CR.
    Write(u64),
    /// Refuse to start: firmware has disabled AMD-V, and only firmware can enable it.
    LockedOff,
}

/// Decides from the value of VM_CR and from `svm`, which CPUID Fn8000_000A returned. On a CPU where SVMDIS cannot be
/// locked, software cannot clear it. AMD APM Vol. 2, 15.4 "Enabling SVM" and 15.30.1 "VM_CR MSR (C001_0114h)".
///
/// The value to write has R_INIT set. An intercepted INIT stays pending after the exit, and with R_INIT it becomes an
/// exception that Vidar can take.
pub const fn decide(vm_cr: u64, svm: Leaf) -> Decision {
    const LOCK: u64 = 1 << 3;
    const SVMDIS: u64 = 1 << 4;
    let can_write = svm.edx & feature::SVM_LOCK != 0 && vm_cr & LOCK == 0;
    match (vm_cr & SVMDIS != 0, can_write) {
        (true, false) => Decision::LockedOff,
        _ => Decision::Write(vm_cr & !SVMDIS | R_INIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_required_features_are_named() {
        let good = Leaf { ebx: 16, edx: 0x49, ..Leaf::default() };
        let capabilities = Capabilities {
            nrip_save: true,
            clean_bits: false,
            flush_by_asid: true,
            tsc_ratio: false,
            decode_assists: false,
        };
        assert_eq!(Capabilities::choose(good), Ok(capabilities));
        assert_eq!(Capabilities::choose(Leaf { edx: 0x48, ..good }), Err(vec!["nested paging"]));
        assert_eq!(Capabilities::choose(Leaf::default()).map_err(|missing| missing.len()), Err(2));
    }

    #[test]
    fn amd_v_is_enabled_unless_svmdis_is_set_and_cannot_be_cleared() {
        let lockable = Leaf { edx: 1 << 2, ..Leaf::default() };
        assert_eq!(decide(0, lockable), Decision::Write(0b10));
        assert_eq!(decide(0b1000, lockable), Decision::Write(0b1010), "locked with SVM enabled");
        assert_eq!(decide(0b1_0000, lockable), Decision::Write(0b10), "disabled, and not locked");
        assert_eq!(decide(0b1_1000, lockable), Decision::LockedOff);
        assert_eq!(decide(0, Leaf::default()), Decision::Write(0b10));
        assert_eq!(
            decide(0b1_0000, Leaf::default()),
            Decision::LockedOff,
            "disabled, and SVMDIS cannot be locked"
        );
    }
}
