//! What the boot option `guard` keeps on: the protections of the CPU that the guest's kernel has switched on, on each
//! CPU until its INIT.
//!
//! The guest asks for nothing. A protection is pinned by what the kernel does anyway:
//!
//! * A write of an MSR that decides where system calls lead to pins the value that the CPU keeps, if the CPU is in long
//!   mode and the value is not 0. SYSENTER_CS is pinned at 0 as well, by which a kernel without 32-bit programs has
//!   SYSENTER raise #GP: Intel SDM Vol. 2B, 4.3 "Instructions (M-U)", SYSENTER.
//! * Such a write, and one that changes a bit that can be pinned, also pins all of these bits that are set after it, if
//!   the CPU is in long mode before and after it. So the code that leads into long mode, or out of it for a moment to
//!   change the number of paging levels, as the decompressor of Linux does, is as free as on a bare CPU.
//!
//! Only code at CPL 0 can execute these writes, which the CPU checks before it exits. An INIT and a reset forget all
//! pins, as they clear the registers. A kernel without long mode is never guarded.
//!
//! Nothing else clears such a bit. CLTS changes CR0.TS alone, and LMSW cannot clear CR0.PE. A task switch only sets
//! CR0.TS, and exists in no 64-bit code. SYSCALL, SYSRET, SYSENTER, SYSEXIT, IRET and far transfers change the mode of
//! the code and not the control registers, so 32-bit programs are as free as before. XRSTORS has no state that holds
//! one of these registers. The instructions that write lists of MSRs do not exist for the guest, and neither do VMLOAD
//! and VMRUN. RSM leaves system-management mode, which is firmware's. Intel SDM Vol. 3A, 2.5 "Control Registers"; AMD
//! APM Vol. 2, 3.1 "System-Control Registers".

use vidar_abi::Protection;

use super::control::{CR0_PE, CR0_PG, CR0_WP, CR4_CET, CR4_SMAP, CR4_SMEP, CR4_UMIP, Controls};
use crate::x86::msr::{
    CSTAR, EFER_LMA, EFER_LME, EFER_NXE, LSTAR, SFMASK, STAR, SYSENTER_CS, SYSENTER_EIP, SYSENTER_ESP,
};

/// What Vidar guards. Each value guards what the ones before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guard {
    /// Nothing.
    Off,
    /// The protections of the CPU.
    Cpu,
    /// The kernel's read-only data and its IDT, once `vidarctl guard lock` has asked for it.
    Data,
    /// Nothing more, but writes to the kernel's code are noted.
    Audit,
}

/// The bits that can be pinned, with the protection that each of them is.
const CR0: [(u64, Protection); 3] =
    [(CR0_PE, Protection::Cr0Pe), (CR0_WP, Protection::Cr0Wp), (CR0_PG, Protection::Cr0Pg)];
const CR4: [(u64, Protection); 4] = [
    (CR4_UMIP, Protection::Cr4Umip),
    (CR4_SMEP, Protection::Cr4Smep),
    (CR4_SMAP, Protection::Cr4Smap),
    (CR4_CET, Protection::Cr4Cet),
];
const EFER: [(u64, Protection); 2] = [(EFER_LME, Protection::EferLme), (EFER_NXE, Protection::EferNxe)];

/// The MSRs whose values can be pinned.
const MSRS: [(u32, Protection); 7] = [
    (STAR, Protection::Star),
    (LSTAR, Protection::Lstar),
    (CSTAR, Protection::Cstar),
    (SFMASK, Protection::Sfmask),
    (SYSENTER_CS, Protection::SysenterCs),
    (SYSENTER_ESP, Protection::SysenterEsp),
    (SYSENTER_EIP, Protection::SysenterEip),
];

/// The bits of CR0 that can be pinned.
pub const CR0_BITS: u64 = bits(&CR0);
/// The bits of CR4 that can be pinned.
pub const CR4_BITS: u64 = bits(&CR4);
/// The bits of EFER that can be pinned.
const EFER_BITS: u64 = bits(&EFER);

const fn bits(list: &[(u64, Protection)]) -> u64 {
    let (mut all, mut index) = (0, 0);
    while index < list.len() {
        all |= list[index].0;
        index += 1;
    }
    all
}

/// What is pinned on a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pins {
    cr0: u64,
    cr4: u64,
    efer: u64,
    /// The values of [`MSRS`].
    msrs: [Pin; MSRS.len()],
}

/// The value of an MSR.
///
/// A CPU need not keep all bits of what is written: those of AMD truncate the addresses of SYSENTER to 32 bits, and
/// Linux writes 64. What the guest has written and what it reads are the same value then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Pin {
    /// True if the value is pinned.
    on: bool,
    /// The value that the CPU keeps.
    kept: u64,
    /// The bits that it does not take from what is written.
    ignored: u64,
}

impl Pin {
    /// Returns true if a write of `value` would change a pinned value.
    const fn refuses(self, value: u64) -> bool {
        self.on && (self.kept ^ value) & !self.ignored != 0
    }

    /// Returns the pin after a write of `value` to the MSR `index`, of which the CPU keeps `kept`.
    const fn after(self, index: u32, value: u64, kept: u64) -> Self {
        if kept == 0 && index != SYSENTER_CS {
            Self { on: false, kept: 0, ignored: 0 }
        } else {
            Self { on: true, kept, ignored: self.ignored | value ^ kept }
        }
    }
}

impl Pins {
    /// Returns what is pinned after a write that changes the control registers from `old` to `new`.
    ///
    /// # Errors
    /// Returns the protection that the write would switch off.
    pub fn write(&self, old: &Controls, new: &Controls) -> Result<Self, Protection> {
        for (pinned, value, list) in
            [(self.cr0, new.cr0, &CR0[..]), (self.cr4, new.cr4, &CR4), (self.efer, new.efer, &EFER)]
        {
            if let Some((_, protection)) = list.iter().find(|(bit, _)| bit & pinned & !value != 0) {
                return Err(*protection);
            }
        }
        // On VT-x a write that changes no such bit need not exit, and on AMD-V each write of CR4 does.
        let changed = (old.cr0 ^ new.cr0) & CR0_BITS
            | (old.cr4 ^ new.cr4) & CR4_BITS
            | (old.efer ^ new.efer) & EFER_BITS;
        if changed == 0 || old.efer & new.efer & EFER_LMA == 0 { Ok(*self) } else { Ok(self.and(new)) }
    }

    /// Returns these pins and the bits that are set in `controls`.
    const fn and(&self, controls: &Controls) -> Self {
        Self {
            cr0: self.cr0 | controls.cr0 & CR0_BITS,
            cr4: self.cr4 | controls.cr4 & CR4_BITS,
            efer: self.efer | controls.efer & EFER_BITS,
            msrs: self.msrs,
        }
    }

    /// Decides about a write of `value` to the MSR `index`. MSRs that cannot be pinned are free.
    ///
    /// # Errors
    /// Returns the protection that the write would change.
    pub fn allow_msr(&self, index: u32, value: u64) -> Result<(), Protection> {
        let refused = self.msrs.iter().zip(MSRS).find(|(pin, (msr, _))| *msr == index && pin.refuses(value));
        refused.map_or(Ok(()), |(_, (_, protection))| Err(protection))
    }

    /// Returns what is pinned after an allowed write of `value` to the MSR `index`, with these control registers.
    /// `kept` is what the CPU keeps of the value.
    pub fn after_msr(&self, controls: &Controls, index: u32, value: u64, kept: u64) -> Self {
        if controls.efer & EFER_LMA == 0 {
            return *self;
        }
        let mut pins = self.and(controls);
        for (pin, (msr, _)) in pins.msrs.iter_mut().zip(MSRS) {
            if msr == index {
                *pin = pin.after(index, value, kept);
            }
        }
        pins
    }

    /// Returns the protections that are pinned, as bits by their numbers.
    pub fn pinned(&self) -> u32 {
        let bits = [(self.cr0, &CR0[..]), (self.cr4, &CR4), (self.efer, &EFER)];
        let bits =
            bits.into_iter().flat_map(|(pinned, list)| list.iter().filter(move |(bit, _)| bit & pinned != 0));
        let msrs = self.msrs.iter().zip(MSRS).filter(|(pin, _)| pin.on);
        let all = bits.map(|(_, protection)| *protection).chain(msrs.map(|(_, (_, protection))| protection));
        all.fold(0, |all, protection| all | 1 << protection as u32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::control::CR4_PAE;

    fn long_mode() -> Controls {
        Controls {
            cr0: CR0_PG | CR0_PE,
            cr4: CR4_PAE,
            efer: EFER_LME | EFER_LMA,
            cs_l: true,
            ..Controls::default()
        }
    }

    #[test]
    fn a_bit_that_is_set_in_long_mode_stays() {
        let all = Controls {
            cr0: long_mode().cr0 | CR0_BITS,
            cr4: CR4_PAE | CR4_BITS,
            efer: EFER_LME | EFER_LMA | EFER_NXE,
            ..long_mode()
        };
        let pins = Pins::default().write(&long_mode(), &all).expect("nothing is pinned");
        for (bit, protection) in CR0 {
            let new = Controls { cr0: all.cr0 & !bit, ..all };
            assert_eq!(pins.write(&all, &new), Err(protection));
        }
        for (bit, protection) in CR4 {
            let new = Controls { cr4: all.cr4 & !bit, ..all };
            assert_eq!(pins.write(&all, &new), Err(protection));
        }
        for (bit, protection) in EFER {
            let new = Controls { efer: all.efer & !bit, ..all };
            assert_eq!(pins.write(&all, &new), Err(protection));
        }
        let other = Controls { cr0: all.cr0 | 8, cr4: all.cr4 ^ CR4_PAE, efer: all.efer | 1, ..all };
        assert_eq!(pins.write(&all, &other), Ok(pins), "other bits are free");
        assert_eq!(pins.pinned(), 0b1_1111_1111);
    }

    #[test]
    fn the_way_into_long_mode_and_out_of_it_pins_nothing() {
        let off = Controls { cr0: CR0_PE | CR0_WP, efer: EFER_LME, cs_l: false, ..long_mode() };
        let on = Controls { cr0: off.cr0 | CR0_PG, cs_l: false, ..long_mode() };
        for (old, new) in [(&off, &on), (&on, &off), (&off, &off)] {
            assert_eq!(Pins::default().write(old, new), Ok(Pins::default()));
        }
    }

    #[test]
    fn an_msr_that_is_written_in_long_mode_keeps_its_value() {
        for (index, protection) in MSRS.into_iter().filter(|(index, _)| *index != SYSENTER_CS) {
            let write = |pins: &Pins, value| {
                pins.allow_msr(index, value).map(|()| pins.after_msr(&long_mode(), index, value, value))
            };
            let zero = write(&Pins::default(), 0).expect("nothing is pinned");
            let pins = write(&zero, 5).expect("0 is not pinned");
            assert_eq!(write(&pins, 5), Ok(pins));
            assert_eq!((write(&pins, 6), write(&pins, 0)), (Err(protection), Err(protection)));
            let bits = pins.write(&long_mode(), &Controls { cr0: CR0_PE, ..long_mode() });
            assert_eq!(bits, Err(Protection::Cr0Pg), "the write pins the bits that are set, too");
            let early = Pins::default().after_msr(&Controls::default(), index, 5, 5);
            assert_eq!(early, Pins::default(), "not in long mode");
        }
    }

    #[test]
    fn what_the_cpu_does_not_keep_of_a_value_is_free() {
        for (index, protection) in MSRS {
            let pins = Pins::default().after_msr(&long_mode(), index, 0xfe00_0000_3000, 0x3000);
            for (value, expected) in [
                (0x3000, Ok(())),
                (0xfe00_0000_3000, Ok(())),
                (0xfe00_0000_3001, Err(protection)),
                (0x1_0000_3000, Err(protection)),
                (0xfe00_0000_0000, Err(protection)),
            ] {
                assert_eq!(pins.allow_msr(index, value), expected, "{value:#x}");
            }
            let again = pins.after_msr(&long_mode(), index, 0x3000, 0x3000);
            assert_eq!(again, pins);
            let nothing = Pins::default().after_msr(&long_mode(), index, 1 << 40, 0);
            let allowed = if index == SYSENTER_CS { Err(protection) } else { Ok(()) };
            assert_eq!(nothing.allow_msr(index, 5), allowed, "a CPU that keeps 0 keeps no value");
        }
    }

    #[test]
    fn a_kernel_that_has_switched_sysenter_off_keeps_it_off() {
        let pins = Pins::default().after_msr(&long_mode(), SYSENTER_CS, 0, 0);
        assert_ne!(pins.pinned() & 1 << Protection::SysenterCs as u32, 0);
        assert_eq!(pins.allow_msr(SYSENTER_CS, 0x10), Err(Protection::SysenterCs));
        assert_eq!(pins.allow_msr(SYSENTER_CS, 0), Ok(()));
        let early = Pins::default().after_msr(&Controls::default(), SYSENTER_CS, 0, 0);
        assert_eq!(early, Pins::default(), "not in long mode");
    }

    /// A write of the guest, as the model sees it.
    #[derive(Debug, Clone, Copy)]
    enum Guests {
        Cr0(u64),
        Cr4(u64),
        Efer(u64),
        Msr(usize, u64),
        Init,
    }

    fn guests() -> impl Strategy<Value = Guests> {
        let any_of = |bits: u64| any::<u64>().prop_map(move |value| value & bits);
        prop_oneof![
            3 => any_of(CR0_BITS | 8).prop_map(Guests::Cr0),
            3 => any_of(CR4_BITS | CR4_PAE).prop_map(Guests::Cr4),
            3 => any_of(EFER_LME | EFER_NXE | EFER_LMA | 1).prop_map(Guests::Efer),
            3 => (0..MSRS.len(), 0u64..3).prop_map(|(index, value)| Guests::Msr(index, value)),
            1 => Just(Guests::Init),
        ]
    }

    const BITS: [u64; 3] = [CR0_BITS, CR4_BITS, EFER_LME | EFER_NXE];

    fn registers(controls: &Controls) -> [u64; 3] {
        [controls.cr0, controls.cr4, controls.efer]
    }

    /// Notes each bit that is set and can be pinned, with the number of its register.
    fn keep_bits(kept: &mut Vec<(usize, u64)>, controls: &Controls) {
        for (at, bits) in BITS.into_iter().enumerate() {
            let set = registers(controls)[at] & bits;
            kept.extend((0..64).map(|bit| (at, 1 << bit)).filter(|(_, bit)| set & bit != 0));
        }
    }

    proptest! {
        /// The model remembers each bit and each value that was ever to be kept since the last INIT.
        #[test]
        fn what_is_pinned_never_changes_until_init(writes in prop::collection::vec(guests(), 0..60)) {
            let (mut pins, mut controls) = (Pins::default(), Controls::default());
            let mut msrs = [0; MSRS.len()];
            let mut kept: Vec<(usize, u64)> = Vec::new();
            for write in writes {
                let mut new = controls;
                match write {
                    Guests::Cr0(value) => new.cr0 = value,
                    Guests::Cr4(value) => new.cr4 = value,
                    Guests::Efer(value) => new.efer = value,
                    Guests::Msr(index, value) => {
                        let allowed = !kept.iter().any(|(at, old)| *at == 3 + index && *old != value);
                        prop_assert_eq!(pins.allow_msr(MSRS[index].0, value).is_ok(), allowed);
                        if allowed {
                            pins = pins.after_msr(&controls, MSRS[index].0, value, value);
                            msrs[index] = value;
                            if controls.efer & EFER_LMA != 0 {
                                keep_bits(&mut kept, &controls);
                                if value != 0 || MSRS[index].0 == SYSENTER_CS {
                                    kept.push((3 + index, value));
                                }
                            }
                        }
                    }
                    Guests::Init => {
                        (pins, new, msrs) = (Pins::default(), Controls::default(), [0; MSRS.len()]);
                        kept.clear();
                    }
                }
                let loses = kept.iter().any(|(at, bit)| *at < 3 && registers(&new)[*at] & bit == 0);
                let result = pins.write(&controls, &new);
                prop_assert_eq!(result.is_err(), loses);
                let Ok(after) = result else { continue };
                pins = after;
                let changes = (0..3).any(|at| (registers(&controls)[at] ^ registers(&new)[at]) & BITS[at] != 0);
                if changes && controls.efer & new.efer & EFER_LMA != 0 {
                    keep_bits(&mut kept, &new);
                }
                controls = new;
                for (index, value) in kept.iter().filter(|(at, _)| *at >= 3) {
                    prop_assert_eq!(msrs[index - 3], *value);
                }
            }
        }
    }
}
