//! A VMCS for tests, and the capabilities of a CPU that has everything.

use alloc::collections::BTreeMap;

use super::capabilities::{Capabilities, RawCapabilities};
use super::field::{Access, Field, Fields, FieldsMut, ReadWrite, Root, RootFieldsMut, Width};

/// A VMCS whose fields are 0 until they are written. It holds the values by the fields' encodings.
#[derive(Default)]
pub struct FakeVmcs(pub BTreeMap<u32, u64>);

impl Fields for FakeVmcs {
    fn read<W: Width, A: Access>(&self, field: Field<W, A>) -> W {
        W::from_u64(self.0.get(&field.encoding()).copied().unwrap_or(0))
    }
}

impl FieldsMut for FakeVmcs {
    fn write<W: Width>(&mut self, field: Field<W, ReadWrite>, value: W) {
        self.0.insert(field.encoding(), value.to_u64());
    }
}

impl RootFieldsMut for FakeVmcs {
    fn write_root<W: Width>(&mut self, field: Field<W, Root>, value: W) {
        self.0.insert(field.encoding(), value.to_u64());
    }
}

/// Returns the capabilities of a CPU that has every control.
pub fn capabilities() -> Capabilities {
    let raw = RawCapabilities {
        basic: 1 << 55,
        pin: !0 << 32,
        primary: !0 << 32,
        exit: !0 << 32,
        entry: !0 << 32,
        secondary: !0 << 32,
        ept_vpid: !0,
        misc: !0,
        cr0_fixed: [0x8000_0021, 0xffff_ffff],
        cr4_fixed: [0x2000, 0x0037_67ff],
    };
    Capabilities::choose(&raw).expect("nothing is missing")
}
