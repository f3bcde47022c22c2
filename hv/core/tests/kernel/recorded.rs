//! Excerpts of the memory of Debian's kernels, in which the tables are as the kernel's own tools have written them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;
use vidar_core::kernel::Kernel;
use vidar_core::kernel::chain::{End, MAX_FRAMES};
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use vidar_core::mem::ranges::RangeSet;
use vidar_core::mem::walk::ReadGuest;
use vidar_core::vmm::cpu_state::{CpuState, SegmentRegister};
use vidar_core::x86::registers::Register;

const RECORDS: [(&str, &str); 3] = [
    ("6.1.0-56-cloud-amd64", include_str!("recorded/6.1.txt")),
    ("6.12.117+deb13-cloud-amd64", include_str!("recorded/6.12.txt")),
    ("7.2.13+deb14-cloud-amd64", include_str!("recorded/7.2.txt")),
];

/// The words that were recorded.
struct Words(BTreeMap<u64, u64>);

impl ReadGuest for Words {
    fn word(&self, address: Gpa) -> Option<u64> {
        self.0.get(&address.0).copied()
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}

/// A record.
struct Record {
    words: Words,
    cpu: CpuState,
    /// The page of the note, which is all that is searched.
    ram: RangeSet,
    frames: Vec<&'static str>,
    log: Vec<&'static str>,
}

fn hexadecimal(text: &str) -> u64 {
    u64::from_str_radix(text, 16).expect(text)
}

fn read(text: &'static str) -> Record {
    let mut cpu = CpuState::default();
    cpu.controls.cr0 = 1 << 31 | 1;
    cpu.controls.efer = 1 << 10 | 1 << 8;
    cpu.controls.cs_l = true;
    cpu[SegmentRegister::Cs].selector = 0x10;
    let mut record = Record {
        words: Words(BTreeMap::new()),
        cpu,
        ram: RangeSet::new(),
        frames: Vec::new(),
        log: Vec::new(),
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(' ').expect(line);
        let cpu = &mut record.cpu;
        match key {
            "frame" => record.frames.push(value),
            "log" => record.log.push(value),
            "note" => record.ram.insert(Hpa(hexadecimal(value))..Hpa(hexadecimal(value) + PAGE_SIZE)),
            "rip" => cpu.rip = hexadecimal(value),
            "rsp" => cpu.registers.set(Register::Rsp, hexadecimal(value)),
            "rbp" => cpu.registers.set(Register::Rbp, hexadecimal(value)),
            "cr3" => cpu.controls.cr3 = hexadecimal(value),
            "cr4" => cpu.controls.cr4 = hexadecimal(value),
            address => {
                let places = (hexadecimal(address)..).step_by(8);
                record.words.0.extend(places.zip(value.split(' ').map(hexadecimal)));
            }
        }
    }
    record
}

#[test]
fn chains_are_those_that_the_kernels_print() {
    for (release, text) in RECORDS {
        let Record { words, cpu, ram, frames, .. } = read(text);
        let kernel = Kernel::find_running(&words, &ram, &cpu.controls).expect(release);
        assert_eq!(kernel.release(), release);
        let mut chain = Vec::new();
        let end = kernel.chain(&words, &cpu, &mut |frame| {
            chain.push(match kernel.function(&words, frame) {
                Some((name, distance)) => format!("{name}+{distance:#x}"),
                None => format!("{:x}", frame.address),
            });
        });
        assert_eq!((chain, end), (frames.iter().map(ToString::to_string).collect(), End::User), "{release}");
    }
}

#[test]
fn last_lines_are_those_of_the_console() {
    for (release, text) in RECORDS {
        let Record { words, cpu, ram, log, .. } = read(text);
        let kernel = Kernel::find_running(&words, &ram, &cpu.controls).expect(release);
        let mut lines = Vec::new();
        kernel.log(&words, log.len(), &mut |line| lines.push(String::from_utf8_lossy(line).into_owned()));
        assert_eq!(lines, log, "{release}");
    }
}

#[test]
fn panic_is_found_by_its_name() {
    for (release, text) in RECORDS {
        let Record { words, cpu, ram, .. } = read(text);
        let kernel = Kernel::find_running(&words, &ram, &cpu.controls).expect(release);
        let address = kernel.address(&words, "panic").expect(release);
        let (name, distance) = kernel.symbol(&words, address).expect(release);
        assert_eq!((name.as_str(), distance), ("panic", 0), "{release}");
    }
}

proptest! {
    /// Damage anywhere ends in fewer answers, and neither in a panic nor in an endless loop.
    #[test]
    fn damaged_tables_have_an_end(
        record in prop::sample::select(&RECORDS[..]),
        damage in prop::collection::vec((any::<Index>(), 0u32..8, prop_oneof![any::<u64>(), 0u64..300, Just(u64::MAX)]), 1..8),
    ) {
        let Record { mut words, cpu, ram, log, .. } = read(record.1);
        for (at, byte, new) in &damage {
            let word = words.0.values_mut().nth(at.index(1000)).expect("more words than that");
            let mask = 0xffff_ffff << (byte * 8);
            *word = *word & !mask | new << (byte * 8) & mask;
        }
        if let Some(kernel) = Kernel::find(&words, &ram) {
            let mut frames = 0;
            kernel.chain(&words, &cpu, &mut |frame| {
                frames += 1;
                kernel.function(&words, frame);
            });
            prop_assert!((1..=MAX_FRAMES + 1).contains(&frames));
            let mut lines = 0;
            kernel.log(&words, log.len(), &mut |_| lines += 1);
            prop_assert!(lines <= log.len());
            kernel.address(&words, "panic");
        }
    }
}
