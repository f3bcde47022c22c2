//! For each rule of VMRUN at least one change of a valid VMCB that breaks it alone. They are not in the image: the
//! tests make them, and the trial of the rules on a CPU.

use crate::svm::vmcb::{Clean, Control, Page, Save};

/// The number of a rule, and a change of a valid VMCB that breaks it. The change is given the first address beyond the
/// width of a physical address.
pub type Case = (&'static str, fn(&mut Page, u64));

/// The cases.
pub static CASES: &[Case] = &[
    ("A1", |p, _| save(p).efer = 0),
    ("A2", |p, _| save(p).cr0 |= 1 << 29),
    ("A3", |p, _| save(p).cr0 |= 1 << 32),
    ("A4a", |p, beyond| {
        long_mode(p);
        save(p).cr3 = beyond;
    }),
    ("A4b", |p, _| save(p).cr4 |= 1 << 30),
    ("A5", |p, _| save(p).dr6 |= 1 << 32),
    ("A5", |p, _| save(p).dr7 |= 1 << 63),
    ("A6", |p, _| save(p).efer |= 1 << 63),
    ("A6", |p, _| save(p).efer |= 1 << 13),
    ("A7a", |p, _| {
        long_mode(p);
        save(p).cr4 = 0;
    }),
    ("A7b", |p, _| {
        long_mode(p);
        save(p).cr0 &= !1;
    }),
    ("A8", |p, _| {
        long_mode(p);
        save(p).cs.attributes |= 1 << 10;
    }),
    ("A9a", |p, _| control(p).intercepts[4] &= !1),
    ("A9b", |p, _| control(p).guest_asid = 0),
    ("A10", |p, beyond| control(p).msrpm_base_pa = beyond - 0x1000),
    ("A10", |p, _| control(p).iopm_base_pa = u64::MAX),
    ("A11a", |p, _| control(p).eventinj = 0x8000_0100),
    ("A11b", |p, _| control(p).eventinj = 0x8000_0302),
    ("A11b", |p, _| control(p).eventinj = 0x8000_0320),
    ("A11c", |p, _| {
        long_mode(p);
        control(p).eventinj = 0x8000_0305;
    }),
    ("A12a", |p, beyond| control(p).n_cr3 |= beyond),
    ("A12b", |p, _| save(p).g_pat = 2),
];

/// Changes that break no rule, with what they are.
pub static LEGAL: &[Case] = &[
    ("nothing", |_, _| {}),
    ("64-bit mode", |p, _| long_mode(p)),
    ("paging without protected mode", |p, _| save(p).cr0 = 1 << 31 | 1 << 4),
    ("NMI", |p, _| control(p).eventinj = 0x8000_0202),
    ("#GP", |p, _| control(p).eventinj = 0x8000_0b0d),
    ("GDTR with a base that is not canonical", |p, _| save(p).gdtr.base = 1 << 60),
];

fn save(page: &mut Page) -> &mut Save {
    page.save_mut(Clean::ALL)
}

fn control(page: &mut Page) -> &mut Control {
    page.control_mut(Clean::ALL)
}

/// Puts the guest into 64-bit mode.
pub fn long_mode(page: &mut Page) {
    let save = save(page);
    (save.efer, save.cr0, save.cr4, save.cs.attributes) = (0x1500, 0x8000_0011, 0x20, 0x29b);
}
