//! Call chains on stacks made by hand.

use std::collections::HashSet;

use proptest::prelude::*;
use vidar_core::kernel::Kernel;
use vidar_core::kernel::chain::{End, Frame, Left, MAX_FRAMES};
use vidar_core::vmm::cpu_state::{CpuState, SegmentRegister};
use vidar_core::x86::registers::Register;

use crate::kernel_image::memory::Memory;
use crate::kernel_image::{ERAS, Era, FUNCTION, NAMED, STACK, STACK_AT, TEXT, function};
use crate::{cpu, kernel};

/// A guest whose stack is being made.
pub struct Guest {
    pub memory: Memory,
    pub kernel: Kernel,
    cpu: CpuState,
}

impl Guest {
    /// Returns a guest whose CPU is in this function, with RSP at the start of the stack's page.
    pub fn new(era: &Era, name: &str) -> Self {
        let (memory, kernel) = kernel(era);
        let mut cpu = cpu(era);
        cpu.rip = function(name) + 4;
        cpu.registers.set(Register::Rsp, STACK);
        Self { memory, kernel, cpu }
    }

    /// Writes words to the stack, from the word `at` on.
    pub fn put(&mut self, at: u64, words: &[u64]) {
        words.iter().zip(at..).for_each(|(word, at)| self.memory.set(STACK_AT + at * 8, *word));
    }

    /// Returns the functions of the chain, and why it ends. Each function that was left by a call has its plain name,
    /// one that was interrupted has a star before it.
    pub fn chain(&self) -> (String, End) {
        let mut names = Vec::new();
        let end = self.kernel.chain(&self.memory, &self.cpu, &mut |frame| {
            let name = self.kernel.function(&self.memory, frame);
            let name = name.map_or_else(|| format!("{:x}", frame.address), |(name, _)| name.to_string());
            names.push(if frame.left == Left::Interrupted { format!("*{name}") } else { name });
        });
        (names.join(" "), end)
    }
}

/// Returns a return address in a function.
pub fn within(name: &str) -> u64 {
    function(name) + 0x20
}

#[test]
fn calls_lead_to_the_end_of_the_stack() {
    for era in NAMED {
        let mut guest = Guest::new(era, "leaf");
        guest.cpu.registers.set(Register::Rbp, STACK + 4 * 8);
        // RBP of the frame points to that of its caller, then comes the return address.
        guest.put(0, &[within("framed"), 0, 0, 0, 0xb9, within("spilling")]);
        guest.put(6, &[0, 0, 0, 0, STACK + 13 * 8, within("bp_by_bp")]);
        guest.put(12, &[within("framed"), 0, STACK + 16 * 8, 0, 0, within("ret_from_fork")]);
        let chain = guest.chain();
        assert_eq!(
            chain,
            ("leaf framed spilling bp_by_bp framed ret_from_fork".to_owned(), End::Bottom),
            "{}",
            era.release
        );
    }
}

#[test]
fn an_exception_is_passed_by_the_registers_that_it_saved() {
    for era in NAMED {
        let mut guest = Guest::new(era, "leaf");
        let mut registers = [0; 21];
        registers[4] = STACK + 40 * 8; // RBP
        (registers[16], registers[17], registers[19]) = (function("framed"), 0x10, STACK + 30 * 8);
        guest.put(0, &[within("asm_exc_page_fault")]);
        guest.put(1, &registers);
        guest.put(40, &[0, within("ret_from_fork")]);
        // The address in the interrupted function is its first: the one before it is another function's.
        let expected = "leaf asm_exc_page_fault *framed ret_from_fork".to_owned();
        assert_eq!(guest.chain(), (expected, End::Bottom), "{}", era.release);
    }
}

#[test]
fn a_system_call_ends_at_user_mode() {
    for era in NAMED {
        let mut guest = Guest::new(era, "sys_write");
        let mut registers = [0; 21];
        (registers[16], registers[17], registers[19]) = (0x47_b7a0, 0x33, 0x7ffc_1260_3188);
        guest.put(0, &[within("asm_exc_page_fault")]);
        guest.put(1, &registers);
        let expected = "sys_write asm_exc_page_fault *47b7a0".to_owned();
        assert_eq!(guest.chain(), (expected, End::User), "{}", era.release);
    }
}

#[test]
fn chain_goes_over_to_another_stack() {
    for era in NAMED {
        // The stack of interrupts begins with the address of the interrupted stack.
        let mut guest = Guest::new(era, "leaf");
        guest.cpu.registers.set(Register::Rsp, STACK + 0x1000);
        guest.put(512, &[within("call_on_irqstack"), STACK + 10 * 8]);
        guest.put(10, &[within("call_by_frame"), 0, STACK + 21 * 8]);
        guest.cpu.registers.set(Register::Rbp, STACK + 13 * 8);
        guest.put(20, &[within("ret_from_fork")]);
        let expected = "leaf call_on_irqstack call_by_frame ret_from_fork".to_owned();
        assert_eq!(guest.chain(), (expected, End::Bottom), "{}", era.release);
    }
}

#[test]
fn other_registers_lead_on_where_they_were_saved() {
    let registers = [
        ("realigned", Register::R10, 7),
        ("uses_r13", Register::R13, 2),
        ("uses_dx", Register::Rdx, 12),
        ("uses_di", Register::Rdi, 14),
        ("uses_ax", Register::Rax, 10),
    ];
    for (era, (name, register, word)) in NAMED.iter().flat_map(|era| registers.map(|row| (era, row))) {
        // In the CPU itself.
        let mut guest = Guest::new(era, name);
        guest.cpu.registers.set(register, STACK + 9 * 8);
        guest.put(8, &[within("ret_from_fork")]);
        assert_eq!(guest.chain(), (format!("{name} ret_from_fork"), End::Bottom), "{}", era.release);

        // In what an exception saved, also if an interrupt came after it.
        let mut guest = Guest::new(era, "asm_exc_page_fault");
        let mut saved = [0; 21];
        saved[word] = STACK + 41 * 8;
        (saved[16], saved[17], saved[19]) = (within("asm_sysvec_timer"), 0x10, STACK + 24 * 8);
        guest.put(0, &saved);
        guest.put(25, &[within(name), 0x10, 0, STACK + 38 * 8, 0x18]);
        guest.put(40, &[within("ret_from_fork")]);
        let expected = format!("asm_exc_page_fault *asm_sysvec_timer *{name} ret_from_fork");
        assert_eq!(guest.chain(), (expected, End::Bottom), "{}", era.release);

        // After a call nobody knows them.
        let mut guest = Guest::new(era, "leaf");
        guest.put(0, &[within(name)]);
        assert_eq!(guest.chain(), (format!("leaf {name}"), End::Register), "{}", era.release);
    }
}

#[test]
fn a_call_of_address_0_leads_to_its_caller() {
    for era in NAMED {
        let mut guest = Guest::new(era, "leaf");
        guest.cpu.rip = 0;
        guest.put(0, &[within("work"), 0, within("ret_from_fork")]);
        assert_eq!(guest.chain(), ("0 work ret_from_fork".to_owned(), End::Bottom), "{}", era.release);
    }
}

#[test]
fn chain_ends_where_nothing_is_known() {
    for era in NAMED {
        let module = 0xffff_ffff_c000_1234;
        for (address, name) in [
            (within("no_rule"), "no_rule"),
            (module, "ffffffffc0001234"),
            (0x1234, "1234"),
            (u64::MAX, "ffffffffffffffff"),
        ] {
            let mut guest = Guest::new(era, "leaf");
            guest.put(0, &[address, within("panic")]);
            assert_eq!(guest.chain(), (format!("leaf {name}"), End::Unknown(address)), "{}", era.release);
        }
        // The stack's page ends here, and the next one is another stack; before it nothing is mapped.
        let mut guest = Guest::new(era, "leaf");
        guest.cpu.registers.set(Register::Rsp, STACK - 8);
        assert_eq!(guest.chain(), ("leaf".to_owned(), End::Stack(STACK - 8)), "{}", era.release);
        guest.cpu.registers.set(Register::Rsp, 0x1000);
        assert_eq!(guest.chain(), ("leaf".to_owned(), End::Stack(0x1000)), "no address of the kernel");
    }
}

#[test]
fn a_chain_without_end_is_cut() {
    for era in NAMED {
        let mut guest = Guest::new(era, "recurse");
        guest.put(0, &[within("recurse"); 500]);
        let (names, end) = guest.chain();
        assert_eq!((names.split(' ').count(), end), (MAX_FRAMES, End::Long), "{}", era.release);

        let mut guest = Guest::new(era, "backwards");
        guest.cpu.registers.set(Register::Rsp, STACK + 0x800);
        guest.put(0, &[within("backwards"); 500]);
        assert_eq!(guest.chain(), ("backwards".to_owned(), End::Backwards), "{}", era.release);
    }
}

#[test]
fn a_cpu_outside_of_the_kernel_has_no_chain() {
    for era in NAMED {
        let mut guest = Guest::new(era, "leaf");
        guest.put(0, &[within("panic")]);
        guest.cpu.rip = 0x40_1000;
        guest.cpu[SegmentRegister::Cs].selector = 0x33;
        assert_eq!(guest.chain(), ("401000".to_owned(), End::User));
        guest.cpu.controls.cs_l = false;
        assert_eq!(guest.chain(), ("401000".to_owned(), End::User), "32-bit code");
        guest.cpu.controls.efer = 0;
        assert_eq!(guest.chain(), ("401000".to_owned(), End::Mode));
    }
}

#[test]
fn a_kernel_without_symbols_has_one_frame() {
    let mut guest = Guest::new(&ERAS[0], "leaf");
    guest.put(0, &[within("panic")]);
    let mut frames = Vec::new();
    let end = guest.kernel.chain(&guest.memory, &guest.cpu, &mut |frame| frames.push(frame));
    assert_eq!((frames, end), (vec![Frame { address: guest.cpu.rip, left: Left::Not }], End::NoTable));
}

proptest! {
    /// Whatever is on the stack, the chain ends, and every function but the first comes from a word of it.
    #[test]
    fn no_address_is_made_up(
        words in prop::collection::vec(prop_oneof![
            4 => (0usize..24, 0u64..0x40).prop_map(|(number, at)| TEXT + number as u64 * FUNCTION + at),
            2 => (0u64..0x400).prop_map(|at| STACK + at * 8),
            1 => any::<u64>(),
        ], 64..512),
        rip in 0usize..24,
        sp in 0u64..512,
        era in prop::sample::select(NAMED),
    ) {
        let mut guest = Guest::new(&era, "leaf");
        guest.put(0, &words);
        guest.cpu.rip = TEXT + rip as u64 * FUNCTION + 8;
        guest.cpu.registers.set(Register::Rsp, STACK + sp * 8);
        guest.cpu.registers.set(Register::Rbp, STACK + sp * 8 + 16);
        let mut frames = Vec::new();
        guest.kernel.chain(&guest.memory, &guest.cpu, &mut |frame| frames.push(frame));
        prop_assert!((1..=MAX_FRAMES + 1).contains(&frames.len()));
        let stack: HashSet<_> = guest.memory.bytes[STACK_AT as usize..][..0x2000].windows(8).collect();
        for frame in &frames[1..] {
            prop_assert!(stack.contains(&frame.address.to_le_bytes()[..]), "{frame:x?}");
        }
    }
}
