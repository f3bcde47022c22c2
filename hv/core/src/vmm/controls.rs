//! Writes to control registers that exit. On VT-x those do that change a bit which the guest does not own. On AMD-V
//! writes to CR0 and CR4 exit only with the boot option `guard`, in long mode.

use super::vcpu::Vcpu;
use crate::policy::control::{self, ControlWrite, Controls, Update};
use crate::x86::msr::{EFER_LMA, Fault};

/// A virtual CPU whose writes to CR0 and CR4 exit if they change bits that the guest does not own.
pub trait OwnsControls: Vcpu {
    /// True if the CPU loads the page-directory-pointer-table entries of PAE paging with CR0, CR3 and CR4, and false if
    /// it reads them on each walk.
    const LOADS_PDPTES: bool;

    /// Returns the bits of CR4 that the guest may set.
    fn cr4_allowed(&self) -> u64;

    /// Returns true if the task register holds a 16-bit TSS.
    fn task_is_16_bit(&self) -> bool;

    /// Loads the four page-directory-pointer-table entries of PAE paging.
    fn set_pdptes(&mut self, entries: [u64; 4]);
}

/// Does what `write` does to the control registers. `pdptes` reads the page-directory-pointer-table entries at a value
/// of CR3, and checks them. `guard` is asked about the new values, once the CPU itself would accept them.
///
/// # Errors
/// Returns [`Fault`] if the write raises #GP.
pub fn write<V: OwnsControls>(
    vcpu: &mut V,
    write: ControlWrite,
    pdptes: impl FnOnce(u64) -> Result<[u64; 4], Fault>,
    guard: impl FnOnce(&mut V, &Controls) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (old, cr4_allowed) = (vcpu.controls(), vcpu.cr4_allowed());
    let Update { controls, reload_pdptes } = control::write(&old, write, vcpu.registers(), cr4_allowed)?;
    // The write raises #GP if TR holds a 16-bit TSS, and VM entry would fail: Intel SDM Vol. 3A, 10.8.5 "Initializing
    // IA-32e Mode".
    let activates_long_mode = controls.efer & !old.efer & EFER_LMA != 0;
    if activates_long_mode && vcpu.task_is_16_bit() {
        return Err(Fault);
    }
    let entries = if reload_pdptes && V::LOADS_PDPTES { Some(pdptes(controls.cr3)?) } else { None };
    guard(vcpu, &controls)?;
    if let Some(entries) = entries {
        vcpu.set_pdptes(entries);
    }
    vcpu.set_controls(&controls);
    Ok(())
}
