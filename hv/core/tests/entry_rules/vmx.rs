//! The rules of VM entry, asked about states that Vidar's own code has set up.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::policy::control::{CR0_PE, CR0_PG, Controls};
use vidar_core::policy::guard::Guard;
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::entry::EntryState;
use vidar_core::vmx::capabilities::{Capabilities, RawCapabilities};
use vidar_core::vmx::field::*;
use vidar_core::vmx::rules::cases::{CASES, LEGAL};
use vidar_core::vmx::rules::change::{self, Change};
use vidar_core::vmx::rules::facts::Facts;
use vidar_core::vmx::rules::state::{Section, Source, State};
use vidar_core::vmx::rules::{OTHERS, OWN, broken};
use vidar_core::vmx::setup::{self, HostState, InitialMsrs};
use vidar_core::vmx::{debug, guest_state, switched_msrs};

use super::vmx_cases;

/// The address of the VMCS.
pub const VMCS: Hpa = Hpa(0x3000);

/// The fields of a VMCS. A field that nothing has written cannot be read.
#[derive(Clone, Default)]
pub struct Vmcs(BTreeMap<u32, u64>);

impl Fields for Vmcs {
    fn read<W: Width, A: Access>(&self, field: Field<W, A>) -> W {
        let encoding = field.encoding();
        let value = self.0.get(&encoding);
        W::from_u64(
            *value.unwrap_or_else(|| panic!("field {encoding:#x} is read, but nothing has written it")),
        )
    }
}

impl FieldsMut for Vmcs {
    fn write<W: Width>(&mut self, field: Field<W, ReadWrite>, value: W) {
        self.0.insert(field.encoding(), value.to_u64());
    }
}

impl RootFieldsMut for Vmcs {
    fn write_root<W: Width>(&mut self, field: Field<W, Root>, value: W) {
        self.0.insert(field.encoding(), value.to_u64());
    }
}

/// A CPU before a VM entry.
#[derive(Clone)]
pub struct Machine {
    vmcs: Vmcs,
    pub facts: Facts,
    pub memory: BTreeMap<u64, u32>,
}

impl Machine {
    /// Sets a field to `value`.
    pub fn set<W: Width, A: Access>(&mut self, field: Field<W, A>, value: u64) {
        self.vmcs.0.insert(field.encoding(), value);
    }

    /// Sets the bits `mask` of a field.
    pub fn or<W: Width, A: Access>(&mut self, field: Field<W, A>, mask: u64) {
        *self.vmcs.0.entry(field.encoding()).or_default() |= mask;
    }

    /// Clears the bits `mask` of a field.
    pub fn clear<W: Width, A: Access>(&mut self, field: Field<W, A>, mask: u64) {
        *self.vmcs.0.entry(field.encoding()).or_default() &= !mask;
    }

    /// Changes the state as a case does.
    pub fn change(&mut self, change: fn(&mut change::State<'_>)) {
        let beyond = 1 << self.facts.address_bits;
        change(&mut change::State { change: self, vmcs: VMCS, beyond });
    }

    /// Puts the guest into 64-bit mode.
    fn long_mode(&mut self) {
        self.change(|m| m.long_mode());
    }

    /// Returns the numbers of the rules that the state breaks.
    fn broken(&self) -> Vec<&'static str> {
        let memory = |address: Hpa| self.memory.get(&address.0).copied();
        found(&State::new(&self.vmcs, &memory, &self.facts))
    }
}

impl Change for Machine {
    fn field(&mut self, encoding: u32, clear: u64, set: u64) {
        let value = self.vmcs.0.entry(encoding).or_default();
        *value = *value & !clear | set;
    }

    fn store(&mut self, address: u64, value: u32) {
        self.memory.insert(address, value);
    }
}

fn found(state: &State<'_>) -> Vec<&'static str> {
    let mut ids = Vec::new();
    for sections in [&OWN[..], &OTHERS] {
        broken(sections, state, &mut |broken| ids.push(broken.id));
    }
    ids
}

fn all_sections() -> impl Iterator<Item = &'static Section> {
    OWN.iter().chain(&OTHERS)
}

/// Returns a CPU that has everything, except for the "TRUE" bits that a CPU may force to 1.
fn everything() -> RawCapabilities {
    RawCapabilities {
        basic: 1 << 55 | 0x12,
        pin: 0x7fff_ffff << 32 | 0x16,
        primary: !0 << 32 | 0x0400_6172,
        exit: !0 << 32 | 0x0003_6dfb,
        entry: !0 << 32 | 0x11fb,
        secondary: 0x7fff_ffff << 32,
        ept_vpid: !0,
        misc: 0x1e0 | 4 << 16,
        cr0_fixed: [0x8000_0021, 0xffff_ffff],
        cr4_fixed: [0x2000, 0x00f7_67ff],
    }
}

/// Returns a CPU that has only what Vidar requires.
fn least() -> RawCapabilities {
    RawCapabilities {
        pin: 0x7f << 32 | 0x16,
        primary: 0x9401_e172_u64 << 32 | 0x0401_e172,
        exit: 0x003f_6fff << 32 | 0x0003_6dfb,
        entry: 0xf3ff << 32 | 0x11fb,
        secondary: 0x82 << 32,
        ept_vpid: 1 << 6 | 1 << 14 | 1 << 16 | 1 << 20 | 1 << 26,
        ..everything()
    }
}

fn facts(capabilities: RawCapabilities) -> Facts {
    Facts {
        capabilities,
        address_bits: 39,
        linear_bits: 48,
        ia32e: true,
        perf_global: 0x1_0007_0000_00ff,
        current: VMCS,
        tertiary: !(1 << 63),
        secondary_exit: !0,
        functions: 1,
        ..Facts::default()
    }
}

/// Returns the state at the kernel's 32-bit entry.
fn at_kernel() -> CpuState {
    let entry = EntryState {
        entry: Gpa(0x100_0000),
        boot_params: Gpa(0x1_0000),
        gdt: Gpa(0x1_1000),
        gdt_limit: 0x1f,
        code: 0x10,
        data: 0x18,
    };
    CpuState::at_kernel(&entry)
}

/// Returns the first VMCS of a CPU with these capabilities, as Vidar sets it up for a guest in `state`.
fn first(raw: RawCapabilities, state: &CpuState) -> Machine {
    let capabilities = Capabilities::choose(&raw).expect("nothing is missing");
    let mut vmcs = Vmcs::default();
    setup::controls(&mut vmcs, &capabilities, Hpa(0x5000), Hpa(0x7000), Guard::Off);
    let host = HostState {
        cr0: 0x8001_0033,
        cr3: 0x8000,
        cr4: 0x4_2620,
        efer: 0xd00,
        cs: 8,
        tr: 0x10,
        gs_base: 0xffff_ffff_8010_0000,
        tr_base: 0xffff_ffff_8010_1000,
        gdt: 0xffff_ffff_8010_2000,
        idt: 0xffff_ffff_8010_3000,
        rip: 0xffff_ffff_8000_1000,
    };
    setup::host_state(&mut vmcs, &capabilities, &host);
    let initial = InitialMsrs {
        pat: 0x0007_0406_0007_0406,
        sysenter_cs: 0,
        sysenter_esp: 0,
        sysenter_eip: 0xffff_8000_0000_0000,
    };
    setup::initial_msrs(&mut vmcs, &capabilities, &initial);
    switched_msrs::rows(&capabilities).for_each(|row| vmcs.write(row.field, 0));
    guest_state::load(&mut vmcs, &capabilities, state);
    Machine { vmcs, facts: facts(raw), memory: BTreeMap::new() }
}

/// Returns the state from which the cases begin: a guest at the kernel's entry, on a CPU that has everything.
pub fn valid() -> Machine {
    first(everything(), &at_kernel())
}

#[test]
fn a_state_that_vidar_sets_up_breaks_no_rule() {
    for raw in [everything(), least()] {
        for state in [at_kernel(), CpuState::after_init(0x506e3)] {
            let mut machine = first(raw, &state);
            assert_eq!(machine.broken(), [""; 0], "a guest at its start");
            setup::startup(&mut machine.vmcs, 0x9a);
            assert_eq!(machine.broken(), [""; 0], "after a start-up IPI");
        }
        let mut waiting = first(raw, &CpuState::after_init(0));
        setup::init(&mut waiting.vmcs, &Capabilities::choose(&raw).expect("nothing is missing"), true);
        assert_eq!(waiting.broken(), [""; 0], "a guest that waits for a start-up IPI");
        let mut long = first(raw, &at_kernel());
        long.long_mode();
        assert_eq!(long.broken(), [""; 0], "a guest in 64-bit mode");
        long.set(GUEST_RIP, 0xffff_ffff_8100_0000);
        assert_eq!(long.broken(), [""; 0]);
    }
}

#[test]
fn each_case_breaks_its_rule_alone() {
    for (id, change) in CASES {
        let mut machine = valid();
        machine.change(*change);
        assert_eq!(machine.broken(), [*id]);
    }
    for (id, change) in vmx_cases::CASES {
        let mut machine = valid();
        change(&mut machine);
        assert_eq!(machine.broken(), [*id]);
    }
}

#[test]
fn legal_cases_break_no_rule() {
    for (what, change) in LEGAL {
        let mut machine = valid();
        machine.change(*change);
        assert_eq!(machine.broken(), [""; 0], "{what}");
    }
}

#[test]
fn every_rule_has_a_number_of_its_own_and_a_case() {
    let ids: Vec<_> = all_sections().flat_map(|section| section.rules()).map(|(id, _)| id).collect();
    let unique: BTreeSet<_> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len(), "a number stands for two rules");
    let of_other_cpus = vmx_cases::CASES.iter().map(|(id, _)| *id);
    let cases: BTreeSet<_> = CASES.iter().map(|(id, _)| *id).chain(of_other_cpus).collect();
    assert_eq!(unique, cases);
}

#[test]
fn every_rule_is_a_sentence() {
    for (id, says) in all_sections().flat_map(|section| section.rules()) {
        assert!(says.ends_with('.') && says.starts_with(char::is_uppercase), "{id}");
    }
}

#[test]
fn a_report_names_the_rule_its_section_and_the_values() {
    let mut machine = valid();
    machine.set(GUEST_CS_RIGHTS, 0xc091);
    let memory = |_| None;
    let mut texts = Vec::new();
    broken(&OWN, &State::new(&machine.vmcs, &memory, &machine.facts), &mut |broken| {
        texts.push(broken.to_string());
    });
    let expected = "rule G22 is broken: \
                    CS has type 9, 11, 13 or 15 (accessed code), or in an unrestricted guest 3 (data).\n  \
                    Intel SDM Vol. 3C, 27.3.1.2 \"Checks on Guest Segment Registers\"\n  \
                    GUEST_CS_RIGHTS 0xc091";
    assert_eq!(texts, [expected]);
}

#[test]
fn controls_that_vidar_turns_on_later_break_no_rule() {
    let mut machine = valid();
    machine.or(PIN_BASED_CONTROLS, 1 << 6);
    machine.set(PREEMPTION_TIMER, 0x800);
    for event in [0x8000_0202, 0x8000_0306, 0x8000_0312, 0x8000_0b0d] {
        machine.set(ENTRY_INTERRUPTION_INFO, event);
        machine.set(ENTRY_EXCEPTION_ERROR_CODE, 0);
        assert_eq!(machine.broken(), [""; 0], "{event:#x}");
    }
    machine.clear(GUEST_CR0, CR0_PE);
    machine.set(ENTRY_INTERRUPTION_INFO, 0x8000_030d);
    assert_eq!(machine.broken(), [""; 0], "#GP in real mode has no error code");
}

#[test]
fn interrupt_that_is_injected_breaks_a_rule_after_gdb_has_cleared_if_unless_it_waits() {
    let mut machine = valid();
    machine.set(ENTRY_INTERRUPTION_INFO, 0x8000_00ec);
    machine.or(GUEST_RFLAGS, 1 << 9);
    assert_eq!(machine.broken(), [""; 0]);
    machine.clear(GUEST_RFLAGS, 1 << 9);
    assert_eq!(machine.broken(), ["G38c"]);
    assert_eq!(debug::revise_injection(&mut machine.vmcs, false), Some(0xec));
    assert_eq!(machine.broken(), [""; 0]);
}

#[test]
fn controls_that_the_guest_sets_break_no_rule() {
    let mut machine = valid();
    let capabilities = Capabilities::choose(&everything()).expect("nothing is missing");
    for (cr0, cr4, efer) in [(0x31, 0, 0), (0x8005_0033, 0x20, 0xd01), (0x8005_0033, 0x20, 0), (0x10, 0, 0)] {
        let efer = if cr0 & CR0_PG != 0 && efer & 1 << 8 != 0 { efer | 1 << 10 } else { efer };
        let controls = Controls { cr0, cr4, efer, ..Controls::default() };
        guest_state::load_controls(&mut machine.vmcs, &capabilities, &controls);
        for field in [GUEST_PDPTE0, GUEST_PDPTE1, GUEST_PDPTE2, GUEST_PDPTE3] {
            machine.set(field, 0);
        }
        assert_eq!(machine.broken(), [""; 0], "{controls:?}");
    }
}

/// A VMCS whose fields have arbitrary values.
struct Arbitrary {
    valid: Vmcs,
    changes: BTreeMap<u32, u64>,
    seed: u64,
}

impl Source for Arbitrary {
    fn value(&self, encoding: u32) -> u64 {
        let mixed = self.seed.wrapping_mul(u64::from(encoding) | 1).rotate_left(encoding % 61);
        let value =
            self.changes.get(&encoding).or_else(|| self.valid.0.get(&encoding)).copied().unwrap_or(mixed);
        match encoding >> 13 & 3 {
            0 => value & 0xffff,
            2 => value & 0xffff_ffff,
            _ => value,
        }
    }
}

proptest! {
    #[test]
    fn asking_never_panics(
        seed in any::<u64>(),
        from_valid in any::<bool>(),
        changes in proptest::collection::btree_map(0_u32..0x7000, any::<u64>(), 0..200),
        raw in any::<[u64; 12]>(),
        widths in any::<[u32; 2]>(),
        word in any::<Option<u32>>(),
    ) {
        let capabilities = RawCapabilities {
            basic: raw[0],
            pin: raw[1],
            primary: raw[2],
            exit: raw[3],
            entry: raw[4],
            secondary: raw[5],
            ept_vpid: raw[6],
            misc: raw[7],
            cr0_fixed: [raw[8], raw[9]],
            cr4_fixed: [raw[10], raw[11]],
        };
        let facts = Facts { capabilities, address_bits: widths[0], linear_bits: widths[1], ..Facts::default() };
        let source = Arbitrary { valid: if from_valid { valid().vmcs } else { Vmcs::default() }, changes, seed };
        let memory = |_| word;
        let state = State::new(&source, &memory, &facts);
        for sections in [&OWN[..], &OTHERS] {
            broken(sections, &state, &mut |broken| assert!(!broken.to_string().is_empty()));
        }
    }
}
