//! VM exits, decoded into the neutral [`Exit`]. Fields are read only for the reasons that need them.
//!
//! Reasons: Intel SDM Vol. 3D, Appendix C "VMX Basic Exit Reasons". Qualifications: Vol. 3C, 28.2.1 "Basic VM-Exit
//! Information".

use super::field::{EXIT_INSTRUCTION_INFO, EXIT_QUALIFICATION, Fields, GUEST_PHYSICAL_ADDRESS};
use crate::mem::addr::Gpa;
use crate::policy::control::ControlWrite;
use crate::vmm::exit::{Exit, Immediate, Violation};
use crate::x86::registers::Register;

/// Bit 31 of the exit reason: the VM entry failed, in its checks of guest state or in loading MSRs.
const ENTRY_FAILURE: u32 = 1 << 31;

/// An entry that a machine check has ended: the guest is to get it. Intel SDM Vol. 3C, 27.9 "Machine-Check Events During VM
/// Entry".
pub const ENTRY_MACHINE_CHECK: u32 = ENTRY_FAILURE | 41;

/// The exit reason of an INIT. `run` alone decodes exits, so that the compiler takes the decoding into it.
pub const INIT: u32 = reason::INIT;

/// Basic exit reasons.
mod reason {
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

/// What the exit with this exit reason is.
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
            // Bits 5:3: the access that the entries allow.
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

/// The reasons that hardly come: apart from the others, so that those cost no more.
#[cold]
fn rare(basic: u32, fields: &impl Fields) -> Exit {
    let qualification = fields.read(EXIT_QUALIFICATION).0;
    match basic {
        // CPUID hides these, so a guest has not been able to enable them.
        reason::RDMSRLIST..=reason::UWRMSR => Exit::Virtualization,
        reason::RDMSR_IMMEDIATE => Exit::RdmsrImmediate(immediate(fields)),
        reason::WRMSRNS_IMMEDIATE => Exit::WrmsrImmediate(immediate(fields)),
        // Bits 15:0: the selector of the new TSS.
        reason::TASK_SWITCH => Exit::TaskSwitch(qualification as u16),
        _ => Exit::Unknown { code: basic, qualification },
    }
}

/// The operands of an MSR instruction with an immediate: the qualification is the MSR, and bits 6:3 of the instruction
/// information are the register.
fn immediate(fields: &impl Fields) -> Immediate {
    Immediate {
        index: fields.read(EXIT_QUALIFICATION).0 as u32,
        register: Register::from_number(u64::from(fields.read(EXIT_INSTRUCTION_INFO) >> 3)),
    }
}

/// Decodes the qualification of a control-register access: the register in bits 3:0, the kind of access in 5:4, the
/// general-purpose register in 11:8, the source of LMSW in 31:16. Reads of control registers never exit.
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
            } else if encoding == EXIT_INSTRUCTION_INFO.encoding() {
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
    fn reasons() {
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
    fn control_register_accesses() {
        assert_eq!(decoded(28, 0x300), Exit::ControlWrite(ControlWrite::Cr0(Register::Rbx)));
        assert_eq!(decoded(28, 0xf04), Exit::ControlWrite(ControlWrite::Cr4(Register::R15)));
        assert_eq!(decoded(28, 0x20), Exit::ControlWrite(ControlWrite::Clts));
        assert_eq!(decoded(28, 0xabcd_0030), Exit::ControlWrite(ControlWrite::Lmsw(0xabcd)));
        assert_eq!(decoded(28, 0x3), Exit::Unknown { code: 28, qualification: 3 });
    }

    #[test]
    fn msr_instructions_with_an_immediate() {
        let operands = Immediate { index: 0xc000_0080, register: Register::R13 };
        assert_eq!(decoded(84, 0xc000_0080), Exit::RdmsrImmediate(operands));
        assert_eq!(decoded(85, 0xc000_0080), Exit::WrmsrImmediate(operands));
    }

    #[test]
    fn violations() {
        let address = Gpa(0xfee0_0300);
        assert_eq!(decoded(48, 0b1), Exit::SecondStage(Violation { address, mapped: false }));
        assert_eq!(decoded(48, 0b10_1010), Exit::SecondStage(Violation { address, mapped: true }));
    }

    proptest! {
        #[test]
        fn whatever_the_cpu_says_has_an_answer(reason in any::<u32>(), qualification in any::<u64>()) {
            decoded(reason, qualification);
        }
    }
}
