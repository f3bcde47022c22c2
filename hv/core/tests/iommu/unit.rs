//! Switching translation on, and what the guest reads and writes.

use proptest::prelude::*;
use vidar_core::iommu::capability::Capability;
use vidar_core::iommu::guard::{self, DmaGuard};
use vidar_core::iommu::plan::Obstacle;
use vidar_core::iommu::register::{
    COMPATIBILITY, FEADDR, FSTS, GCMD, GSTS, IEADDR, IQA, IQH, IQT, IRTA, PMEN, QUEUE, REMAP_INTERRUPTS,
    RTADDR, SET_INTERRUPTS, SET_ROOT, TRANSLATION,
};
use vidar_core::iommu::unit::Unit;
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use vidar_core::mem::walk::ReadGuest;

use crate::model::{Model, OWN_QUEUE, QEMU};

const REGISTERS: Hpa = Hpa(0xfed9_0000);
const ROOT: Hpa = Hpa(0x21_0000);
/// Where the guest's queue lies.
const GUESTS_QUEUE: u64 = 0x8000;
/// The page that Vidar keeps, and the one that the guest sees there.
const KEPT: u64 = 0x20_0000;
const DECOY: u64 = 0x3f_f000;

/// A guest whose queue begins with these descriptors.
struct Guest(Vec<[u64; 2]>);

impl ReadGuest for Guest {
    fn word(&self, address: Gpa) -> Option<u64> {
        let index = address.0.checked_sub(GUESTS_QUEUE)? / 8;
        self.0.as_flattened().get(index as usize).copied()
    }

    fn page(&self, address: Gpa) -> Option<Hpa> {
        let page = address.align_down(PAGE_SIZE).0;
        Some(Hpa(if page == KEPT { DECOY } else { page }))
    }
}

const NOTHING: &Guest = &Guest(Vec::new());

/// A unit that guards Vidar's memory.
fn guarding(capability: Capability) -> (Unit, Model) {
    let model = Model::new(capability);
    let mut unit = Unit::find(Box::new(model.clone()), REGISTERS).expect("the model answers");
    unit.guard(ROOT).expect("the model obeys");
    (unit, model)
}

#[test]
fn translation_is_switched_on_after_everything_old_is_forgotten() {
    let (unit, model) = guarding(QEMU);
    let order = ["root 0x210000", "queue true", "invalidate 1", "invalidate 2", "translation true"];
    assert_eq!(model.log(), order);
    assert_eq!(unit.registers(), REGISTERS..REGISTERS + 0x1000);
    let (_, model) = guarding(Capability { ecap: QEMU.ecap & !2, ..QEMU });
    let order =
        ["root 0x210000", "invalidate by register 0x2c", "invalidate by register 0xfc", "translation true"];
    assert_eq!(model.log(), order);
}

#[test]
fn translation_and_interrupts_of_firmware_have_no_gap() {
    let model = Model::new(QEMU);
    model.state().registers.insert(GSTS, TRANSLATION | QUEUE | REMAP_INTERRUPTS | COMPATIBILITY);
    let mut unit = Unit::find(Box::new(model.clone()), REGISTERS).expect("the model answers");
    unit.guard(ROOT).expect("the model obeys");
    assert_eq!(model.log(), ["queue false", "root 0x210000", "queue true", "invalidate 1", "invalidate 2"]);
    let on = TRANSLATION | QUEUE | REMAP_INTERRUPTS | COMPATIBILITY | SET_ROOT;
    assert_eq!(model.state().get(GSTS), on);
}

#[test]
fn mode_of_tables_changes_while_translation_is_off() {
    let model = Model::new(QEMU);
    for (offset, value) in [(GSTS, TRANSLATION), (RTADDR, 0x5000 | 1 << 10)] {
        model.state().registers.insert(offset, value);
    }
    let mut unit = Unit::find(Box::new(model.clone()), REGISTERS).expect("the model answers");
    unit.guard(ROOT).expect("the model obeys");
    let log = model.log();
    assert_eq!(log[..2], ["translation false", "root 0x210000"]);
    assert_eq!(log.last().map(String::as_str), Some("translation true"));
}

#[test]
fn queue_of_firmware_is_drained_and_its_errors_are_cleared() {
    for (head, error, first) in [(0x10, 0, "queue false"), (0x10, 1 << 4, "queue false, with work left")] {
        let model = Model::new(QEMU);
        for (offset, value) in [(GSTS, QUEUE), (IQH, head), (IQT, 0x80), (FSTS, error)] {
            model.state().registers.insert(offset, value);
        }
        let mut unit = Unit::find(Box::new(model.clone()), REGISTERS).expect("the model answers");
        assert_eq!(unit.guard(ROOT), Ok(()));
        assert_eq!(model.log()[0], first);
        assert_eq!(model.state().get(FSTS), 0);
    }
}

#[test]
fn units_are_released_only_if_they_have_begun() {
    let models = [QEMU; 3].map(Model::new);
    models[1].state().deaf = TRANSLATION;
    models[2].state().registers.insert(GSTS, TRANSLATION);
    let find = |model: &Model| Unit::find(Box::new(model.clone()), REGISTERS).expect("the model answers");
    let mut units: Vec<_> = models.iter().map(find).collect();
    assert_eq!(guard::begin(&mut units, ROOT), Err(Obstacle::Stuck(REGISTERS, TRANSLATION)));
    let status = models.each_ref().map(|model| model.state().get(GSTS));
    assert_eq!(status, [SET_ROOT, SET_ROOT, TRANSLATION]);
    assert_eq!(models[2].log(), Vec::<String>::new());
}

#[test]
fn protected_ranges_are_switched_off_once_translation_is_on() {
    let model = Model::new(Capability { cap: QEMU.cap | 1 << 5, ..QEMU });
    model.state().registers.insert(PMEN, 1);
    let mut unit = Unit::find(Box::new(model.clone()), REGISTERS).expect("the model answers");
    assert_eq!(unit.guard(ROOT), Err(Obstacle::Stuck(REGISTERS, 1)), "the status of the model stays");
    assert_eq!(model.log().last().map(String::as_str), Some("translation true"));
}

#[test]
fn unit_that_does_not_obey_or_is_not_there_is_refused() {
    for deaf in [SET_ROOT, QUEUE, TRANSLATION] {
        let model = Model::new(QEMU);
        model.state().deaf = deaf;
        let mut unit = Unit::find(Box::new(model), REGISTERS).expect("the model answers");
        assert_eq!(unit.guard(ROOT), Err(Obstacle::Stuck(REGISTERS, deaf)));
    }
    for (cap, ecap) in [(0, 0), (u64::MAX, u64::MAX)] {
        let found = Unit::find(Box::new(Model::new(Capability { cap, ecap })), REGISTERS);
        assert_eq!(found.err(), Some(Obstacle::NoUnit(REGISTERS)));
    }
}

#[test]
fn guest_is_shown_a_unit_without_translation() {
    let (mut unit, _) = guarding(QEMU);
    assert_eq!(unit.read(GSTS, NOTHING), 0);
    assert_eq!(u64::from(unit.read(8, NOTHING)), QEMU.shown().cap & 0xffff_ffff);
    assert_eq!(u64::from(unit.read(12, NOTHING)), QEMU.shown().cap >> 32);
    assert_eq!(
        [
            unit.read(RTADDR, NOTHING),
            unit.read(IQA, NOTHING),
            unit.read(IQT, NOTHING),
            unit.read(IQH, NOTHING)
        ],
        [0; 4]
    );
    unit.write(RTADDR, 0x5000, NOTHING);
    unit.write(GCMD, SET_ROOT, NOTHING);
    assert_eq!((unit.read(GSTS, NOTHING), unit.read(RTADDR, NOTHING)), (SET_ROOT, 0));
}

#[test]
fn guest_remaps_interrupts_as_linux_does() {
    let (mut unit, model) = guarding(QEMU);
    model.log();
    let entry = [4 | 1 << 4, 0];
    let wait = [5 | 1 << 5 | 2 << 32, 0x9000];
    let guest = Guest(vec![entry, wait]);
    unit.write(IQT, 0, &guest);
    unit.write(IQA, GUESTS_QUEUE as u32, &guest);
    unit.write(IQA + 4, 0, &guest);
    unit.write(GCMD, QUEUE, &guest);
    assert_eq!(unit.read(GSTS, NOTHING), QUEUE);
    unit.write(IRTA, 0x7f_0000 | 1 << 11 | 15, &guest);
    unit.write(GCMD, QUEUE | SET_INTERRUPTS, &guest);
    assert_eq!(unit.read(GSTS, NOTHING), QUEUE | SET_INTERRUPTS);
    unit.write(IQT, 32, &guest);
    assert_eq!(unit.read(IQH, NOTHING), 32);
    unit.write(GCMD, QUEUE | REMAP_INTERRUPTS, &guest);
    assert_eq!(unit.read(GSTS, NOTHING), QUEUE | SET_INTERRUPTS | REMAP_INTERRUPTS);
    assert_eq!(model.log(), ["invalidate 4", "wait"]);
    let state = model.state();
    assert_eq!((state.memory.get(&0x9000), state.get(IRTA)), (Some(&2), 0x7f_0000 | 1 << 11 | 15));
    assert_eq!(state.get(GSTS) & (TRANSLATION | QUEUE), TRANSLATION | QUEUE);
}

#[test]
fn queue_goes_on_when_a_slow_unit_has_caught_up() {
    for waited_for in [FSTS, IQH, IQT] {
        let (mut unit, model) = guarding(QEMU);
        let guest = Guest((0..3).map(|data| [5 | 1 << 5 | data << 32, 0x9000 + data * 4]).collect());
        unit.write(IQA, GUESTS_QUEUE as u32, &guest);
        unit.write(GCMD, QUEUE, &guest);
        model.state().slow = true;
        unit.write(IQT, 48, &guest);
        assert!(model.state().reads > 1000, "registers are read while Vidar waits");
        let head = |unit: &mut Unit| unit.read(IQH, NOTHING);
        assert_eq!((head(&mut unit), head(&mut unit)), (16, 16), "nothing is added to a queue that stands");
        model.state().catch_up();
        unit.read(waited_for, &guest);
        assert_eq!(head(&mut unit), 48, "{waited_for:#x}");
        assert!((0..3).all(|word| model.state().memory.contains_key(&(0x9000 + word * 4))));
    }
}

#[test]
fn table_of_interrupts_is_not_in_vidars_memory() {
    for (table, taken) in [
        (0x7f_000f, true),
        (0x21_0000, true),
        (0x1f_f007, true),
        (0x20_0000, false),
        (0x1f_f008, false),
        (0x18_000f, false),
    ] {
        let (mut unit, model) = guarding(QEMU);
        unit.write(IRTA, table, NOTHING);
        unit.write(GCMD, SET_INTERRUPTS | REMAP_INTERRUPTS, NOTHING);
        let expected = if taken { SET_INTERRUPTS } else { 0 };
        assert_eq!(model.state().get(GSTS) & SET_INTERRUPTS, expected, "{table:#x}");
    }
}

#[test]
fn unit_does_not_write_to_vidars_memory_for_the_guest() {
    let (mut unit, model) = guarding(QEMU);
    let guest = Guest(vec![[5 | 1 << 5 | 0x666 << 32, KEPT + 8]]);
    unit.write(IQA, GUESTS_QUEUE as u32, &guest);
    unit.write(GCMD, QUEUE, &guest);
    unit.write(IQT, 16, &guest);
    let state = model.state();
    assert_eq!((state.memory.get(&(KEPT + 8)), state.memory.get(&(DECOY + 8))), (None, Some(&0x666)));
}

#[test]
fn interrupts_of_the_unit_are_interrupts() {
    let (mut unit, model) = guarding(QEMU);
    for register in [FEADDR, IEADDR] {
        unit.write(register, 0xfee0_100c, NOTHING);
        unit.write(register, KEPT as u32, NOTHING);
        unit.write(register, 0xfef0_0000, NOTHING);
        assert_eq!(model.state().get(register), 0xfee0_100c);
        // Upper bits of an APIC ID are taken, and those of an address in memory are not.
        unit.write(register + 4, 0x1234_5601, NOTHING);
        assert_eq!(model.state().get(register + 4), 0x1234_5600);
    }
}

#[test]
fn faults_are_noted_before_the_guest_clears_them() {
    let (mut unit, model) = guarding(QEMU);
    let record = 0x220;
    let fault = |model: &Model, words: [u32; 4]| {
        for (word, value) in words.into_iter().enumerate() {
            model.state().registers.insert(record + word * 4, value);
        }
    };
    fault(&model, [KEPT as u32, 0, 0x20, 0x8000_0006]);
    for (word, value) in [(0, 1 << 31), (8, 1 << 31), (12, 0)] {
        unit.write(record + word, value, NOTHING);
        fault(&model, [KEPT as u32, 0, 0x20, 0x8000_0006]);
    }
    unit.write(record + 12, 1 << 31, NOTHING);
    fault(&model, [0x5000, 0, 0x28, 0x8000_0022]);
    unit.write(record + 12, 1 << 31, NOTHING);
    fault(&model, [KEPT as u32, 0, 0x18, 0xc000_0006]);
    assert_eq!(unit.faults().count(), 1, "FSTS has no fault");
    model.state().registers.insert(FSTS, 3);
    let all: Vec<_> =
        unit.faults().last().map(|fault| (fault.requester, fault.write, fault.address)).collect();
    assert_eq!(all, [(0x20, true, KEPT), (0x18, false, KEPT)], "that of an interrupt is the guest's");
    let registers = [record + 12, FSTS].map(|offset| model.state().get(offset));
    assert_eq!(registers, [1 << 31, 2], "they are cleared by ones");
    model.state().registers.insert(record + 12, 0);
    let guard = DmaGuard::by(vec![unit]);
    assert_eq!(guard.fault(1).1.map(|fault| fault.requester), Some(0x18));
    assert_eq!(guard.fault(2), (2, None));
}

proptest! {
    #[test]
    fn whatever_the_guest_writes_translation_stays_vidars(
        writes in prop::collection::vec((0usize..0x400, any::<u32>()), 0..60),
        queue in prop::collection::vec(any::<[u64; 2]>(), 0..40),
    ) {
        let (mut unit, model) = guarding(QEMU);
        let guest = Guest(queue);
        for (word, value) in writes {
            unit.write(word * 4, value, &guest);
            let _ = unit.read(word * 4, NOTHING);
        }
        prop_assert_eq!(unit.read(GSTS, NOTHING) & TRANSLATION, 0);
        let state = model.state();
        prop_assert_eq!(state.get(GSTS) & (TRANSLATION | QUEUE), TRANSLATION | QUEUE);
        prop_assert_eq!(u64::from(state.get(IQA)), OWN_QUEUE);
        prop_assert_eq!((state.get(RTADDR), state.get(RTADDR + 4)), (ROOT.0 as u32, 0));
        prop_assert!(!state.log.iter().any(|did| did == "translation false"));
        prop_assert!(!state.memory.keys().any(|at| (KEPT..KEPT + PAGE_SIZE).contains(at)));
        for forbidden in (0x58..0x80).chain(0xc0..0x220).filter(|offset| offset % 4 == 0) {
            prop_assert_eq!(state.get(forbidden), 0, "{:#x}", forbidden);
        }
    }
}
