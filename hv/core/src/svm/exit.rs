//! The decoder of #VMEXITs into the neutral [`Exit`]. The exit codes are in appendix C of AMD's manual, "SVM Intercept
//! Exit Codes".

use super::vmcb::Control;
use crate::mem::addr::Gpa;
use crate::policy::control::ControlWrite;
use crate::vmm::exit::{Exit, Violation};
use crate::x86::registers::Register;

/// Exit codes.
mod code {
    pub const CR4_WRITE: u64 = 0x14;
    /// The exit code of the exception with vector 18.
    pub const MACHINE_CHECK: u64 = 0x52;
    pub const INIT: u64 = 0x63;
    pub const CR0_SELECTIVE_WRITE: u64 = 0x65;
    pub const CPUID: u64 = 0x72;
    pub const INVD: u64 = 0x76;
    pub const INVLPGA: u64 = 0x7a;
    pub const MSR: u64 = 0x7c;
    pub const SHUTDOWN: u64 = 0x7f;
    pub const VMRUN: u64 = 0x80;
    pub const VMMCALL: u64 = 0x81;
    pub const VMLOAD: u64 = 0x82;
    pub const SKINIT: u64 = 0x86;
    pub const XSETBV: u64 = 0x8d;
    pub const NPF: u64 = 0x400;
    /// VMEXIT_INVALID is -1. Some emulators write its low 32 bits alone.
    pub const INVALID: u64 = 0xffff_ffff;
}

/// Decodes the exit that `control` describes.
#[inline(always)]
pub fn decode(control: &Control) -> Exit {
    match control.exitcode {
        code::CPUID => Exit::Cpuid,
        code::VMMCALL => Exit::Hypercall,
        _ => decode_other(control),
    }
}

/// Decodes all exits but those of CPUID and VMMCALL. They are in a function of their own, so that those two take only
/// two comparisons.
#[cold]
fn decode_other(control: &Control) -> Exit {
    match control.exitcode {
        code::MSR if control.exitinfo1 & 1 == 0 => Exit::Rdmsr,
        code::MSR => Exit::Wrmsr,
        code::NPF => Exit::SecondStage(Violation {
            address: Gpa(control.exitinfo2),
            // Bit 0 of EXITINFO1 is the present bit of the error code: AMD APM Vol. 2, 15.25.6 "Nested versus Guest
            // Page Faults, Fault Ordering".
            mapped: control.exitinfo1 & 1 != 0,
        }),
        code::XSETBV => Exit::Xsetbv,
        code::INVD => Exit::Invd,
        code::VMRUN | code::VMLOAD..=code::SKINIT | code::INVLPGA => Exit::Virtualization,
        code::INIT => Exit::Init,
        code::CR0_SELECTIVE_WRITE => Exit::ControlWrite(ControlWrite::Cr0(register(control))),
        code::CR4_WRITE => Exit::ControlWrite(ControlWrite::Cr4(register(control))),
        // Vidar does not intercept machine checks. The exit comes if CR4.MCE is 0 in the guest, while it is 1 in Vidar.
        code::MACHINE_CHECK => Exit::MachineCheck,
        code::SHUTDOWN => Exit::TripleFault,
        invalid if invalid & code::INVALID == code::INVALID => {
            Exit::EntryFailed { code: code::INVALID as u32, qualification: 0 }
        }
        other => Exit::Unknown { code: other as u32, qualification: control.exitinfo1 },
    }
}

/// Returns the register that MOV writes to a control register, as decode assists report it. The instruction may be
/// another one, and the CPU may have no decode assists: see [`control_write`](super::control_write).
const fn register(control: &Control) -> Register {
    Register::from_number(control.exitinfo1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::FromZeros;

    use super::*;

    fn decoded(exitcode: u64, exitinfo1: u64, exitinfo2: u64) -> Exit {
        let mut control = Control::new_zeroed();
        (control.exitcode, control.exitinfo1, control.exitinfo2) = (exitcode, exitinfo1, exitinfo2);
        decode(&control)
    }

    #[test]
    fn exit_codes_decode() {
        assert_eq!(decoded(0x72, 0, 0), Exit::Cpuid);
        assert_eq!(decoded(0x7c, 0, 0), Exit::Rdmsr);
        assert_eq!(decoded(0x7c, 1, 0), Exit::Wrmsr);
        assert_eq!(decoded(0x81, 0, 0), Exit::Hypercall);
        assert_eq!(decoded(0x7f, 0, 0), Exit::TripleFault);
        assert_eq!(decoded(0x52, 0, 0), Exit::MachineCheck);
        for code in [0x7a, 0x80, 0x82, 0x83, 0x84, 0x85, 0x86] {
            assert_eq!(decoded(code, 0, 0), Exit::Virtualization, "{code:#x}");
        }
        for invalid in [u64::MAX, 0xffff_ffff] {
            assert_eq!(decoded(invalid, 0, 0), Exit::EntryFailed { code: u32::MAX, qualification: 0 });
        }
        let mov = 1 << 63 | 11;
        assert_eq!(decoded(0x65, mov, 0), Exit::ControlWrite(ControlWrite::Cr0(Register::R11)));
        assert_eq!(decoded(0x14, mov, 0), Exit::ControlWrite(ControlWrite::Cr4(Register::R11)));
        assert_eq!(decoded(0x78, 5, 0), Exit::Unknown { code: 0x78, qualification: 5 });
    }

    #[test]
    fn a_nested_page_fault_is_of_a_mapped_page_if_its_present_bit_is_set() {
        let address = Gpa(0xfee0_0300);
        assert_eq!(
            decoded(0x400, 0x1_0000_0006, address.0),
            Exit::SecondStage(Violation { address, mapped: false })
        );
        assert_eq!(
            decoded(0x400, 0x1_0000_0007, address.0),
            Exit::SecondStage(Violation { address, mapped: true })
        );
    }

    proptest! {
        #[test]
        fn decoding_never_panics(code in any::<u64>(), info in any::<u64>()) {
            decoded(code, info, info);
        }
    }
}
