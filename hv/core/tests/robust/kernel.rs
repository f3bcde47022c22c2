//! The running kernel's own tables: the note, the symbols, the call frames, the stack and the log. The input is all of
//! the memory of a small guest.

use vidar_core::kernel::Kernel;
use vidar_core::kernel::chain::MAX_FRAMES;
use vidar_core::vmm::cpu_state::CpuState;
use vidar_core::x86::registers::Register;

use crate::kernel_image::memory::Memory;
use crate::kernel_image::{ERAS, MODULE, NAMED, STACK, STACK_AT, TABLES, build, function};
use crate::target::Target;

const TARGET: Target = Target { mend, recorded, ..Target::new("kernel", check) };

/// The most words that are read for one question about so small a memory.
const MOST_READS: u64 = 20_000_000;
/// The number of lines that are asked for.
const LINES: usize = 20;

/// Returns the memories of guests with kernels of several releases, with return addresses on the stack.
fn recorded() -> Vec<Vec<u8>> {
    let memory = |era| {
        let mut memory: Memory = build(era);
        let chain = ["framed", "asm_exc_page_fault", "work", "call_on_irqstack", "uses_r13", "recurse"];
        let words = chain.map(|name| [function(name) + 8, STACK + 0x80, MODULE + 8]).concat();
        words.iter().zip(0..).for_each(|(word, at)| memory.set(STACK_AT + at * 8, *word));
        memory.bytes
    };
    NAMED.iter().map(memory).collect()
}

/// Makes the page tables, the note and the pointers to the log those of a guest that was not changed.
fn mend(bytes: &mut [u8]) {
    let good = build(&ERAS[bytes.len() % ERAS.len()]);
    let pages = [0x1000..0x2000, TABLES as usize..STACK_AT as usize];
    for page in pages {
        if let Some(slots) = bytes.get_mut(page.clone()) {
            slots.copy_from_slice(&good.bytes[page]);
        }
    }
}

fn check(input: &[u8]) {
    let memory = Memory::of(input.to_vec());
    let Some(kernel) = Kernel::find(&memory, &memory.ram()) else { return };
    assert!(kernel.release().len() <= 64 && kernel.release().bytes().all(|byte| byte.is_ascii_graphic()));
    for name in ["leaf", "framed", "asm_sysvec_timer"] {
        let mut cpu = CpuState { rip: function(name), ..CpuState::default() };
        (cpu.controls.efer, cpu.controls.cs_l) = (1 << 10 | 1 << 8, true);
        cpu.registers.set(Register::Rsp, STACK);
        cpu.registers.set(Register::Rbp, STACK + 0x40);
        let mut frames = 0;
        let end = kernel.chain(&memory, &cpu, &mut |frame| {
            frames += 1;
            if let Some((name, distance)) = kernel.function(&memory, frame) {
                assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
                assert!(distance <= frame.address);
            }
        });
        assert!((1..=MAX_FRAMES + 1).contains(&frames) && !end.to_string().is_empty());
    }
    kernel.symbol(&memory, MODULE + 8);
    let mut lines = 0;
    kernel.log(&memory, LINES, &mut |line| {
        lines += 1;
        assert!(line.starts_with(b"[") && !line.contains(&b'\n'));
    });
    assert!(lines <= LINES);
    kernel.address(&memory, "panic");
    let mut symbols = 0;
    kernel.symbols(&memory, &mut |_| {
        symbols += 1;
        true
    });
    assert!(memory.reads.get() <= MOST_READS, "{} words were read for {symbols} symbols", memory.reads.get());
}

#[test]
fn kernels_tables() {
    TARGET.run();
}
