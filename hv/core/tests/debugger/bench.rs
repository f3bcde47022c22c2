//! A line to gdb, a page of memory and some CPUs for the debugger.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::thread;
use std::time::{Duration, Instant};

use spin::Mutex;
use vidar_abi::{ExitKind, Record};
use vidar_core::debugger::cpus::{self, Cpus, Reason, Run};
use vidar_core::debugger::desk::{Desk, Line, Resumed};
use vidar_core::debugger::memory::Memory;
use vidar_core::debugger::monitor::Surroundings;
use vidar_core::debugger::registers::RegisterFile;
use vidar_core::debugger::session::Session;
use vidar_core::debugger::structure::Layout;
use vidar_core::debugger::target::Guest;
use vidar_core::mem::addr::{Gpa, Hpa, PageSize};
use vidar_core::mem::mtrr::MemoryType;
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::trace::ring::{Ring, Slot};
use vidar_core::trace::writer::Writer;
use vidar_core::vmm::percpu::PerCpu;

use crate::counting;

/// The time after which an answer is taken to be missing.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A line whose other end is the test.
#[derive(Default)]
pub struct Wire {
    to_vidar: StdMutex<VecDeque<u8>>,
    to_gdb: StdMutex<Vec<u8>>,
    pub calls: AtomicU32,
    listens: AtomicBool,
}

impl Line for Wire {
    fn listen(&self) {
        self.listens.store(true, Ordering::SeqCst);
    }

    fn silence(&self) {
        self.listens.store(false, Ordering::SeqCst);
    }

    fn listens(&self) -> bool {
        self.listens.load(Ordering::SeqCst)
    }

    fn is_ready(&self) -> bool {
        !self.to_vidar.lock().unwrap().is_empty()
    }

    fn rings(&self) -> bool {
        self.is_ready() || !self.listens()
    }

    fn receive(&self) -> Option<u8> {
        self.to_vidar.lock().unwrap().pop_front()
    }

    /// In what comes from Vidar, a star and a character c stand for c - 29 more of what is before the star.
    fn send(&self, byte: u8) {
        counting::uncounted(|| {
            let mut said = self.to_gdb.lock().unwrap();
            if said.last() == Some(&b'*') {
                said.pop();
                let repeated = *said.last().unwrap();
                said.extend(std::iter::repeat_n(repeated, usize::from(byte) - 29));
            } else {
                said.push(byte);
            }
        });
    }

    fn call(&self, index: usize) {
        self.calls.fetch_or(1 << index, Ordering::SeqCst);
    }
}

impl Wire {
    /// Sends a packet with its checksum.
    pub fn ask(&self, contents: &str) {
        let sum = contents.bytes().fold(0u8, u8::wrapping_add);
        self.type_raw(format!("${contents}#{sum:02x}").as_bytes());
    }

    pub fn type_raw(&self, bytes: &[u8]) {
        self.to_vidar.lock().unwrap().extend(bytes);
    }

    /// Waits until Vidar has said `wanted`, and returns what it has said before it.
    pub fn hear(&self, wanted: &str) -> String {
        let begun = Instant::now();
        loop {
            assert!(
                begun.elapsed() < PATIENCE,
                "no {wanted:?} in {:?}",
                self.to_gdb.lock().unwrap().escape_ascii()
            );
            let mut said = self.to_gdb.lock().unwrap();
            let text = String::from_utf8_lossy(&said).into_owned();
            if let Some(at) = text.find(wanted) {
                said.drain(..at + wanted.len());
                return text[..at].to_owned();
            }
            drop(said);
            thread::yield_now();
        }
    }
}

/// One page of memory at address 0. The guests of these tests have no paging.
pub struct Page(pub StdMutex<[u8; 64]>);

impl ReadGuest for Page {
    fn word(&self, address: Gpa) -> Option<u64> {
        let bytes = self.0.lock().unwrap();
        let word = bytes.get(address.0 as usize..)?.get(..8)?;
        Some(u64::from_le_bytes(word.try_into().unwrap()))
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}

impl Memory for Page {
    fn put(&self, address: Gpa, byte: u8) -> bool {
        self.0.lock().unwrap().get_mut(address.0 as usize).map(|place| *place = byte).is_some()
    }
}

pub struct Nothing(pub AtomicBool);

impl Surroundings for Nothing {
    fn cpus(&self) -> &'static [&'static PerCpu] {
        let cpus = [0, 1].map(|index| {
            let cpu: &PerCpu = Box::leak(Box::new(PerCpu::new(index, 0)));
            let slots = std::iter::repeat_with(Slot::empty).take(64).collect::<Vec<_>>().leak();
            let ring: &Ring = Box::leak(Box::new(Ring::new(slots)));
            cpu.trace.call_once(|| ring);
            cpu
        });
        let mut writer = Writer::new(cpus[0].trace.get().unwrap());
        writer.end(0);
        for tsc in 1..4 {
            writer.begin_record(&Record { tsc, rip: 0x1000, ticks: 0, kind: ExitKind::Cpuid, detail: 1 });
            writer.end(9);
        }
        Box::leak(Box::new(cpus))
    }

    fn layout(&self) -> Layout {
        Layout { name: "VMCS", field: |number| ["GUEST_RIP", "GUEST_PKRS", "HOST_RIP"].get(number).copied() }
    }

    fn log(&self, position: u64, buffer: &mut [u8]) -> (u64, usize) {
        let text = b"vidar: hello\n";
        let rest = &text[(position as usize).min(text.len())..];
        buffer[..rest.len()].copy_from_slice(rest);
        (position, rest.len())
    }

    fn second_stage(&self, address: Gpa) -> Option<(Hpa, PageSize, MemoryType)> {
        Some((address.identity(), PageSize::Size2M, MemoryType::WriteBack))
    }

    fn reset(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

pub struct Bench {
    pub wire: &'static Wire,
    pub page: &'static Page,
    pub around: &'static Nothing,
    pub desk: Arc<Desk>,
    pub slots: &'static [Mutex<cpus::Slot>],
}

impl Bench {
    pub fn with_cpus(count: usize) -> Self {
        let wire: &'static Wire = Box::leak(Box::default());
        let page: &'static Page = Box::leak(Box::new(Page(StdMutex::new([0x90; 64]))));
        let around: &'static Nothing = Box::leak(Box::new(Nothing(AtomicBool::new(false))));
        let running = || Mutex::new(cpus::Slot { run: Run::Running, ..cpus::Slot::default() });
        let slots: &'static [Mutex<cpus::Slot>] = (0..count).map(|_| running()).collect::<Vec<_>>().leak();
        let desk =
            Arc::new(Desk::new(Session::new(Guest::new(Cpus(slots), page, RangeSet::new(), around)), wire));
        Self { wire, page, around, desk, slots }
    }

    /// Returns a bench with one CPU, which has stopped at its first instruction, at 0x10, and waits for gdb, which has
    /// connected.
    pub fn connected() -> (Self, thread::JoinHandle<Resumed>) {
        let bench = Self::with_cpus(1);
        let cpu = bench.stop(0, 0x10, Some(Reason::Start));
        bench.connect();
        (bench, cpu)
    }

    /// Stops a CPU for `reason`, in a thread of its own.
    pub fn stop(&self, index: usize, rip: u64, reason: Option<Reason>) -> thread::JoinHandle<Resumed> {
        let desk = Arc::clone(&self.desk);
        let mut registers = RegisterFile::default();
        registers.state.rip = rip;
        let field = move |number| [Some(rip), None, Some(0xfe)].get(number).copied().flatten();
        thread::spawn(move || desk.stop(index, registers, reason, &field))
    }

    /// Connects, and waits for the answer.
    pub fn connect(&self) {
        self.wire.ask("qSupported:swbreak+;hwbreak+");
        let features = self.wire.hear("#");
        for feature in ["swbreak+", "hwbreak+", "qXfer:features:read+", "vContSupported+"] {
            assert!(features.contains(feature), "{features}");
        }
    }
}
