//! The state that the rules of VM entry judge: the fields of a VMCS, memory that it refers to, and the CPU's features.

use super::bits::primary;
use super::facts::Facts;
use super::fields::{self, key};
use crate::mem::addr::{Hpa, PAGE_SIZE};
use crate::vmm::rules::{Asked, Record, Subject};
use crate::vmx::controls::{self, entry, secondary};
use crate::vmx::field::*;

/// The manual that all sections are of.
pub const MANUAL: &str = "Intel SDM Vol. 3C";

/// The rules of VM entry, as the subject of tables.
pub struct Entry;

impl Subject for Entry {
    type State<'a> = State<'a>;
}

/// Rules of VM entry.
pub type Rules = crate::vmm::rules::Rules<Entry>;
/// The rules of one section of the manual.
pub type Section = crate::vmm::rules::Section<Entry>;

/// A source of fields of which only the encoding is known.
pub trait Source {
    /// Returns the value of the field with this encoding, which is not read-only.
    fn value(&self, encoding: u32) -> u64;
}

impl<T: Fields> Source for T {
    #[cold]
    fn value(&self, encoding: u32) -> u64 {
        match encoding >> 13 & 3 {
            0 => self.read(Field::<u16, Root>::root(encoding)).into(),
            1 => self.read(Field::<u64, Root>::root(encoding)),
            2 => self.read(Field::<u32, Root>::root(encoding)).into(),
            _ => self.read(Field::<Natural, Root>::root(encoding)).0,
        }
    }
}

/// The state before a VM entry.
pub struct State<'a> {
    vmcs: &'a dyn Source,
    memory: &'a dyn Fn(Hpa) -> Option<u32>,
    /// What the rules must know of the CPU.
    pub facts: &'a Facts,
    record: Record,
}

impl Asked for State<'_> {
    fn record(&self) -> &Record {
        &self.record
    }

    fn name(key: u32) -> &'static str {
        fields::name(key)
    }
}

#[expect(clippy::inline_always, reason = "the conversions between the types of fields need no code")]
impl<'a> State<'a> {
    /// Returns the state with the fields of `vmcs`, on a CPU with `facts`. `memory` reads the aligned 32 bits at a
    /// physical address; a rule about what cannot be read holds.
    pub fn new(vmcs: &'a dyn Source, memory: &'a dyn Fn(Hpa) -> Option<u32>, facts: &'a Facts) -> Self {
        Self { vmcs, memory, facts, record: Record::default() }
    }

    /// Returns the value of `field`, and records it.
    #[inline(always)]
    pub fn get<W: Width>(&self, field: Field<W, impl Access>) -> u64 {
        self.get_encoding(field.encoding())
    }

    #[inline(never)]
    fn get_encoding(&self, encoding: u32) -> u64 {
        let value = self.vmcs.value(encoding);
        self.record.add(encoding, value);
        value
    }

    /// Returns the value of `field` without a record, as a condition of a rule.
    #[inline(always)]
    pub fn peek<W: Width>(&self, field: Field<W, impl Access>) -> u64 {
        self.peek_encoding(field.encoding())
    }

    #[inline(never)]
    fn peek_encoding(&self, encoding: u32) -> u64 {
        self.vmcs.value(encoding)
    }

    /// Returns true if any of the bits `mask` of `field` is 1.
    #[inline(always)]
    pub fn has<W: Width>(&self, field: Field<W, impl Access>, mask: u32) -> bool {
        self.has_encoding(field.encoding(), mask)
    }

    #[inline(never)]
    fn has_encoding(&self, encoding: u32, mask: u32) -> bool {
        self.vmcs.value(encoding) & u64::from(mask) != 0
    }

    /// Returns true if the bits `mask` of `field` are 0. Records its value.
    #[inline(always)]
    pub fn clear<W: Width>(&self, field: Field<W, impl Access>, mask: u64) -> bool {
        self.clear_encoding(field.encoding(), mask)
    }

    #[inline(never)]
    fn clear_encoding(&self, encoding: u32, mask: u64) -> bool {
        self.get_encoding(encoding) & mask == 0
    }

    /// Returns true if any of the primary controls `mask` is set.
    pub fn primary(&self, mask: u32) -> bool {
        self.has(PRIMARY_CONTROLS, mask)
    }

    /// Returns true if any of the secondary controls `mask` is set. They count as 0 if they are not activated.
    #[inline(never)]
    pub fn secondary(&self, mask: u32) -> bool {
        self.primary(controls::primary::SECONDARY) && self.has(SECONDARY_CONTROLS, mask)
    }

    /// Returns true if any of the tertiary controls `mask` is set. They count as 0 if they are not activated.
    #[inline(never)]
    pub fn tertiary(&self, mask: u32) -> bool {
        self.primary(primary::TERTIARY) && self.has(fields::TERTIARY_CONTROLS, mask)
    }

    /// Returns true if any of the VM-exit controls `mask` is set.
    pub fn exit(&self, mask: u32) -> bool {
        self.has(EXIT_CONTROLS, mask)
    }

    /// Returns true if any of the VM-entry controls `mask` is set.
    pub fn entry(&self, mask: u32) -> bool {
        self.has(ENTRY_CONTROLS, mask)
    }

    /// Returns true for a guest in IA-32e mode.
    #[inline(never)]
    pub fn ia32e(&self) -> bool {
        self.entry(entry::IA32E_GUEST)
    }

    /// Returns true for an unrestricted guest.
    #[inline(never)]
    pub fn unrestricted(&self) -> bool {
        self.secondary(secondary::UNRESTRICTED_GUEST)
    }

    /// Returns true if no bit of `address` is beyond the width of the addresses that the VMCS may hold.
    pub fn in_memory(&self, address: u64) -> bool {
        let narrow = self.facts.capabilities.basic & 1 << 48 != 0;
        address >> (if narrow { 32 } else { self.facts.address_bits.min(63) }) == 0
    }

    /// Returns true if `field` holds the address of a page. Records its value.
    #[inline(always)]
    pub fn page(&self, field: Field<u64, impl Access>) -> bool {
        self.aligned(field, PAGE_SIZE)
    }

    /// Returns true if `field` holds an address that is a multiple of `align`. Records its value.
    #[inline(never)]
    pub fn aligned(&self, field: Field<u64, impl Access>, align: u64) -> bool {
        let address = self.get(field);
        address & (align - 1) == 0 && self.in_memory(address)
    }

    /// Returns true if `field` holds a canonical address. Records its value.
    #[inline(always)]
    pub fn canonical(&self, field: Field<Natural, impl Access>) -> bool {
        self.is_canonical(self.get(field))
    }

    /// Returns true if `address` is canonical: the bits above the width of a linear address are as the highest bit
    /// below.
    pub fn is_canonical(&self, address: u64) -> bool {
        self.is_extended(address, self.facts.linear_bits.clamp(1, 64) - 1)
    }

    /// Returns true if all bits of `address` from bit `from` on are equal.
    #[inline(never)]
    pub fn is_extended(&self, address: u64, from: u32) -> bool {
        let high = address.cast_signed() >> from.min(63);
        high == 0 || high == -1
    }

    /// Returns true if the value of the field `controls` is as a capability MSR allows: bits 31:0 of the MSR must be 1,
    /// and bits 63:32 may be 1. Records both.
    #[inline(never)]
    pub fn allowed(&self, controls: Field<u32, impl Access>, msr: u64) -> bool {
        let value = self.get(controls);
        self.record.add(key::ALLOWED, msr);
        msr & 0xffff_ffff & !value == 0 && value & !(msr >> 32) == 0
    }

    /// Returns true if the value of the control register in `field` has the bits that `fixed` requires in VMX
    /// operation, except for the bits `free`. Records them all.
    #[inline(never)]
    pub fn fixed(&self, field: Field<Natural, impl Access>, fixed: [u64; 2], free: u64) -> bool {
        let value = self.get(field);
        self.record.add(key::FIXED_1, fixed[0] & !free);
        self.record.add(key::FIXED_0, fixed[1] | free);
        fixed[0] & !value & !free == 0 && value & !fixed[1] & !free == 0
    }

    /// Returns the 32 bits at the physical address `address`, and records them. Returns `None` if they cannot be read.
    #[inline(never)]
    pub fn memory(&self, address: u64) -> Option<u32> {
        let value = (self.memory)(Hpa(address));
        value.inspect(|value| self.record.add(key::MEMORY, u64::from(*value)))
    }

    /// Records the value of something that is neither a field nor memory.
    pub fn note(&self, key: u32, value: u64) {
        self.record.add(key, value);
    }

    /// Forgets what has been recorded. A rule that judges several things alike calls it before each of them.
    pub fn forget(&self) {
        self.record.forget();
    }
}
