//! The rules for the guest's segment registers.

use super::state::{MANUAL, Rules, Section, State};
use crate::policy::control::CR0_PE;
use crate::vmm::cpu_state::SegmentRegister::{self, Cs, Ds, Es, Fs, Gs, Ldtr, Ss, Tr};
use crate::vmm::cpu_state::rights::UNUSABLE;
use crate::vmm::rules::rules;
use crate::vmx::field::*;
use crate::vmx::guest_state::fields;

/// The rules of the section.
pub const SECTION: Section =
    Section { manual: MANUAL, number: "27.3.1.2", title: "Checks on Guest Segment Registers", rules: RULES };

const RULES: Rules = rules![
    State,
    ("G18", "The selectors of TR and of a usable LDTR have bit 2 (TI) clear.", |s| {
        each(s, &[Tr, Ldtr], |segment| !usable(segment) || segment.selector() & 4 == 0)
    }),
    (
        "G19",
        "The selectors of SS and CS have the same RPL, but for virtual-8086 mode and unrestricted guests.",
        |s| {
            virtual_8086(s)
                || s.unrestricted()
                || (s.get(GUEST_SS_SELECTOR) ^ s.get(GUEST_CS_SELECTOR)) & RPL == 0
        }
    ),
    ("G20a", "In virtual-8086 mode the base of a segment is 16 times its selector.", |s| {
        !virtual_8086(s) || each(s, CODE_AND_DATA, |segment| segment.base() == segment.selector() << 4)
    }),
    ("G20b", "In virtual-8086 mode the limit of a segment is FFFFH.", |s| {
        !virtual_8086(s) || each(s, CODE_AND_DATA, |segment| segment.limit() == 0xffff)
    }),
    ("G20c", "In virtual-8086 mode the access rights of a segment are F3H.", |s| {
        !virtual_8086(s) || each(s, CODE_AND_DATA, |segment| segment.rights() == 0xf3)
    }),
    ("G21a", "The bases of TR, FS, GS and a usable LDTR are canonical.", |s| {
        each(s, &[Tr, Fs, Gs, Ldtr], |segment| {
            segment.register == Ldtr && !usable(segment) || segment.state.is_canonical(segment.base())
        })
    }),
    ("G21b", "Bits 63:32 of the bases of CS and of a usable SS, DS and ES are 0.", |s| {
        each(s, &[Cs, Ss, Ds, Es], |segment| {
            segment.register != Cs && !usable(segment) || segment.base() >> 32 == 0
        })
    }),
    ("G22", "CS has type 9, 11, 13 or 15 (accessed code), or in an unrestricted guest 3 (data).", |s| {
        virtual_8086(s)
            || match rights(s, Cs) & TYPE {
                9 | 11 | 13 | 15 => true,
                3 => s.unrestricted(),
                _ => false,
            }
    }),
    ("G23", "A usable SS has type 3 or 7 (accessed and writable data).", |s| {
        virtual_8086(s) || each_usable(s, &[Ss], |segment| matches!(segment.rights() & TYPE, 3 | 7))
    }),
    ("G24", "A usable DS, ES, FS or GS is accessed, and readable if it is code.", |s| {
        virtual_8086(s)
            || each_usable(s, DATA, |segment| {
                let rights = segment.rights();
                rights & ACCESSED != 0 && rights & (CODE | READABLE) != CODE
            })
    }),
    ("G25", "CS and each other usable code or data segment have S (bit 4) set.", |s| {
        virtual_8086(s) || each_usable(s, CODE_AND_DATA, |segment| segment.rights() & S != 0)
    }),
    (
        "G26",
        "The DPL of CS suits its type: 0 for data, that of SS for code, at most that of SS for conforming code.",
        |s| {
            let (cs, ss) = (rights(s, Cs), rights(s, Ss));
            virtual_8086(s)
                || match cs & TYPE {
                    3 => dpl(cs) == 0,
                    9 | 11 => dpl(cs) == dpl(ss),
                    13 | 15 => dpl(cs) <= dpl(ss),
                    _ => true,
                }
        }
    ),
    ("G27a", "The DPL of SS is the RPL of its selector, but for unrestricted guests.", |s| {
        virtual_8086(s) || s.unrestricted() || dpl(rights(s, Ss)) == s.get(GUEST_SS_SELECTOR) & RPL
    }),
    ("G27b", "The DPL of SS is 0 in real mode, and if CS has type 3 (data).", |s| {
        let is_real = s.get(GUEST_CR0) & CR0_PE == 0;
        virtual_8086(s) || !is_real && rights(s, Cs) & TYPE != 3 || dpl(rights(s, Ss)) == 0
    }),
    (
        "G28",
        "The DPL of a usable DS, ES, FS or GS is at least its RPL, but for conforming code and unrestricted guests.",
        |s| {
            virtual_8086(s)
                || s.unrestricted()
                || each_usable(s, DATA, |segment| {
                    let rights = segment.rights();
                    rights & TYPE > 11 || dpl(rights) >= segment.selector() & RPL
                })
        }
    ),
    ("G29", "CS, TR and each other usable segment are present.", |s| {
        each_judged(s, |segment| segment.rights() & PRESENT != 0)
    }),
    ("G30", "Bits 11:8 and 31:17 of the access rights of CS, TR and each other usable segment are 0.", |s| {
        each_judged(s, |segment| segment.rights() & RESERVED == 0)
    }),
    ("G31", "CS of a guest in IA-32e mode does not have L and D together.", |s| {
        virtual_8086(s) || !s.ia32e() || rights(s, Cs) & (LONG | DEFAULT_32) != LONG | DEFAULT_32
    }),
    ("G32", "G is 0 if the limit has a 0 in bits 11:0, and 1 if it has a 1 in bits 31:20.", |s| {
        each_judged(s, |segment| {
            let limit = segment.limit();
            if segment.rights() & GRANULARITY == 0 { limit >> 20 == 0 } else { limit & 0xfff == 0xfff }
        })
    }),
    ("G33", "TR is usable and holds a busy TSS: type 11, or 3 outside of IA-32e mode, with S clear.", |s| {
        let rights = rights(s, Tr);
        let is_busy = rights & TYPE == 11 || rights & TYPE == 3 && !s.ia32e();
        rights & u64::from(UNUSABLE) == 0 && rights & S == 0 && is_busy
    }),
    ("G34", "A usable LDTR holds an LDT: type 2, with S clear.", |s| {
        each_usable(s, &[Ldtr], |segment| segment.rights() & (TYPE | S) == 2)
    }),
];

/// The registers whose segments are code or data.
const CODE_AND_DATA: &[SegmentRegister] = &[Cs, Ss, Ds, Es, Fs, Gs];
/// The registers whose segments are for data alone, except SS.
const DATA: &[SegmentRegister] = &[Ds, Es, Fs, Gs];
/// All segment registers.
const ALL: &[SegmentRegister] = &[Cs, Ss, Ds, Es, Fs, Gs, Tr, Ldtr];

/// The requested privilege level in a selector.
const RPL: u64 = 3;

// The parts of access rights. Intel SDM Vol. 3C, 25.4.1 "Guest Register State", table "Format of Access Rights".
const TYPE: u64 = 0xf;
const ACCESSED: u64 = 1 << 0;
const READABLE: u64 = 1 << 1;
const CODE: u64 = 1 << 3;
const S: u64 = 1 << 4;
const PRESENT: u64 = 1 << 7;
const LONG: u64 = 1 << 13;
const DEFAULT_32: u64 = 1 << 14;
const GRANULARITY: u64 = 1 << 15;
const RESERVED: u64 = 0xfffe_0f00;

/// Returns the DPL in access rights.
const fn dpl(rights: u64) -> u64 {
    rights >> 5 & 3
}

/// Returns true if the guest is in virtual-8086 mode, RFLAGS.VM.
#[inline(never)]
fn virtual_8086(s: &State<'_>) -> bool {
    s.has(GUEST_RFLAGS, 1 << 17)
}

/// Returns the access rights of `register`, and records them.
#[inline(never)]
fn rights(s: &State<'_>, register: SegmentRegister) -> u64 {
    s.get(fields(register).rights)
}

/// A segment register of the state.
struct Judged<'a, 'b> {
    state: &'a State<'b>,
    register: SegmentRegister,
}

impl Judged<'_, '_> {
    fn selector(&self) -> u64 {
        self.state.get(fields(self.register).selector)
    }

    fn base(&self) -> u64 {
        self.state.get(fields(self.register).base)
    }

    fn limit(&self) -> u64 {
        self.state.get(fields(self.register).limit)
    }

    fn rights(&self) -> u64 {
        rights(self.state, self.register)
    }
}

/// Returns true if a segment is not marked as unusable.
fn usable(segment: &Judged<'_, '_>) -> bool {
    !segment.state.has(fields(segment.register).rights, UNUSABLE)
}

/// A judgement of a segment register.
type Judgement = fn(&Judged<'_, '_>) -> bool;

/// Returns true if `holds` is true for each of the registers.
#[inline(never)]
fn each(s: &State<'_>, registers: &[SegmentRegister], holds: Judgement) -> bool {
    registers.iter().all(|register| {
        s.forget();
        holds(&Judged { state: s, register: *register })
    })
}

/// Returns true if `holds` is true for each of the registers that is usable. CS and TR are judged always.
#[inline(never)]
fn each_usable(s: &State<'_>, registers: &[SegmentRegister], holds: Judgement) -> bool {
    registers.iter().all(|register| {
        let always = matches!(register, Cs | Tr);
        !always && s.has(fields(*register).rights, UNUSABLE) || each(s, &[*register], holds)
    })
}

/// Returns true if `holds` is true for CS, TR, and each other usable segment. In virtual-8086 mode the access rights of
/// code and data segments have a rule of their own.
#[inline(never)]
fn each_judged(s: &State<'_>, holds: Judgement) -> bool {
    each_usable(s, if virtual_8086(s) { &[Tr, Ldtr] } else { ALL }, holds)
}
