//! A machine for the simulated CPU of [`cpu`](crate::cpu), and a bench that has both.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Once;
use std::sync::atomic::AtomicBool;

use spin::Mutex;
use vidar_abi::{DmaState, Vendor};
use vidar_core::iommu::guard::DmaGuard;
use vidar_core::kernel::known::KnownKernel;
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE, PageSize};
use vidar_core::mem::identity::Identity;
use vidar_core::mem::locks::Locks;
use vidar_core::mem::mtrr::{MemoryType, Mtrrs};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::stage2::{ENTRIES, Format, Level, Table, TableMemory};
use vidar_core::mem::view::View;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::policy::control::{CR4_SMXE, CR4_VMXE};
use vidar_core::policy::cpuid::Policy;
use vidar_core::policy::features::Features;
use vidar_core::policy::guard::Guard;
use vidar_core::policy::msr::{COMMON, Row, STARTUP};
use vidar_core::svm::msrs::MSRS as SVM;
use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::guard::locked::Locked;
use vidar_core::vmm::machine::{Host, Machine, Startup};
use vidar_core::vmm::memory::GuestMemory;
use vidar_core::vmm::observer::{Observer, Unobserved, Wanted};
use vidar_core::vmm::outcome::{Outcome, Stop};
use vidar_core::vmm::percpu::PerCpu;
use vidar_core::vmm::processor::Processor;
use vidar_core::vmm::refusals::Refusals;
use vidar_core::vmm::run;
use vidar_core::vmm::update::MicrocodeUpdate;
use vidar_core::vmx::ept::Ept;
use vidar_core::vmx::msrs::MSRS as VMX;
use vidar_core::x86::msr::{EFER_LME, EFER_NXE, Fault};
use vidar_core::x86::registers::Register;

use crate::APIC;
pub use crate::cpu::{Action, FakeCpu, native_cpuid};

/// The region that Vidar keeps for itself, in the middle of RAM.
pub const REGION: Range<Hpa> = Hpa(0xc0_0000)..Hpa(0x100_0000);
/// The pages that lead start-up IPIs to Vidar with [`Startup::Landing`].
pub const LANDING: Range<Hpa> = Hpa(0x1000)..Hpa(0xa_0000);
/// The guest's RAM.
pub const RAM: [Range<Hpa>; 3] =
    [Hpa(0)..Hpa(0x9_f000), Hpa(0x10_0000)..REGION.start, REGION.end..Hpa(0x200_0000)];
pub const PHYSICAL_ADDRESS_BITS: u32 = 40;
/// The bits of CR4 that the CPU has, without those that belong to Vidar.
pub const CR4_ALLOWED: u64 = 0xff_ffff & !(CR4_VMXE | CR4_SMXE);
/// The bits of EFER that the guest may set: SCE, LME and NXE.
pub const EFER_ALLOWED: u64 = 1 | EFER_LME | EFER_NXE;
/// The state components in CPUID.0DH.0:EAX: x87, SSE, AVX and AVX-512.
pub const XCR0_SUPPORTED: u32 = 0xe7;

/// The MSRs of both vendors.
pub const MSRS: &[&[Row]] = &[COMMON, SVM[1], VMX[1]];

/// The root of Vidar's own page tables.
pub const HOST_ROOT: Hpa = Hpa(REGION.end.0 - PAGE_SIZE);

/// Frames for tables, in Vidar's region as on a real machine. A test fails if it uses one that does not exist.
pub struct Frames {
    frames: Vec<Option<[u64; ENTRIES]>>,
    limit: Cell<usize>,
}

impl Frames {
    pub fn used(&self) -> usize {
        self.frames.iter().flatten().count()
    }

    /// Limits the frames that can still be allocated to `frames`.
    pub fn limit(&self, frames: usize) {
        self.limit.set(frames);
    }

    fn index(table: Hpa) -> usize {
        assert!(table.is_aligned(PAGE_SIZE), "{table} is no frame");
        ((table.0 - REGION.start.0) / PAGE_SIZE) as usize
    }

    pub fn get(&self, table: Hpa) -> &[u64; ENTRIES] {
        self.frames[Self::index(table)].as_ref().expect("a frame in use")
    }
}

impl TableMemory for Frames {
    fn allocate(&mut self) -> Option<Hpa> {
        if self.used() >= self.limit.get() {
            return None;
        }
        let index = self.frames.iter().position(Option::is_none).unwrap_or_else(|| {
            self.frames.push(None);
            self.frames.len() - 1
        });
        self.frames[index] = Some([0; ENTRIES]);
        Some(REGION.start + index as u64 * PAGE_SIZE)
    }

    fn free(&mut self, table: Table) {
        let frame = &mut self.frames[Self::index(table.address())];
        assert!(frame.take().is_some(), "{table:?} is freed twice");
    }

    fn read(&self, table: Table, index: usize) -> u64 {
        self.get(table.address())[index]
    }

    fn write(&mut self, table: Table, index: usize, entry: u64) {
        let frame = &mut self.frames[Self::index(table.address())];
        frame.as_mut().expect("a frame in use")[index] = entry;
    }
}

/// A page that the second stage maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    pub gpa: Gpa,
    pub hpa: Hpa,
    pub size: PageSize,
    pub memory_type: MemoryType,
}

static OPEN: DmaGuard = DmaGuard::open(DmaState::NoIommu, 0);

/// A CPU and its machine.
pub struct Bench {
    pub cpu: FakeCpu,
    pub machine: Machine<FakeCpu, Frames>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with_others(&[], Startup::Hardware(()))
    }

    /// Returns a bench with further CPUs that have these APIC IDs.
    pub fn with_others(others: &[u32], startup: Startup<()>) -> Self {
        let mut cpu = FakeCpu::new();
        let block = |(id, index)| &*Box::leak(Box::new(PerCpu::new(index, id)));
        let others = others.iter().copied().zip(1..).map(block);
        let cpus: &[&PerCpu] = std::iter::once(cpu.percpu).chain(others).collect::<Vec<_>>().leak();
        let emulated = startup.is_emulated();
        let watched = emulated.then_some(APIC);
        let msrs = if emulated { [MSRS, &[STARTUP]].concat().leak() } else { MSRS };
        let mtrrs = Mtrrs::read(PHYSICAL_ADDRESS_BITS, |index| cpu.rdmsr(index).unwrap_or(0));
        let hidden: RangeSet = [REGION].into();
        let identity = Identity {
            mtrrs,
            hidden: hidden.clone(),
            watched,
            moved: None,
            locks: Locks::default(),
            alias: 0,
        };
        let frames = Frames { frames: Vec::new(), limit: Cell::new(usize::MAX) };
        let ram = RAM.into_iter().collect();
        let memory =
            GuestMemory::new(frames, PageSize::Size1G, identity, ram, cpus.len() > 1).expect("frames enough");
        let mapped = RAM.into_iter().collect();
        let guest = Ram(View {
            mapped,
            hidden,
            moved: None,
            decoy: memory.decoy(),
            physical_address_bits: PHYSICAL_ADDRESS_BITS,
            alias: 0,
        });
        let machine = Machine {
            host: Host {
                kept: &[REGION],
                lent: Hpa(0)..Hpa(0),
                vendor: Vendor::Vmx,
                commit: None,
                cpus,
                guard: Some(Refusals::default()),
                log: |position, buffer| {
                    buffer[..2].copy_from_slice(b"ok");
                    (position, 2)
                },
                last_log: |position, _| (position, 0),
                record: Hpa(0)..Hpa(0),
                dma: &OPEN,
            },
            wanted: Wanted::default(),
            cpuid: Policy { features: Features::all(), hypervisor_bit: true, narrower: 0 },
            guard: Guard::Off,
            kernel: Box::leak(Box::new(KnownKernel::default())),
            locked: Locked::default(),
            msrs,
            startup,
            replaced: (startup == Startup::Landing).then_some(LANDING),
            watched,
            efer_allowed: EFER_ALLOWED,
            kept_pin: None,
            ram: RangeSet::new(),
            physical_address_bits: PHYSICAL_ADDRESS_BITS,
            memory: Mutex::new(memory),
            touch_reported: AtomicBool::new(false),
            load_microcode,
            fill_reported: AtomicBool::new(false),
            host_root: HOST_ROOT,
            guest: Box::leak(Box::new(guest)),
        };
        Self { cpu, machine }
    }

    /// Returns a bench with these registers, and with 1 in all others.
    pub fn with(registers: &[(Register, u64)]) -> Self {
        let mut bench = Self::new();
        Register::ALL.iter().for_each(|register| bench.cpu.registers.set(*register, u64::MAX));
        registers.iter().for_each(|(register, value)| bench.cpu.registers.set(*register, *value));
        bench
    }

    /// Handles `exit`, and returns the outcome and what was done to the CPU before it is applied.
    pub fn answer(&mut self, exit: Exit) -> (Outcome, Vec<Action>) {
        let outcome = run::answer(&mut self.cpu, &self.machine, &exit);
        (outcome, std::mem::take(&mut self.cpu.did))
    }

    /// Runs the loop through `exits`, and returns how it ended and what was done to the CPU.
    pub fn run(&mut self, exits: &[Exit]) -> ((Stop, Exit), Vec<Action>) {
        self.run_observed(exits, &mut Unobserved)
    }

    /// Runs the loop as [`Bench::run`] does, and tells `observer`.
    pub fn run_observed(
        &mut self,
        exits: &[Exit],
        observer: &mut impl Observer<FakeCpu>,
    ) -> ((Stop, Exit), Vec<Action>) {
        self.cpu.script = exits.iter().copied().collect();
        let end = run::run(&mut self.cpu, &self.machine, observer);
        (end, std::mem::take(&mut self.cpu.did))
    }

    /// Returns the register's value.
    pub fn get(&self, register: Register) -> u64 {
        self.cpu.registers.get(register)
    }

    /// Asks the frames a question.
    pub fn frames<R>(&self, ask: impl FnOnce(&Frames) -> R) -> R {
        ask(self.machine.memory.lock().tables())
    }

    /// Returns all pages that are mapped, found by a walk of the test's own. A table to which several entries lead
    /// counts once.
    pub fn pages(&self) -> Vec<Page> {
        struct Walk<'a>(&'a Frames, BTreeSet<Hpa>, Vec<Page>);
        fn walk(state: &mut Walk<'_>, table: Hpa, level: Level, base: u64) {
            if !state.1.insert(table) {
                return;
            }
            let shift = level.page_size().map_or(39, PageSize::shift);
            for (gpa, &entry) in (base..).step_by(1 << shift).zip(state.0.get(table)) {
                match (Ept::is_present(entry), level.page_size(), level.below()) {
                    (false, ..) => {}
                    (true, Some(size), _) if Ept::is_leaf(entry, level) => {
                        let (hpa, memory_type) = (Ept::address(entry), Ept::memory_type(entry, size));
                        state.2.push(Page { gpa: Gpa(gpa), hpa, size, memory_type });
                    }
                    (true, _, Some(below)) => walk(state, Ept::address(entry), below, gpa),
                    (true, _, None) => panic!("a page table points to a table"),
                }
            }
        }
        let memory = self.machine.memory.lock();
        let mut state = Walk(memory.tables(), BTreeSet::new(), Vec::new());
        walk(&mut state, memory.root(), Level::Pml4, 0);
        state.2
    }

    /// Returns the address to which `gpa` is translated, and its memory type.
    pub fn translate(&self, gpa: Gpa) -> Option<(Hpa, MemoryType)> {
        let memory = self.machine.memory.lock();
        let (mut table, mut level) = (memory.root(), Level::Pml4);
        loop {
            let entry = memory.tables().get(table)[level.index(gpa)];
            if !Ept::is_present(entry) {
                return None;
            }
            if Ept::is_leaf(entry, level) {
                let size = level.page_size().expect("a page in the root");
                let page = Ept::address(entry) + gpa.0 % size.bytes();
                return Some((page, Ept::memory_type(entry, size)));
            }
            table = Ept::address(entry);
            level = level.below().expect("a table below the last level");
        }
    }

    /// Returns the page that the guest sees in place of Vidar's memory.
    pub fn decoy(&self) -> Hpa {
        self.machine.memory.lock().decoy()
    }
}

/// Returns the content of RAM: page-directory-pointer-table entries, of which every second table is valid.
pub fn pdptes_at(table: Gpa) -> [u64; 4] {
    let reserved = if table.0 & 0x20 == 0 { 0 } else { 1 << 1 };
    [0x1001, 0xffff_ffff_ffff_fffe, 0x2019 | reserved, 0]
}

/// The address of the guest's next instruction.
pub const CODE: u64 = 0x1_0000;

/// The guest's memory: an instruction, and tables in the rest of RAM. Outside of RAM, nothing answers on the bus.
struct Ram(View);

impl ReadGuest for Ram {
    fn word(&self, address: Gpa) -> Option<u64> {
        let ram: RangeSet = RAM.into_iter().collect();
        if !ram.covers(&(address.identity()..address.identity() + 8)) {
            return (address.0 < 1 << PHYSICAL_ADDRESS_BITS).then_some(u64::MAX);
        }
        if (CODE..CODE + 16).contains(&address.0) {
            return INSTRUCTION.with_borrow(|bytes| {
                bytes.as_chunks().0.get((address.0 - CODE) as usize / 8).map(|word| u64::from_le_bytes(*word))
            });
        }
        let table = address.align_down(32);
        Some(pdptes_at(table)[(address.0 - table.0) as usize / 8])
    }

    fn page(&self, address: Gpa) -> Option<Hpa> {
        self.0.page(address)
    }
}

/// A microcode update that was loaded: the MSR, the offset of its address in the page, and the pages.
pub type Loaded = (u32, u64, Vec<Hpa>);

/// Loads an update into the simulated CPU, which accepts it if it has at least two pages and does not begin in Vidar's
/// region.
fn load_microcode(update: MicrocodeUpdate<'_>) -> Result<(), Fault> {
    let pages: Vec<_> = update.pages.collect();
    let takes = pages.len() > 1 && !REGION.contains(&pages[0]);
    LOADED.with_borrow_mut(|loaded| loaded.push((update.loader.index(), update.offset, pages)));
    if takes { Ok(()) } else { Err(Fault) }
}

thread_local! {
    /// Returns the updates that this thread has loaded.
    pub static LOADED: RefCell<Vec<Loaded>> = const { RefCell::new(Vec::new()) };
    /// Returns the bytes of the guest's next instruction.
    pub static INSTRUCTION: RefCell<[u8; 16]> = const { RefCell::new([0; 16]) };
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Returns the warnings and errors that this thread has logged since the last call.
pub fn warnings() -> Vec<String> {
    struct Logger;
    impl log::Log for Logger {
        fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
            metadata.level() <= log::Level::Warn
        }
        fn log(&self, record: &log::Record<'_>) {
            if self.enabled(record.metadata()) {
                WARNINGS.with_borrow_mut(|warnings| warnings.push(record.args().to_string()));
            }
        }
        fn flush(&self) {}
    }
    static START: Once = Once::new();
    START.call_once(|| {
        log::set_logger(&Logger).expect("no other logger");
        log::set_max_level(log::LevelFilter::Warn);
    });
    WARNINGS.take()
}
