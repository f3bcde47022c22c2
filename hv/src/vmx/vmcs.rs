//! The VMX instructions, and the current VMCS of this CPU.

#![expect(unsafe_code, reason = "VMX instructions are here")]

use core::arch::asm;
use core::marker::PhantomData;

use vidar_core::mem::addr::Hpa;
use vidar_core::vmx::controls::pin;
use vidar_core::vmx::field::{
    ALL, Access, EXIT_REASON, Field, Fields, FieldsMut, OPTIONAL, PIN_BASED_CONTROLS, ReadWrite, Root,
    RootFieldsMut, VM_INSTRUCTION_ERROR, Width,
};

/// A VMX instruction failed. Intel SDM Vol. 3C, 31.2 "Conventions".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// VMfailInvalid: there is no current VMCS that could hold an error number.
    Invalid,
    /// VMfailValid, with the VM-instruction error. Intel SDM Vol. 3C, 31.4 "VM Instruction Error Numbers".
    Valid(u32),
}

/// Why a virtual CPU could not be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SetupError {
    /// This instruction failed.
    Instruction(&'static str, Failure),
    /// The VMCS lacks this field.
    NoField(&'static str),
}

/// Executes an instruction with one memory operand that reports failure in CF and ZF, and returns its result.
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

/// Returns the result of an instruction that has set CF to `invalid` and ZF to `valid`.
fn check(invalid: u8, valid: u8) -> Result<(), Failure> {
    match (invalid, valid) {
        (0, 0) => Ok(()),
        (0, _) => Err(Failure::Valid(Vmcs(PhantomData).read(VM_INSTRUCTION_ERROR))),
        _ => Err(Failure::Invalid),
    }
}

/// Executes VMXON: enters VMX operation with the VMXON region at `region`.
///
/// # Errors
/// [`Failure`] if the instruction fails.
///
/// # Safety
/// CR0, CR4 and IA32_FEATURE_CONTROL allow VMXON, or it raises an exception. The region is a page that only VMX uses,
/// with the revision identifier in its first word.
pub unsafe fn vmxon(region: Hpa) -> Result<(), Failure> {
    // SAFETY: the caller promises that the registers allow VMXON and that only VMX uses the page.
    unsafe { vmx_instruction!("vmxon", region.0) }
}

/// Executes VMXOFF: leaves VMX operation.
///
/// # Safety
/// No VMCS is used on this CPU until it enters VMX operation again.
pub unsafe fn vmxoff() {
    // SAFETY: the caller promises that no VMCS is used after this.
    unsafe { asm!("vmxoff", options(nomem, nostack)) };
}

/// The current VMCS of this CPU. It stays on this CPU, since another one has another current VMCS.
#[derive(Debug)]
pub struct Vmcs(PhantomData<*mut ()>);

impl Vmcs {
    /// Makes the page at `region` the current VMCS, with the launch state clear.
    ///
    /// # Errors
    /// [`Failure`] if VMCLEAR or VMPTRLD fails.
    ///
    /// # Safety
    /// The CPU is in VMX operation. The region is a page that only VMX uses, with the revision identifier in its first
    /// word. No other VMCS is used on this CPU from now on.
    pub unsafe fn load(region: Hpa) -> Result<Self, Failure> {
        // SAFETY: the caller promises that the CPU is in VMX operation and that only VMX uses the page.
        unsafe {
            vmx_instruction!("vmclear", region.0)?;
            vmx_instruction!("vmptrld", region.0)?;
        }
        Ok(Self(PhantomData))
    }

    /// Returns the name of a field that Vidar needs and the CPU lacks, or `None` if there is none. After that,
    /// [`Vmcs::read`] of a needed field cannot fail.
    pub fn lacks(&self) -> Option<&'static str> {
        ALL.iter()
            .find(|(_, encoding)| !OPTIONAL.contains(encoding) && vmread(*encoding).is_none())
            .map(|(name, _)| *name)
    }

    /// Returns the value of the field of [`ALL`] with this number, or `None` if the CPU does not have it.
    pub fn value(&self, number: usize) -> Option<u64> {
        ALL.get(number).and_then(|(_, encoding)| vmread(*encoding))
    }

    /// Returns the VMCS with the fields on which Vidar depends.
    ///
    /// # Safety
    /// The caller answers for the values in these fields at the next entry. The host state is that of this CPU, and its
    /// RIP is where the entry assembly continues. The controls make the guest use the second stage and the MSR bitmap,
    /// and the second stage does not map Vidar's memory. Each address in a field is that of a page for this use.
    pub const unsafe fn root(&mut self) -> RootVmcs<'_> {
        RootVmcs(self)
    }

    /// Switches the preemption timer on or off for the next entries. Its value is in [`PREEMPTION_TIMER`].
    ///
    /// [`PREEMPTION_TIMER`]: vidar_core::vmx::field::PREEMPTION_TIMER
    pub fn use_timer(&mut self, on: bool) {
        let others = self.read(PIN_BASED_CONTROLS) & !pin::PREEMPTION_TIMER;
        let timer = if on { pin::PREEMPTION_TIMER } else { 0 };
        // SAFETY: the other controls stay as they are, and the timer only makes the guest exit.
        unsafe { self.root() }.write_root(PIN_BASED_CONTROLS, others | timer);
    }

    /// Returns the reason of the last exit.
    pub fn exit_reason(&self) -> u32 {
        self.read(EXIT_REASON)
    }
}

/// Returns the value of the field with this encoding in the current VMCS, or `None` if the CPU lacks it.
pub(super) fn vmread(encoding: u32) -> Option<u64> {
    let (value, failed): (u64, u8);
    // SAFETY: VMREAD changes nothing but its destination and the flags. A field that does not exist sets ZF.
    unsafe {
        asm!(
            "vmread {value}, {field}",
            "setna {failed}",
            value = out(reg) value,
            field = in(reg) u64::from(encoding),
            failed = out(reg_byte) failed,
            options(nostack),
        );
    }
    (failed == 0).then_some(value)
}

/// Writes `value` to the field with this encoding. Panics if VMWRITE fails.
///
/// # Safety
/// `value` does not break Vidar in this field. In a field with the access `ReadWrite` no value does.
#[inline(always)] // the exit path writes fields
pub(super) unsafe fn vmwrite(encoding: u32, value: u64) {
    // SAFETY: VMWRITE changes nothing but the field and the flags, and the caller promises that the value does not
    // break Vidar.
    unsafe {
        asm!(
            "vmwrite {field}, {value}",
            "jna {failed}",
            field = in(reg) u64::from(encoding),
            value = in(reg) value,
            failed = label { vmwrite_failed(encoding) },
            options(nostack),
        );
    }
}

#[cold]
#[inline(never)]
fn vmwrite_failed(encoding: u32) -> ! {
    panic!("VMWRITE of field {encoding:#x} failed")
}

impl FieldsMut for Vmcs {
    /// Writes `field`. Panics if VMWRITE fails.
    fn write<W: Width>(&mut self, field: Field<W, ReadWrite>, value: W) {
        // SAFETY: the type says that Vidar does not depend on this field.
        unsafe { vmwrite(field.encoding(), value.to_u64()) };
    }
}

/// The current VMCS of this CPU, while its fields on which Vidar depends can be written.
#[derive(Debug)]
pub struct RootVmcs<'a>(&'a mut Vmcs);

impl Fields for RootVmcs<'_> {
    fn read<W: Width, A: Access>(&self, field: Field<W, A>) -> W {
        self.0.read(field)
    }
}

impl FieldsMut for RootVmcs<'_> {
    fn write<W: Width>(&mut self, field: Field<W, ReadWrite>, value: W) {
        self.0.write(field, value);
    }
}

impl RootFieldsMut for RootVmcs<'_> {
    /// Writes `field`. Panics if VMWRITE fails.
    fn write_root<W: Width>(&mut self, field: Field<W, Root>, value: W) {
        // SAFETY: the caller of `Vmcs::root` has promised that the values do not break Vidar.
        unsafe { vmwrite(field.encoding(), value.to_u64()) };
    }
}

impl Fields for Vmcs {
    /// Returns the value of `field`. VMREAD cannot fail: there is a current VMCS, and [`Vmcs::lacks`] has checked the
    /// fields, except for optional ones, which are read only where the CPU has them.
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

/// Executes INVEPT for all contexts, which invalidates every translation that came through any EPT.
pub fn invept_all() {
    invalidate(Invalidation::Ept, 2, 0);
}

/// Executes INVVPID for a single context, which invalidates the linear and combined translations of the guest with this
/// VPID.
pub fn invvpid(vpid: u16) {
    invalidate(Invalidation::Vpid, 1, u64::from(vpid));
}

/// An instruction that invalidates translations.
enum Invalidation {
    Ept,
    Vpid,
}

/// Executes the instruction `what` with the type `kind`, for `context`. Panics if it fails.
fn invalidate(what: Invalidation, kind: u64, context: u64) {
    let descriptor = [context, 0];
    let pointer = &raw const descriptor;
    let failed: u8;
    // SAFETY: translations may be invalidated at any time, and the descriptor of 128 bits lives until after the
    // instruction.
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
    assert!(failed == 0, "INVEPT or INVVPID failed with a type that the CPU supports");
}
