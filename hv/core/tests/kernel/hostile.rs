//! Memory that is as bad as it can be: every count is at its limit, and every read succeeds.

use std::cell::Cell;
use std::ops::Range;

use vidar_core::kernel::Kernel;
use vidar_core::kernel::chain::MAX_FRAMES;
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::x86::registers::Register;

use crate::cpu;
use crate::kernel_image::memory::Memory;
use crate::kernel_image::{ERAS, STACK, STACK_AT, SYMBOLS, build, function, in_image};

/// Memory that has `word` at each address of a range, and wherever the other has nothing.
struct Endless {
    memory: Memory,
    word: u64,
    range: Range<u64>,
    reads: Cell<u64>,
}

impl Endless {
    fn new(memory: Memory, word: u64, range: Range<u64>) -> Self {
        Self { memory, word, range, reads: Cell::new(0) }
    }
}

impl ReadGuest for Endless {
    fn word(&self, address: Gpa) -> Option<u64> {
        self.reads.set(self.reads.get() + 1);
        let memory = || self.memory.word(address);
        (!self.range.contains(&address.0)).then(memory).flatten().or(Some(self.word))
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}

#[test]
fn chains_and_lines_have_a_bound() {
    for word in [0, u64::MAX, 0x0101_0101_0101_0101, 0x4141_4141_4141_4141, STACK] {
        let era = &ERAS[3];
        let memory = Endless::new(build(era), word, STACK_AT..SYMBOLS);
        let kernel = Kernel::find(&memory, &memory.memory.ram()).unwrap();
        let mut cpu = cpu(era);
        cpu.rip = function("leaf");
        cpu.registers.set(Register::Rsp, STACK);
        memory.reads.set(0);
        let mut frames = 0;
        kernel.chain(&memory, &cpu, &mut |_| frames += 1);
        kernel.log(&memory, usize::MAX, &mut |_| ());
        let reads = memory.reads.get();
        assert!(frames <= MAX_FRAMES + 1 && reads < 100_000, "{reads} reads, {frames} frames");
    }
}

/// Returns a guest with this many symbols, whose names are where nothing but `word` is.
fn names_without_end(count: u32, word: u64) -> Endless {
    let mut memory = build(&ERAS[3]);
    memory.write(SYMBOLS, &count.to_le_bytes());
    let key = b"SYMBOL(kallsyms_names)=";
    let at = memory.bytes.windows(key.len()).position(|part| part == key).unwrap() + key.len();
    memory.write(at as u64, format!("{:x}", in_image(0x10_0000)).as_bytes());
    Endless::new(memory, word, 0..0)
}

#[test]
fn names_without_end_have_a_bound() {
    // Each name has 1, 16 or 65 tokens.
    const COUNT: u32 = 1 << 14;
    let most = 40 * u64::from(COUNT);
    for word in [0x0101_0101_0101_0101, 0x1010_1010_1010_1010, 0x4141_4141_4141_4141] {
        let memory = names_without_end(COUNT, word);
        let kernel = Kernel::find(&memory, &memory.memory.ram()).unwrap();
        assert!(kernel.has_symbols());
        let reads = memory.reads.take();
        assert!(reads < most, "{reads} reads to find the kernel");
        assert_eq!(kernel.address(&memory, "panic"), None);
        let reads = memory.reads.take();
        assert!(reads < most, "{reads} reads for a name");
        kernel.symbol(&memory, function("leaf"));
        let reads = memory.reads.take();
        assert!(reads < most / 10, "{reads} reads for an address");
    }
}

#[test]
fn more_symbols_than_any_kernel_has_are_none() {
    let has_symbols = |count, word| {
        let memory = names_without_end(count, word);
        Kernel::find(&memory, &memory.memory.ram()).unwrap().has_symbols()
    };
    assert!(has_symbols(1, 0x0101_0101_0101_0101));
    for count in [0, (1 << 20) + 1, u32::MAX] {
        assert!(!has_symbols(count, 0x0101_0101_0101_0101), "{count}");
    }
    // A name has at least one token, and at most 512.
    assert!(!has_symbols(100, 0) && !has_symbols(100, u64::MAX));
}

#[test]
fn search_for_the_note_has_a_bound() {
    // Each page looks like a note with the longest text, but none is a kernel's.
    struct Notes(Cell<u64>);
    impl ReadGuest for Notes {
        fn word(&self, address: Gpa) -> Option<u64> {
            self.0.set(self.0.get() + 1);
            Some(match address.0 % 4096 {
                0 => 11 | 4096 << 32,
                8 => u64::from_le_bytes(*b"\0\0\0\0VMCO"),
                16 => u64::from_le_bytes(*b"REINFO\0\0"),
                _ => u64::from_le_bytes(*b"A=1\nB=2\n"),
            })
        }

        fn page(&self, _: Gpa) -> Option<Hpa> {
            None
        }
    }
    let notes = Notes(Cell::new(0));
    let everything = RangeSet::from([Hpa(0)..Hpa(u64::MAX)]);
    assert!(Kernel::find(&notes, &everything).is_none());
    assert!(notes.0.get() < 200_000, "{} reads", notes.0.get());

    // Where there is no note at all, the search stops after 64 GiB.
    let memory = Endless::new(Memory::new(0x1000), 0, 0..0);
    assert!(Kernel::find(&memory, &everything).is_none());
    assert!(memory.reads.get() <= 16 << 20, "{} reads", memory.reads.get());
}
