//! The guest's state out of the VMCB, for a crash report.

use super::vmcb::{self, Page};
use crate::policy::control::Controls;
use crate::vmm::crash::{Segment, Snapshot};
use crate::x86::registers::Registers;

/// Reads everything that a report shows.
pub fn take(vmcb: &Page, registers: &Registers, controls: Controls) -> Snapshot {
    let (control, save) = (&vmcb.control, &vmcb.save);
    let segment = |segment: vmcb::Segment| Segment {
        selector: segment.selector,
        base: segment.base,
        limit: segment.limit,
        rights: segment.attributes.into(),
    };
    Snapshot {
        registers: *registers,
        rip: save.rip,
        rsp: save.rsp,
        rflags: save.rflags,
        cr2: save.cr2,
        controls,
        segments: [save.cs, save.ss, save.ds, save.es, save.fs, save.gs, save.tr, save.ldtr].map(segment),
        gdtr: (save.gdtr.base, save.gdtr.limit),
        idtr: (save.idtr.base, save.idtr.limit),
        vendor: [
            ("exitcode", control.exitcode),
            ("exitinfo1", control.exitinfo1),
            ("exitinfo2", control.exitinfo2),
            ("exitintinfo", control.exitintinfo),
            ("interrupt-shadow", control.interrupt_shadow),
            ("cpl", save.cpl.into()),
        ],
    }
}
