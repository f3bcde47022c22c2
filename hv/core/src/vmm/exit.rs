//! The reasons for exits. Each extension's decoder turns its own exit codes into an [`Exit`].

use vidar_abi::ExitKind;

use crate::mem::addr::Gpa;
use crate::policy::control::ControlWrite;
use crate::x86::registers::Register;

/// A decoded exit. Operands in fixed registers, such as ECX of RDMSR, are not part of it: the handler reads them from
/// the virtual CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// CPUID.
    Cpuid,
    /// RDMSR of the MSR in ECX.
    Rdmsr,
    /// WRMSR of the MSR in ECX.
    Wrmsr,
    /// RDMSR with an immediate: the instruction encodes the MSR and the destination register.
    RdmsrImmediate(Immediate),
    /// WRMSRNS with an immediate: the instruction encodes the MSR and the source register.
    WrmsrImmediate(Immediate),
    /// A write to CR0 or CR4 that changes bits which the guest does not own.
    ControlWrite(ControlWrite),
    /// XSETBV.
    Xsetbv,
    /// INVD.
    Invd,
    /// VMCALL or VMMCALL.
    Hypercall,
    /// Another instruction of VMX, SMX or SVM.
    Virtualization,
    /// An undefined form of an intercepted instruction, which the CPU should have refused with #UD.
    Undefined,
    /// Memory no longer holds the instruction that exited: the guest is to execute what is there now.
    Changed,
    /// The second-stage table does not allow an access.
    SecondStage(Violation),
    /// An INIT arrived.
    Init,
    /// A start-up IPI with this vector arrived.
    Sipi(u8),
    /// An NMI arrived while the guest ran, on an extension where NMIs exit.
    Nmi,
    /// It is time to try again to inject an event that is pending for the guest.
    Window,
    /// A machine check arrived that the guest has not taken yet.
    MachineCheck,
    /// A triple fault (VT-x) or a shutdown (AMD-V).
    TripleFault,
    /// A hardware task switch to the TSS with this selector, on an extension where task switches always exit.
    TaskSwitch(u16),
    /// VM entry or VMRUN failed. The numbers are the extension's own.
    EntryFailed {
        /// VM-instruction error, exit reason, or the low half of EXITCODE.
        code: u32,
        /// Exit qualification, or 0.
        qualification: u64,
    },
    /// Any other exit. The numbers are the extension's own.
    Unknown {
        /// Basic exit reason, or the low half of EXITCODE.
        code: u32,
        /// Exit qualification, or EXITINFO1.
        qualification: u64,
    },
}

impl Exit {
    /// Returns the kind under which the exit is counted.
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
    /// The index of the MSR.
    pub index: u32,
    /// The general-purpose register, of which all 64 bits are read or written.
    pub register: Register,
}

/// An access that the second-stage table does not allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The guest-physical address of the access.
    pub address: Gpa,
    /// True if a page is mapped there, but with fewer rights than the access needs.
    pub mapped: bool,
}
