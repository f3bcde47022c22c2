//! What a case changes of a valid state, and the changes with which several cases begin.

use super::bits::primary;
use super::fields::*;
use crate::mem::addr::Hpa;
use crate::policy::control::{CR0_PE, CR0_PG, CR4_PAE};
use crate::vmx::controls::secondary;
use crate::vmx::field::*;

/// What a case changes: a VMCS that is valid before, and memory to which it leads.
pub trait Change {
    /// Clears the bits `clear` of the field with this encoding, and then sets the bits `set`.
    fn field(&mut self, encoding: u32, clear: u64, set: u64);

    /// Stores 32 bits in memory at a physical address below 64 KiB.
    fn store(&mut self, address: u64, value: u32);
}

/// A valid state with the guest at the kernel's 32-bit entry, before a case changes it.
pub struct State<'a> {
    /// The VMCS and memory.
    pub change: &'a mut dyn Change,
    /// The address of the VMCS.
    pub vmcs: Hpa,
    /// The first address beyond the width of a physical address.
    pub beyond: u64,
}

impl State<'_> {
    /// Sets a field to `value`.
    pub fn set<W: Width, A: Access>(&mut self, field: Field<W, A>, value: u64) {
        self.change.field(field.encoding(), u64::MAX, value);
    }

    /// Sets the bits `mask` of a field.
    pub fn or<W: Width, A: Access>(&mut self, field: Field<W, A>, mask: u64) {
        self.change.field(field.encoding(), 0, mask);
    }

    /// Clears the bits `mask` of a field.
    pub fn clear<W: Width, A: Access>(&mut self, field: Field<W, A>, mask: u64) {
        self.change.field(field.encoding(), mask, 0);
    }

    /// Stores 32 bits in memory.
    pub fn store(&mut self, address: u64, value: u32) {
        self.change.store(address, value);
    }

    /// Puts the guest into 64-bit mode.
    pub fn long_mode(&mut self) {
        self.or(ENTRY_CONTROLS, 1 << 9);
        self.set(GUEST_EFER, 0x500);
        self.or(GUEST_CR0, CR0_PG | CR0_PE);
        self.or(GUEST_CR4, CR4_PAE);
        self.set(GUEST_CS_RIGHTS, 0xa09b);
    }
}

/// The number of a rule, and a change that breaks it.
pub type Case = (&'static str, fn(&mut State<'_>));

/// The control "enable EPT".
pub(super) const EPT: u64 = secondary::EPT as u64;
/// The control "unrestricted guest".
pub(super) const UNRESTRICTED: u64 = secondary::UNRESTRICTED_GUEST as u64;
/// The control "activate tertiary controls".
pub(super) const TERTIARY: u64 = primary::TERTIARY as u64;
/// The control "use TPR shadow".
const TPR_SHADOW: u64 = primary::TPR_SHADOW as u64;

/// Makes the guest a restricted one, in protected mode with paging.
pub(super) fn restrict(m: &mut State<'_>) {
    m.clear(SECONDARY_CONTROLS, UNRESTRICTED);
    m.or(GUEST_CR0, CR0_PG | CR0_PE);
}

/// Makes the guest's CS a conforming segment.
pub(super) fn conforming(m: &mut State<'_>) {
    m.set(GUEST_CS_RIGHTS, 0xc09f);
}

/// Turns the TPR shadow on.
pub(super) fn shadow(m: &mut State<'_>) {
    m.or(PRIMARY_CONTROLS, TPR_SHADOW);
    m.set(VIRTUAL_APIC_ADDRESS, 0xa000);
    m.set(TPR_THRESHOLD, 0);
}

/// Turns virtual-interrupt delivery on.
pub(super) fn deliver(m: &mut State<'_>) {
    shadow(m);
    m.or(PIN_BASED_CONTROLS, 1);
    m.or(SECONDARY_CONTROLS, 1 << 9);
}

/// Turns posted interrupts on.
pub(super) fn post(m: &mut State<'_>) {
    deliver(m);
    m.or(PIN_BASED_CONTROLS, 1 << 7);
    m.or(EXIT_CONTROLS, 1 << 15);
    m.set(POSTED_INTERRUPT_VECTOR, 0xf2);
    // Bochs 3.0 asks for a whole page.
    m.set(POSTED_INTERRUPT_DESCRIPTOR, 0xb000);
}

/// Turns a secondary control on that has a page.
pub(super) fn paged(m: &mut State<'_>, control: u32, field: Field<u64, impl Access>, address: u64) {
    m.or(SECONDARY_CONTROLS, 1 << control);
    m.set(field, address);
}

/// Puts the guest into virtual-8086 mode.
pub(super) fn virtual_8086(m: &mut State<'_>) {
    m.or(GUEST_RFLAGS, 1 << 17);
    for (selector, base, limit, rights) in [
        (GUEST_CS_SELECTOR, GUEST_CS_BASE, GUEST_CS_LIMIT, GUEST_CS_RIGHTS),
        (GUEST_SS_SELECTOR, GUEST_SS_BASE, GUEST_SS_LIMIT, GUEST_SS_RIGHTS),
        (GUEST_DS_SELECTOR, GUEST_DS_BASE, GUEST_DS_LIMIT, GUEST_DS_RIGHTS),
        (GUEST_ES_SELECTOR, GUEST_ES_BASE, GUEST_ES_LIMIT, GUEST_ES_RIGHTS),
        (GUEST_FS_SELECTOR, GUEST_FS_BASE, GUEST_FS_LIMIT, GUEST_FS_RIGHTS),
        (GUEST_GS_SELECTOR, GUEST_GS_BASE, GUEST_GS_LIMIT, GUEST_GS_RIGHTS),
    ] {
        m.set(selector, 0x123);
        m.set(base, 0x1230);
        m.set(limit, 0xffff);
        m.set(rights, 0xf3);
    }
}

/// Has the entry inject an event.
pub(super) fn inject(m: &mut State<'_>, information: u64) {
    m.set(ENTRY_INTERRUPTION_INFO, information);
}

/// Has the entry load an MSR.
pub(super) fn load_msr(m: &mut State<'_>, index: u32, reserved: u32) {
    m.set(ENTRY_MSR_LOAD_COUNT, 1);
    m.set(ENTRY_MSR_LOAD_ADDRESS, 0xb000);
    m.store(0xb000, index);
    m.store(0xb004, reserved);
}

/// Has the guest use PAE paging with this entry.
pub(super) fn pae(m: &mut State<'_>, entry: u64) {
    m.or(GUEST_CR0, CR0_PG);
    m.or(GUEST_CR4, CR4_PAE);
    for field in [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2] {
        m.set(field, 0x1001);
    }
    m.set(GUEST_PDPTE3, entry);
}

/// Has exits return to a 32-bit host, which a CPU in IA-32e mode does not do.
pub fn host_32(m: &mut State<'_>) {
    m.clear(EXIT_CONTROLS, 1 << 9);
    m.set(HOST_EFER, 0);
    m.set(HOST_SS_SELECTOR, 8);
    m.set(HOST_RIP, 0x1000);
}
