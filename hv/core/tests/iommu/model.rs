//! A model of a remapping unit: its registers, its invalidation queue, and what it writes to memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vidar_core::iommu::capability::Capability;
use vidar_core::iommu::register::{
    CAP, ECAP, FSTS, GCMD, GSTS, IQA, IQH, IQT, OVERFLOW, QUEUE, QUEUE_ERRORS, RTADDR, SET_INTERRUPTS,
    SET_ROOT, TRANSLATION,
};
use vidar_core::iommu::unit::{Hardware, SLOTS};
use vidar_core::mem::addr::Hpa;

/// The unit of QEMU's machine q35 with `aw-bits=48`.
pub const QEMU: Capability = Capability { cap: 0x00d2_008c_222f_0686, ecap: 0xf00_f4a | 1 << 4 };
/// Where Vidar's own queue lies.
pub const OWN_QUEUE: u64 = 0x3f_0000;
const PROGRESS: u64 = OWN_QUEUE + 0x1000;

/// What the unit holds.
#[derive(Default)]
pub struct State {
    pub registers: BTreeMap<usize, u32>,
    /// What the unit has written to memory.
    pub memory: BTreeMap<u64, u32>,
    /// What was done to the unit, and in which order: bits of GCMD that have changed, and types of descriptors.
    pub log: Vec<String>,
    queue: BTreeMap<usize, [u64; 2]>,
    head: usize,
    /// A command that the unit does not obey.
    pub deaf: u32,
    /// The unit executes nothing of its queue for now.
    pub slow: bool,
    /// How many times a register was read.
    pub reads: usize,
}

impl State {
    pub fn get(&self, offset: usize) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn both(&self, offset: usize) -> u64 {
        u64::from(self.get(offset)) | u64::from(self.get(offset + 4)) << 32
    }

    fn command(&mut self, value: u32) {
        let before = self.get(GSTS);
        let one_shot = (SET_ROOT | SET_INTERRUPTS) & (before | value);
        let after = (value & !(SET_ROOT | SET_INTERRUPTS) | one_shot) & !self.deaf | before & self.deaf;
        if value & SET_ROOT != 0 {
            self.log.push(format!("root {:#x}", self.both(RTADDR)));
        }
        self.registers.insert(GSTS, after);
        if (before ^ after) & TRANSLATION != 0 {
            self.log.push(format!("translation {}", after & TRANSLATION != 0));
        }
        if (before ^ after) & QUEUE != 0 {
            let cut = after & QUEUE == 0 && self.get(IQH) != self.get(IQT);
            self.log.push(format!(
                "queue {}{}",
                after & QUEUE != 0,
                if cut { ", with work left" } else { "" }
            ));
            self.head = 0;
            self.registers.insert(IQH, 0);
            self.run();
        }
    }

    /// Executes what is in the queue.
    pub fn catch_up(&mut self) {
        self.slow = false;
        self.run();
    }

    fn run(&mut self) {
        let ready = !self.slow && self.get(GSTS) & QUEUE != 0 && self.get(FSTS) & QUEUE_ERRORS == 0;
        while ready && self.head * 16 != self.get(IQT) as usize {
            assert_eq!(self.both(IQA), OWN_QUEUE, "the queue is Vidar's");
            let [low, high] = self.queue[&self.head];
            self.head = (self.head + 1) % SLOTS;
            self.registers.insert(IQH, self.head as u32 * 16);
            if low & 0xf == 5 {
                if low & 1 << 5 != 0 {
                    self.memory.insert(high, (low >> 32) as u32);
                }
                if high != PROGRESS {
                    self.log.push("wait".into());
                }
            } else {
                self.log.push(format!("invalidate {}", low & 0xf));
            }
        }
    }
}

/// The unit as Vidar reaches it.
#[derive(Clone)]
pub struct Model(pub Arc<Mutex<State>>);

impl Model {
    pub fn new(capability: Capability) -> Self {
        let mut state = State::default();
        for (at, value) in [(CAP, capability.cap), (ECAP, capability.ecap)] {
            state.registers.insert(at, value as u32);
            state.registers.insert(at + 4, (value >> 32) as u32);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.state().log)
    }
}

impl Hardware for Model {
    fn read(&mut self, offset: usize) -> u32 {
        let mut state = self.state();
        let value = state.get(offset);
        state.reads += 1;
        // Firmware's queue is executed in time.
        if offset == IQH && value != state.get(IQT) && !state.slow {
            state.registers.insert(IQH, value + 16);
        }
        value
    }

    fn write(&mut self, offset: usize, value: u32) {
        let mut state = self.state();
        match offset {
            GCMD => return state.command(value),
            // A unit without a queue ends each invalidation at once.
            0x2c | 0xfc => {
                state.log.push(format!("invalidate by register {offset:#x}"));
                return;
            }
            FSTS => {
                let rest = state.get(FSTS) & !(value & (OVERFLOW | QUEUE_ERRORS));
                state.registers.insert(FSTS, rest)
            }
            _ => state.registers.insert(offset, value),
        };
        if offset == IQT {
            state.run();
        }
    }

    fn queue(&self) -> Hpa {
        Hpa(OWN_QUEUE)
    }

    fn put(&mut self, slot: usize, descriptor: [u64; 2]) {
        self.state().queue.insert(slot, descriptor);
    }

    fn progress_at(&self) -> Hpa {
        Hpa(PROGRESS)
    }

    fn progress(&mut self) -> u32 {
        self.state().memory.get(&PROGRESS).copied().unwrap_or(0)
    }
}
