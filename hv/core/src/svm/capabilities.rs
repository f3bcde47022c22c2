//! What a CPU's AMD-V can do, out of CPUID and VM_CR: what Vidar needs of it, and what makes it faster.

use alloc::vec::Vec;

use crate::x86::cpuid::Leaf;

/// Features in CPUID Fn8000_000A_EDX. AMD APM Vol. 2, 15.4 "Enabling SVM" and Vol. 3, E.4.9 "Function
/// 8000_000Ah-SVM Features".
mod feature {
    /// Nested paging.
    pub const NESTED_PAGING: u32 = 1 << 0;
    /// VM_CR.SVMDIS can be locked, and so written where it is not locked.
    pub const SVM_LOCK: u32 = 1 << 2;
    /// The address of the next instruction is saved at an exit.
    pub const NRIP_SAVE: u32 = 1 << 3;
    /// The guest's TSC has a ratio to the CPU's, in TSC_RATIO.
    pub const TSC_RATIO: u32 = 1 << 4;
    /// VMCB clean bits.
    pub const CLEAN_BITS: u32 = 1 << 5;
    /// TLB flushes of one ASID.
    pub const FLUSH_BY_ASID: u32 = 1 << 6;
}

/// What matters of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// The VMCB says behind which address the guest goes on after an intercepted instruction.
    pub nrip_save: bool,
    /// The CPU keeps parts of the VMCB that are marked as unchanged.
    pub clean_bits: bool,
    /// The TLB can be flushed of the guest's translations alone.
    pub flush_by_asid: bool,
    /// The guest's TSC has a ratio to the CPU's, which may have been left as another hypervisor wanted it.
    pub tsc_ratio: bool,
}

impl Capabilities {
    /// All of it, by what it is called.
    pub const fn fields(self) -> [(&'static str, u64); 4] {
        let Self { nrip_save, clean_bits, flush_by_asid, tsc_ratio } = self;
        [
            ("next RIP save", nrip_save as u64),
            ("VMCB clean bits", clean_bits as u64),
            ("flush by ASID", flush_by_asid as u64),
            ("TSC ratio", tsc_ratio as u64),
        ]
    }

    /// Reads them out of CPUID Fn8000_000A.
    ///
    /// # Errors
    /// The names of what Vidar needs and the CPU lacks.
    pub fn choose(svm: Leaf) -> Result<Self, Vec<&'static str>> {
        let has = |feature| svm.edx & feature != 0;
        let mut missing = Vec::new();
        if !has(feature::NESTED_PAGING) {
            missing.push("nested paging");
        }
        // ASID 0 is Vidar's own, and the guest needs one.
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
        })
    }
}

/// VM_CR.R_INIT.
pub const R_INIT: u64 = 1 << 1;

/// What VM_CR says about turning AMD-V on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It can be used, once VM_CR has this value.
    Write(u64),
    /// Firmware has switched it off, and only firmware can switch it on.
    LockedOff,
}

/// Decides by VM_CR and CPUID Fn8000_000A. AMD APM Vol. 2, 15.4 "Enabling SVM" and 15.30.1 "VM_CR MSR (C001_0114h)": where
/// SVMDIS cannot be locked, software cannot clear it.
///
/// An INIT that was intercepted stays pending: R_INIT turns it into an exception, so that it can be taken off the CPU.
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
    fn what_is_missing_is_named() {
        let good = Leaf { ebx: 16, edx: 0x49, ..Leaf::default() };
        let capabilities =
            Capabilities { nrip_save: true, clean_bits: false, flush_by_asid: true, tsc_ratio: false };
        assert_eq!(Capabilities::choose(good), Ok(capabilities));
        assert_eq!(Capabilities::choose(Leaf { edx: 0x48, ..good }), Err(vec!["nested paging"]));
        assert_eq!(Capabilities::choose(Leaf::default()).map_err(|missing| missing.len()), Err(2));
    }

    #[test]
    fn firmware_has_its_say() {
        let lockable = Leaf { edx: 1 << 2, ..Leaf::default() };
        assert_eq!(decide(0, lockable), Decision::Write(0b10));
        assert_eq!(decide(0b1000, lockable), Decision::Write(0b1010), "locked with SVM on");
        assert_eq!(decide(0b1_0000, lockable), Decision::Write(0b10), "off, and not locked");
        assert_eq!(decide(0b1_1000, lockable), Decision::LockedOff);
        assert_eq!(decide(0, Leaf::default()), Decision::Write(0b10));
        assert_eq!(decide(0b1_0000, Leaf::default()), Decision::LockedOff, "off, and it cannot be locked");
    }
}
