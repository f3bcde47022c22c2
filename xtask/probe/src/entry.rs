//! What follows the entry code in assembly: runs the scenarios, and switches the machine off.

#![expect(unsafe_code, reason = "the entry code passes addresses")]

use core::arch::global_asm;
use core::panic::PanicInfo;

use crate::command_line;
use crate::cpu::{halt, outb, outl};
use crate::line::Line;
use crate::scenarios::{self, Scenario};
use crate::serial::{Serial, say};
use crate::{gdt, guard, idt, image};

global_asm!(include_str!("entry.S"), main = sym main);

extern "C" fn main(boot_params: u64, loaded_at: u64) -> ! {
    image::set_loaded_at(loaded_at);
    Serial::init();
    say!("probe: hello");
    gdt::init();
    idt::init();

    // SAFETY: the loader passed this address to the entry code, and all memory below 4 GiB is mapped.
    let command_line = unsafe { command_line::find(boot_params) };
    static mut LINE: Line = Line::new();
    let line = &raw mut LINE;
    // SAFETY: `main` runs once, and this is the only reference to the line.
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

/// Ends the emulator: Bochs by its own port, and QEMU by the device `isa-debug-exit`. A machine that has neither halts.
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
