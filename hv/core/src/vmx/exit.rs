//! The decoder of VM exits into the neutral [`Exit`]. It reads a field only for the exit reasons that need it.
//!
//! Reasons: Intel SDM Vol. 3D, Appendix C "VMX Basic Exit Reasons". Qualifications: Vol. 3C, 28.2.1 "Basic VM-Exit
//! Information".

use super::event;
use super::field::{
    EXIT_INSTRUCTION_INFO, EXIT_INTERRUPTION_INFO, EXIT_QUALIFICATION, Fields, GUEST_PHYSICAL_ADDRESS,
};
use crate::mem::addr::Gpa;
use crate::policy::control::ControlWrite;
use crate::vmm::exit::{Exit, Immediate, Violation};
use crate::x86::registers::Register;

/// Bit 31 of the exit reason: the VM entry failed while it checked the guest's state or loaded MSRs, or by a machine
/// check.
const ENTRY_FAILURE: u32 = 1 << 31;

/// The exit reason of a VM entry that failed by a machine check, which the guest is to take. Intel SDM Vol. 3C, 27.9
/// "Machine-Check Events During VM Entry".
pub const ENTRY_MACHINE_CHECK: u32 = ENTRY_FAILURE | 41;

/// The exit reason of an INIT, for code that compares it without decoding the exit. Only `run` calls [`decode`], so
/// that the compiler inlines it there.
pub const INIT: u32 = reason::INIT;

/// Basic exit reasons.
mod reason {
    pub const EXCEPTION_OR_NMI: u32 = 0;
    pub const TRIPLE_FAULT: u32 = 2;
    pub const INIT: u32 = 3;
    pub const SIPI: u32 = 4;
    pub const TASK_SWITCH: u32 = 9;
    pub const CPUID: u32 = 10;
    pub const GETSEC: u32 = 11;
    pub const INVD: u32 = 13;
    pub const VMCALL: u32 = 18;
    pub const VMCLEAR: u32 = 19;
    pub const VMXON: u32 = 27;
    pub const CONTROL_REGISTER: u32 = 28;
    pub const RDMSR: u32 = 31;
    pub const WRMSR: u32 = 32;
    pub const EPT_VIOLATION: u32 = 48;
    pub const INVEPT: u32 = 50;
    pub const PREEMPTION_TIMER: u32 = 52;
    pub const INVVPID: u32 = 53;
    pub const XSETBV: u32 = 55;
    pub const VMFUNC: u32 = 59;
    pub const SEAMCALL: u32 = 76;
    pub const TDCALL: u32 = 77;
    pub const RDMSRLIST: u32 = 78;
    pub const UWRMSR: u32 = 81;
    pub const RDMSR_IMMEDIATE: u32 = 84;
    pub const WRMSRNS_IMMEDIATE: u32 = 85;
}

/// Decodes the exit whose exit reason is `exit_reason`, and whose other fields `fields` reads.
#[inline(always)]
pub fn decode(exit_reason: u32, fields: &impl Fields) -> Exit {
    let qualification = || fields.read(EXIT_QUALIFICATION).0;
    let basic = exit_reason & 0xffff;
    if exit_reason & ENTRY_FAILURE != 0 {
        if exit_reason & (ENTRY_FAILURE | 0xffff) == ENTRY_MACHINE_CHECK {
            return Exit::MachineCheck;
        }
        return Exit::EntryFailed { code: basic, qualification: qualification() };
    }
    match basic {
        reason::CPUID => Exit::Cpuid,
        reason::VMCALL => Exit::Hypercall,
        reason::RDMSR => Exit::Rdmsr,
        reason::WRMSR => Exit::Wrmsr,
        reason::EPT_VIOLATION => Exit::SecondStage(Violation {
            address: Gpa(fields.read(GUEST_PHYSICAL_ADDRESS)),
            // Bits 5:3 are the accesses that the EPT entries allow.
            mapped: qualification() & 0b11_1000 != 0,
        }),
        reason::CONTROL_REGISTER => control_register(qualification()).map_or_else(
            || Exit::Unknown { code: basic, qualification: qualification() },
            Exit::ControlWrite,
        ),
        reason::XSETBV => Exit::Xsetbv,
        reason::INVD => Exit::Invd,
        reason::GETSEC
        | reason::VMCLEAR..=reason::VMXON
        | reason::INVEPT
        | reason::INVVPID
        | reason::VMFUNC
        | reason::SEAMCALL
        | reason::TDCALL => Exit::Virtualization,
        reason::PREEMPTION_TIMER => Exit::Window,
        reason::INIT => Exit::Init,
        reason::SIPI => Exit::Sipi(qualification() as u8),
        reason::TRIPLE_FAULT => Exit::TripleFault,
        _ => rare(basic, fields),
    }
}

/// Decodes the rare exit reasons. They are in a function of their own to keep the decoding of the others fast.
#[cold]
fn rare(basic: u32, fields: &impl Fields) -> Exit {
    let qualification = fields.read(EXIT_QUALIFICATION).0;
    match basic {
        reason::EXCEPTION_OR_NMI if event::is_nmi(fields.read(EXIT_INTERRUPTION_INFO)) => Exit::Nmi,
        // The instructions of the MSR lists and of USER_MSR, which CPUID hides from the guest.
        reason::RDMSRLIST..=reason::UWRMSR => Exit::Virtualization,
        reason::RDMSR_IMMEDIATE => Exit::RdmsrImmediate(immediate(fields)),
        reason::WRMSRNS_IMMEDIATE => Exit::WrmsrImmediate(immediate(fields)),
        // Bits 15:0 are the selector of the new TSS.
        reason::TASK_SWITCH => Exit::TaskSwitch(qualification as u16),
        _ => Exit::Unknown { code: basic, qualification },
    }
}

/// Reads the operands of an MSR instruction with an immediate. The qualification is the index of the MSR, and bits 6:3
/// of the instruction information are the register.
fn immediate(fields: &impl Fields) -> Immediate {
    Immediate {
        index: fields.read(EXIT_QUALIFICATION).0 as u32,
        register: Register::from_number(u64::from(fields.read(EXIT_INSTRUCTION_INFO) >> 3)),
    }
}

/// Decodes the qualification of a control-register access: bits 3:0 are the control register, bits 5:4 the type of
/// access, bits 11:8 the general-purpose register, and bits 31:16 the source of LMSW. Returns `None` for accesses that
/// never exit under Vidar, such as reads.
fn control_register(qualification: u64) -> Option<ControlWrite> {
    let register = Register::from_number(qualification >> 8);
    match (qualification & 0xf, qualification >> 4 & 3) {
        (0, 0) => Some(ControlWrite::Cr0(register)),
        (4, 0) => Some(ControlWrite::Cr4(register)),
        (0, 2) => Some(ControlWrite::Clts),
        (0, 3) => Some(ControlWrite::Lmsw((qualification >> 16) as u16)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::vmx::field::{Access, Field, Width};

    struct Fake {
        qualification: u64,
        address: u64,
        information: u32,
    }

    impl Fields for Fake {
        fn read<W: Width, A: Access>(&self, field: Field<W, A>) -> W {
            let encoding = field.encoding();
            W::from_u64(if encoding == EXIT_QUALIFICATION.encoding() {
                self.qualification
            } else if encoding == GUEST_PHYSICAL_ADDRESS.encoding() {
                self.address
            } else if [EXIT_INSTRUCTION_INFO, EXIT_INTERRUPTION_INFO]
                .map(|field| field.encoding())
                .contains(&encoding)
            {
                self.information.into()
            } else {
                panic!("decoding asks for field {encoding:#x}")
            })
        }
    }

    fn decoded(reason: u32, qualification: u64) -> Exit {
        decode(reason, &Fake { qualification, address: 0xfee0_0300, information: 0x68 })
    }

    #[test]
    fn exit_reasons_decode() {
        assert_eq!(decoded(10, 0), Exit::Cpuid);
        assert_eq!(decoded(2, 0), Exit::TripleFault);
        assert_eq!(decoded(4, 0x9f), Exit::Sipi(0x9f));
        for reason in (19..=27).chain([11, 50, 53, 59]).chain(76..=81) {
            assert_eq!(decoded(reason, 0), Exit::Virtualization, "{reason}");
        }
        assert_eq!(decoded(0x8000_0021, 4), Exit::EntryFailed { code: 33, qualification: 4 });
        assert_eq!(decoded(0x8000_0029, 0), Exit::MachineCheck);
        assert_eq!(decoded(9, 3 << 30 | 0xf8), Exit::TaskSwitch(0xf8));
        assert_eq!(decoded(12, 5), Exit::Unknown { code: 12, qualification: 5 });
    }

    #[test]
    fn an_nmi_is_told_from_an_exception() {
        let of = |information| decode(0, &Fake { qualification: 5, address: 0, information });
        assert_eq!(of(0x8000_0202), Exit::Nmi);
        // Bit 12 says that an IRET had unblocked NMIs.
        assert_eq!(of(0x8000_1202), Exit::Nmi);
        for exception in [0x8000_0301, 0x8000_0b0e, 0x8000_0603, 0x202] {
            assert_eq!(of(exception), Exit::Unknown { code: 0, qualification: 5 }, "{exception:#x}");
        }
    }

    #[test]
    fn control_register_accesses_decode() {
        assert_eq!(decoded(28, 0x300), Exit::ControlWrite(ControlWrite::Cr0(Register::Rbx)));
        assert_eq!(decoded(28, 0xf04), Exit::ControlWrite(ControlWrite::Cr4(Register::R15)));
        assert_eq!(decoded(28, 0x20), Exit::ControlWrite(ControlWrite::Clts));
        assert_eq!(decoded(28, 0xabcd_0030), Exit::ControlWrite(ControlWrite::Lmsw(0xabcd)));
        assert_eq!(decoded(28, 0x3), Exit::Unknown { code: 28, qualification: 3 });
    }

    #[test]
    fn msr_instructions_with_an_immediate_decode() {
        let operands = Immediate { index: 0xc000_0080, register: Register::R13 };
        assert_eq!(decoded(84, 0xc000_0080), Exit::RdmsrImmediate(operands));
        assert_eq!(decoded(85, 0xc000_0080), Exit::WrmsrImmediate(operands));
    }

    #[test]
    fn a_violation_is_of_a_mapped_page_if_its_entries_allow_any_access() {
        let address = Gpa(0xfee0_0300);
        assert_eq!(decoded(48, 0b1), Exit::SecondStage(Violation { address, mapped: false }));
        assert_eq!(decoded(48, 0b10_1010), Exit::SecondStage(Violation { address, mapped: true }));
    }

    proptest! {
        #[test]
        fn decoding_never_panics(reason in any::<u32>(), qualification in any::<u64>()) {
            decoded(reason, qualification);
        }
    }
}
