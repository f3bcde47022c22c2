//! Why the guest left: each backend decodes its own exit into this.

use vidar_abi::ExitKind;

use crate::mem::addr::Gpa;
use crate::policy::control::ControlWrite;
use crate::x86::registers::Register;

/// An exit, decoded. Operands that are registers of the guest are read from there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// CPUID.
    Cpuid,
    /// RDMSR of the MSR in ECX.
    Rdmsr,
    /// WRMSR of the MSR in ECX.
    Wrmsr,
    /// RDMSR of an MSR that the instruction names, into a register.
    RdmsrImmediate(Immediate),
    /// WRMSRNS of an MSR that the instruction names, from a register.
    WrmsrImmediate(Immediate),
    /// A write to CR0 or CR4 that touches bits which the guest does not own.
    ControlWrite(ControlWrite),
    /// XSETBV.
    Xsetbv,
    /// INVD.
    Invd,
    /// VMCALL or VMMCALL.
    Hypercall,
    /// Another instruction of VMX, SMX or SVM.
    Virtualization,
    /// An instruction in a form that does not exist, which the CPU should have refused.
    Undefined,
    /// Memory has changed since the instruction that exited was fetched: the guest is to execute what is there now.
    Changed,
    /// The second-stage table does not allow an access.
    SecondStage(Violation),
    /// INIT arrived.
    Init,
    /// A start-up IPI with this vector arrived.
    Sipi(u8),
    /// An NMI arrived in the guest, where the backend has them exit.
    Nmi,
    /// The guest can take the event that was kept for it.
    Window,
    /// A machine check that the guest has still to take.
    MachineCheck,
    /// Triple fault or shutdown.
    TripleFault,
    /// The guest switches to the task with this TSS selector, where the extension leaves that to the hypervisor.
    TaskSwitch(u16),
    /// The extension refused to enter the guest, for a reason in its own words.
    EntryFailed {
        /// VM-instruction error or exit reason.
        code: u32,
        /// Exit qualification, where there is one.
        qualification: u64,
    },
    /// Anything else, in the extension's own numbers.
    Unknown {
        /// Exit reason or code.
        code: u32,
        /// Exit qualification or its like.
        qualification: u64,
    },
}

impl Exit {
    /// The kind that the exit is counted as.
    pub const fn kind(&self) -> ExitKind {
        match self {
            Self::Cpuid => ExitKind::Cpuid,
            Self::Rdmsr | Self::RdmsrImmediate(_) => ExitKind::Rdmsr,
            Self::Wrmsr | Self::WrmsrImmediate(_) => ExitKind::Wrmsr,
            Self::ControlWrite(_) => ExitKind::ControlRegister,
            Self::Xsetbv => ExitKind::Xsetbv,
            Self::Invd => ExitKind::Invd,
            Self::Hypercall => ExitKind::Hypercall,
            Self::Virtualization => ExitKind::Virtualization,
            Self::SecondStage(_) => ExitKind::SecondStage,
            Self::Init => ExitKind::Init,
            Self::Sipi(_) => ExitKind::Sipi,
            Self::Nmi => ExitKind::Nmi,
            Self::Window => ExitKind::Window,
            Self::TripleFault => ExitKind::TripleFault,
            Self::Undefined
            | Self::Changed
            | Self::MachineCheck
            | Self::TaskSwitch(_)
            | Self::EntryFailed { .. }
            | Self::Unknown { .. } => ExitKind::Other,
        }
    }
}

/// The operands of an MSR instruction with an immediate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Immediate {
    /// The MSR.
    pub index: u32,
    /// The register, whose 64 bits are read or written.
    pub register: Register,
}

/// An access that the second-stage table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The guest-physical address.
    pub address: Gpa,
    /// Something is mapped there, with fewer rights than the access wants.
    pub mapped: bool,
}
