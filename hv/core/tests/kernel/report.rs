//! What a crash report says with the help of the kernel.

use std::cell::Cell;
use std::fmt::{Arguments, Write};

use vidar_core::console::wrap::{WIDTH, Wrapped};
use vidar_core::kernel::Kernel;
use vidar_core::kernel::known::KnownKernel;
use vidar_core::mem::addr::{Gpa, Hpa};
use vidar_core::mem::walk::ReadGuest;
use vidar_core::policy::control::Controls;
use vidar_core::report::names::{Names, Room, Sink};
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::vmm::guard::kernel::Guest;
use vidar_core::vmm::guard::names;
use vidar_core::x86::registers::Register;

use crate::kernel_image::log::Log;
use crate::kernel_image::memory::Memory;
use crate::kernel_image::{ERAS, Era, NAMED, STACK, STACK_AT, function};
use crate::{cpu, kernel};

/// The serial line, and the screen, which scrolls.
#[derive(Default)]
struct Consoles {
    serial: String,
    screen: String,
    hidden: bool,
    /// Where the main part begins on the serial line.
    main: Option<usize>,
}

impl Sink for Consoles {
    fn write(&mut self, record: Arguments<'_>) {
        let mut text = String::new();
        writeln!(Wrapped::new(&mut text), "vidar: error: {record}").unwrap();
        self.serial += &text;
        if !self.hidden {
            self.screen += &text;
        }
    }

    fn show(&mut self, on_screen: bool) {
        self.hidden = !on_screen;
    }

    fn begin_main(&mut self) {
        assert_eq!(self.main.replace(self.serial.len()), None);
    }
}

/// Returns the report on CPU 0 in the state `this`, and on CPU 1 in the state `other`, for a screen of 25 rows.
fn report(memory: &Memory, kernel: &Kernel, this: &CpuState, other: Option<&CpuState>) -> Consoles {
    let mut consoles = Consoles::default();
    let others = other.into_iter().map(|state| (1, state));
    Names { kernel, memory }.write(&mut consoles, (0, this), others, Room::on(25));
    assert!(!consoles.hidden, "the screen has to show what follows");
    let main = &consoles.serial[consoles.main.expect("a report on a kernel has a main part")..];
    assert!(main.starts_with("vidar: error: functions of CPU 0, the innermost first:\n"), "{main}");
    consoles
}

/// Returns the kernel, and a CPU that is in `name` and has `callers` on its stack.
fn called(era: &Era, name: &str, callers: &[&str]) -> (Memory, Kernel, CpuState) {
    let (mut memory, kernel) = kernel(era);
    let mut cpu = cpu(era);
    cpu.rip = function(name) + 4;
    cpu.registers.set(Register::Rsp, STACK);
    for (at, caller) in (0..).step_by(8).zip(callers) {
        memory.set(STACK_AT + at, function(caller) + 0x20);
    }
    (memory, kernel, cpu)
}

#[test]
fn functions_have_names_and_distances() {
    for era in NAMED {
        let (memory, kernel, cpu) = called(era, "panic", &["sys_write", "ret_from_fork"]);
        let mut other = cpu;
        (other.rip, other.controls.efer) = (0x1234, 0);
        let Consoles { serial, .. } = report(&memory, &kernel, &cpu, Some(&other));
        let at = |name, distance| format!("\n  {:016x} {name}+{distance:#x}", function(name) + distance);
        let chain = format!(
            "functions of CPU 0, the innermost first:{}{}{}\n  (the end of the stack)\n",
            at("panic", 4),
            at("sys_write", 0x20),
            at("ret_from_fork", 0x20)
        );
        assert!(serial.ends_with(&chain), "{serial}");
        assert!(
            serial.contains(
                "functions of CPU 1, the innermost first:\n  0000000000001234\n  (the CPU is not in"
            ),
            "{serial}"
        );
        let lines = "  [    0.000000] Linux version\n  [    1.234567] two\n  [    1.234567] lines\n";
        let heading = format!("the last lines of the log of Linux {}:\n", era.release);
        assert!(serial.contains(&format!("{heading}{lines}")), "{serial}");
        assert_eq!(Names { kernel: &kernel, memory: &memory }.place(cpu.rip).to_string(), "panic+0x4");
    }
}

/// Memory that counts the searches through it, by how often the word is read with which a search begins.
struct Counting<'a>(&'a Memory, Cell<u32>);

impl ReadGuest for Counting<'_> {
    fn word(&self, address: Gpa) -> Option<u64> {
        self.1.set(self.1.get() + u32::from(address == Gpa(8)));
        self.0.word(address)
    }

    fn page(&self, frame: Gpa) -> Option<Hpa> {
        self.0.page(frame)
    }
}

#[test]
fn a_search_that_finds_no_kernel_is_repeated_more_and_more_seldom() {
    let era = &NAMED[0];
    let (memory, _) = kernel(era);
    let ram = memory.ram();
    let memory = Counting(&memory, Cell::new(0));
    let known = KnownKernel::default();
    let guest = Guest { memory: &memory, ram: &ram };
    let here = cpu(era).controls;
    let elsewhere = Controls { cr3: 0, ..here };
    let named = |controls: Controls| {
        let names = names::Names::new(&known, guest, &controls);
        names.place(function("panic") + 4).to_string().starts_with("panic+")
    };
    assert!((0..1000).all(|_| !named(elsewhere)));
    assert_eq!(memory.1.get(), 10);
    // One that starts after that is still found, and is then found without a search.
    assert!((0..1000).any(|_| named(here)) && named(here));
    assert_eq!(memory.1.get(), 11);
}

#[test]
fn a_kernel_without_symbols_gets_no_names() {
    let era = &ERAS[0];
    let (memory, kernel, cpu) = called(era, "panic", &["sys_write"]);
    let Consoles { serial, .. } = report(&memory, &kernel, &cpu, None);
    assert!(!serial.contains("panic") && !serial.contains("sys_write"), "{serial}");
    assert!(serial.contains("(the kernel has no table of call frames"), "{serial}");
    let place = Names { kernel: &kernel, memory: &memory }.place(cpu.rip).to_string();
    assert_eq!(place, format!("{:#x}", cpu.rip));
}

#[test]
fn a_screen_shows_the_newest_lines_and_the_innermost_functions() {
    let era = &NAMED[0];
    let (mut memory, kernel, cpu) = called(era, "leaf", &[&["recurse"; 40][..], &["ret_from_fork"]].concat());
    let mut log = Log::new(&mut memory, era, 4, 12);
    for number in 0..14 {
        log.push(&mut memory, format!("line {number} {}", "long ".repeat(2 * number)).as_bytes(), 0);
    }
    let Consoles { serial, screen, .. } = report(&memory, &kernel, &cpu, Some(&cpu));
    for line in serial.lines() {
        assert!(line.len() <= WIDTH, "{line}");
    }
    // Three more are needed for the reason, for what follows, and for the cursor.
    assert!(screen.lines().count() <= 22, "{screen}");
    assert!(screen.contains("] line 13 ") && !screen.contains("] line 5 "), "{screen}");
    assert!(serial.contains("] line 0\n"), "{serial}");
    assert!(
        screen.contains("leaf+0x4\n") && screen.contains("more on the serial line and in the log)\n"),
        "{screen}"
    );
    assert_eq!(screen.matches("recurse+0x20").count(), 9, "{screen}");
    assert_eq!(serial.matches("recurse+0x20").count(), 80, "{serial}");
}

#[test]
fn a_guest_cannot_send_control_characters_to_a_terminal() {
    let era = &NAMED[0];
    let (mut memory, kernel, cpu) = called(era, "leaf", &[]);
    let mut log = Log::new(&mut memory, era, 3, 9);
    log.push(&mut memory, b"a\x1b[2Jb\tc\xc3\xa4\x7f\r", 0);
    let Consoles { serial, .. } = report(&memory, &kernel, &cpu, None);
    assert!(serial.contains("] a?[2Jb c????\n"), "{serial:?}");
}

#[test]
fn a_larger_screen_has_more_room_and_none_at_all_has_no_room() {
    let rows = |rows| format!("{:?}", Room::on(rows));
    assert_eq!(rows(0), "Room { functions: 0, rows: 0 }");
    assert_eq!(rows(25), "Room { functions: 10, rows: 8 }");
    assert_eq!(rows(1000), "Room { functions: 28, rows: 20 }");
}

#[test]
fn a_place_that_the_guard_refuses_is_named() {
    for era in NAMED {
        let (memory, _, cpu) = called(era, "panic", &[]);
        let place = |memory: &Memory, rip| {
            let guest = Guest { memory, ram: &memory.ram() };
            names::Names::new(&KnownKernel::default(), guest, &cpu.controls).place(rip).to_string()
        };
        let at = function("panic") + 4;
        assert_eq!(place(&memory, at), format!("panic+0x4 ({at:#x})"));
        assert_eq!(place(&memory, 0x1234), "0x1234");
        assert_eq!(place(&Memory::new(0x1000), at), format!("{at:#x}"), "no kernel");
    }
}
