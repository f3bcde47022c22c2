//! From the entry in assembly to the scenarios, and the way out.

#![expect(unsafe_code, reason = "the entry is assembly, and gives addresses")]

use core::arch::global_asm;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::command_line;
use crate::cpu::{halt, outb, outl};
use crate::line::Line;
use crate::scenarios::{self, Scenario};
use crate::serial::{Serial, say};
use crate::{gdt, guard, idt};

global_asm!(include_str!("entry.S"), main = sym main);

/// Where the image is linked.
const LINKED_AT: u64 = 0xffff_ffff_8000_0000;

static LOADED_AT: AtomicU64 = AtomicU64::new(0);

/// The physical address of something in the image.
pub fn physical<T>(thing: *const T) -> u64 {
    thing as u64 - LINKED_AT + LOADED_AT.load(Relaxed)
}

extern "C" fn main(boot_params: u64, loaded_at: u64) -> ! {
    LOADED_AT.store(loaded_at, Relaxed);
    Serial::init();
    say!("probe: hello");
    gdt::init();
    idt::init();

    // SAFETY: the entry was given this address by the loader, and all below 4 GiB is mapped.
    let command_line = unsafe { command_line::find(boot_params) };
    static mut LINE: Line = Line::new();
    let line = &raw mut LINE;
    // SAFETY: `main` runs once, and this is its only reference.
    let line = unsafe { &mut *line };
    for name in command_line::scenarios(command_line) {
        if name == "all" {
            scenarios::ALL.iter().filter(|scenario| !scenario.ends_the_machine).for_each(|s| run(s, line));
        } else if let Some(scenario) = scenarios::ALL.iter().find(|scenario| scenario.name == name) {
            run(scenario, line);
        } else {
            say!("probe {name}: there is no such scenario");
        }
    }
    say!("probe: done");
    Serial::drain();
    power_off()
}

fn run(scenario: &Scenario, line: &mut Line) {
    line.clear();
    match guard::run(scenario.run, line) {
        Ok(()) => say!("probe {}: {}", scenario.name, line.text()),
        Err(unexpected) => {
            say!("probe {}: unexpected {} at {:#x}", scenario.name, unexpected.fault, unexpected.rip);
        }
    }
}

/// Ends the emulator: Bochs by its own port, QEMU by the device `isa-debug-exit`. A machine without either halts.
fn power_off() -> ! {
    for byte in b"Shutdown" {
        outb(0x8900, *byte);
    }
    outl(0xf4, 0);
    halt()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    say!("probe: {}", info);
    Serial::drain();
    halt()
}
