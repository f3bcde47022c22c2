//! The VMX instructions, and the current VMCS of this CPU.

#![expect(unsafe_code, reason = "VMX instructions are here")]

use core::arch::asm;

use vidar_core::mem::addr::Hpa;
use vidar_core::vmx::field::{
    ALL, Access, EXIT_REASON, Field, Fields, FieldsMut, OPTIONAL, ReadWrite, VM_INSTRUCTION_ERROR, Width,
};

/// A VMX instruction failed. Intel SDM Vol. 3C, 31.2 "Conventions".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// VMfailInvalid: there is no current VMCS to say why.
    Invalid,
    /// VMfailValid, with the VM-instruction error. Intel SDM Vol. 3C, 31.4 "VM Instruction Error Numbers".
    Valid(u32),
}

/// Why a virtual CPU could not be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupError {
    /// An instruction failed.
    Instruction(&'static str, Failure),
    /// The VMCS lacks this field.
    NoField(&'static str),
}

/// Wraps an instruction with one memory operand that reports failure in CF and ZF.
macro_rules! vmx_instruction {
    ($instruction:literal, $operand:expr) => {{
        let operand: u64 = $operand;
        let (invalid, valid): (u8, u8);
        asm!(
            concat!($instruction, " [{operand}]"),
            "setc {invalid}",
            "setz {valid}",
            operand = in(reg) &raw const operand,
            invalid = out(reg_byte) invalid,
            valid = out(reg_byte) valid,
            options(nostack),
        );
        check(invalid, valid)
    }};
}

fn check(invalid: u8, valid: u8) -> Result<(), Failure> {
    match (invalid, valid) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Valid(Vmcs(()).read(VM_INSTRUCTION_ERROR))),
        _ => Err(Failure::Invalid),
    }
}

/// VMXON: enters VMX operation with the region at `region`.
///
/// # Errors
/// [`Failure`] where the instruction fails.
///
/// # Safety
/// CR0, CR4 and IA32_FEATURE_CONTROL allow it, or it raises an exception; the region is a page that only VMX uses,
/// with the revision identifier in its first word.
pub unsafe fn vmxon(region: Hpa) -> Result<(), Failure> {
    // SAFETY: the caller's promise.
    unsafe { vmx_instruction!("vmxon", region.0) }
}

/// VMXOFF: leaves VMX operation.
///
/// # Safety
/// No VMCS of this CPU is used again.
pub unsafe fn vmxoff() {
    // SAFETY: the caller's promise; where it fails the CPU was not in VMX operation.
    unsafe { asm!("vmxoff", options(nomem, nostack)) };
}

/// VMCLEAR: writes what the CPU keeps of the VMCS at `region` back and ends its use.
///
/// # Safety
/// The CPU is in VMX operation, and the VMCS is not used again before it is loaded.
pub unsafe fn vmclear(region: Hpa) {
    // SAFETY: the caller's promise; it fails for a region that was never a VMCS alone.
    let _ = unsafe { vmx_instruction!("vmclear", region.0) };
}

/// The current VMCS of this CPU.
#[derive(Debug)]
pub struct Vmcs(());

impl Vmcs {
    /// Makes the page at `region` the current VMCS, in the clear state.
    ///
    /// # Errors
    /// [`Failure`] where the instructions fail.
    ///
    /// # Safety
    /// The CPU is in VMX operation; the region is a page that only VMX uses, with the revision identifier in its
    /// first word; no other VMCS is used on this CPU afterwards.
    pub unsafe fn load(region: Hpa) -> Result<Self, Failure> {
        // SAFETY: the caller's promise.
        unsafe {
            vmx_instruction!("vmclear", region.0)?;
            vmx_instruction!("vmptrld", region.0)?;
        }
        Ok(Self(()))
    }

    /// Checks that the CPU has every field that Vidar uses, so that [`Vmcs::read`] need not. Returns the name of one
    /// that it lacks.
    pub fn lacks(&self) -> Option<&'static str> {
        let absent = |encoding: u32| {
            let failed: u8;
            // SAFETY: VMREAD changes nothing but its destination and the flags.
            unsafe {
                asm!(
                    "vmread {value}, {field}",
                    "setna {failed}",
                    value = out(reg) _,
                    field = in(reg) u64::from(encoding),
                    failed = out(reg_byte) failed,
                    options(nostack),
                );
            }
            failed != 0
        };
        ALL.iter()
            .find(|(_, encoding)| !OPTIONAL.contains(encoding) && absent(*encoding))
            .map(|(name, _)| *name)
    }

    /// The reason of the last exit.
    pub fn exit_reason(&self) -> u32 {
        self.read(EXIT_REASON)
    }
}

impl FieldsMut for Vmcs {
    /// Writes `field`.
    fn write<W: Width>(&mut self, field: Field<W, ReadWrite>, value: W) {
        // SAFETY: a field of the current VMCS affects the guest and what Vidar finds after its exit; `setup` and the
        // backend answer for the values.
        unsafe {
            asm!(
                "vmwrite {field}, {value}",
                "jna {failed}",
                field = in(reg) u64::from(field.encoding()),
                value = in(reg) value.to_u64(),
                failed = label { panic!("VMWRITE of field {:#x}", field.encoding()) },
                options(nostack),
            );
        }
    }
}

impl Fields for Vmcs {
    /// Reads `field`. This cannot fail: there is a current VMCS, and [`Vmcs::lacks`] has tried every field.
    fn read<W: Width, A: Access>(&self, field: Field<W, A>) -> W {
        let value: u64;
        // SAFETY: VMREAD changes nothing but its destination and the flags.
        unsafe {
            asm!(
                "vmread {value}, {field}",
                value = out(reg) value,
                field = in(reg) u64::from(field.encoding()),
                options(nostack),
            );
        }
        W::from_u64(value)
    }
}

/// INVEPT of all contexts: forgets every translation that came through any EPT.
pub fn invept_all() {
    invalidate(Invalidation::Ept, 2, 0);
}

/// INVVPID of a single context: forgets the linear translations of the guest with this VPID.
pub fn invvpid(vpid: u16) {
    invalidate(Invalidation::Vpid, 1, u64::from(vpid));
}

enum Invalidation {
    Ept,
    Vpid,
}

fn invalidate(what: Invalidation, kind: u64, context: u64) {
    let descriptor = [context, 0];
    let pointer = &raw const descriptor;
    let failed: u8;
    // SAFETY: forgetting translations is always allowed; the descriptor is 128 bits that live through the call.
    unsafe {
        match what {
            Invalidation::Ept => asm!(
                "invept {kind}, [{pointer}]", "setna {failed}",
                kind = in(reg) kind, pointer = in(reg) pointer, failed = out(reg_byte) failed, options(nostack),
            ),
            Invalidation::Vpid => asm!(
                "invvpid {kind}, [{pointer}]", "setna {failed}",
                kind = in(reg) kind, pointer = in(reg) pointer, failed = out(reg_byte) failed, options(nostack),
            ),
        }
    }
    assert!(failed == 0, "INVEPT or INVVPID of a type that the CPU reported");
}
