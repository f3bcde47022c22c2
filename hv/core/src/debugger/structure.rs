//! The structure by which a CPU enters its guest, a VMCS or a VMCB, as gdb's user sees it. Only its own CPU can read a
//! VMCS, so each CPU leaves the values here when it stops.

/// What a vendor's structure consists of.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// What the structure is called.
    pub name: &'static str,
    /// Returns the name of a field by its number. The numbers are consecutive, from 0 on, and there are at most
    /// [`FIELDS`].
    pub field: fn(usize) -> Option<&'static str>,
}

/// The most fields of a structure.
pub const FIELDS: usize = 128;

/// The values that the fields of a structure had when the CPU stopped, by the fields' numbers. A CPU may lack a field.
#[derive(Debug, Clone, Copy)]
pub struct Values([Option<u64>; FIELDS]);

impl Default for Values {
    fn default() -> Self {
        Self([None; FIELDS])
    }
}

impl Values {
    /// Takes all values from `read`, which returns that of the field with a number.
    pub fn fill(&mut self, read: &dyn Fn(usize) -> Option<u64>) {
        self.0.iter_mut().enumerate().for_each(|(number, value)| *value = read(number));
    }

    /// Returns the names and the values of the fields that the CPU has.
    pub fn named(&self, layout: &Layout) -> impl Iterator<Item = (&'static str, u64)> {
        let value = |(number, value): (usize, &Option<u64>)| Some(((layout.field)(number)?, (*value)?));
        self.0.iter().enumerate().filter_map(value)
    }
}
