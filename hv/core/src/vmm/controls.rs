//! Writes to control registers that exit. VT-x has such exits, for bits that the guest does not own. On AMD-V no write to
//! CR0 or CR4 exits, so what only these exits need is not asked of every virtual CPU.

use super::vcpu::Vcpu;
use crate::policy::control::{self, ControlWrite, Update};
use crate::x86::msr::{EFER_LMA, Fault};

/// A virtual CPU whose writes to CR0 and CR4 exit if they change bits that the guest does not own.
pub trait OwnsControls: Vcpu {
    /// Returns the bits of CR4 that the guest may set.
    fn cr4_allowed(&self) -> u64;

    /// Returns true if the task register holds a 16-bit TSS.
    fn task_is_16_bit(&self) -> bool;

    /// Loads the four page-directory-pointer-table entries of PAE paging.
    fn set_pdptes(&mut self, entries: [u64; 4]);
}

/// Does what `write` does to the control registers. `pdptes` reads the page-directory-pointer-table entries at a value
/// of CR3, and checks them.
///
/// # Errors
/// Returns [`Fault`] if the write raises #GP.
pub fn write<V: OwnsControls>(
    vcpu: &mut V,
    write: ControlWrite,
    pdptes: impl FnOnce(u64) -> Result<[u64; 4], Fault>,
) -> Result<(), Fault> {
    let (old, cr4_allowed) = (vcpu.controls(), vcpu.cr4_allowed());
    let Update { controls, reload_pdptes } = control::write(&old, write, vcpu.registers(), cr4_allowed)?;
    // The write raises #GP if TR holds a 16-bit TSS, and VM entry would fail: Intel SDM Vol. 3A, 10.8.5 "Initializing
    // IA-32e Mode".
    let activates_long_mode = controls.efer & !old.efer & EFER_LMA != 0;
    if activates_long_mode && vcpu.task_is_16_bit() {
        return Err(Fault);
    }
    if reload_pdptes {
        vcpu.set_pdptes(pdptes(controls.cr3)?);
    }
    vcpu.set_controls(&controls);
    Ok(())
}
