//! Instructions that are allowed to fault. The linker collects their addresses in a table, each with the address at
//! which execution continues after #GP or #PF.

#![expect(unsafe_code, reason = "the table is found through linker symbols")]

/// One entry of the table, written by [`fixup!`].
#[derive(Clone, Copy)]
#[repr(C)]
struct Fixup {
    instruction: u64,
    landing: u64,
}

unsafe extern "C" {
    #[link_name = "vidar_fixups_start"]
    static START: [Fixup; 0];
    #[link_name = "vidar_fixups_end"]
    static END: [Fixup; 0];
}

/// Expands to assembly that adds an entry to the table: if the instruction at the first local label faults, execution
/// continues at the second.
macro_rules! fixup {
    ($instruction:literal, $landing:literal) => {
        concat!(
            ".pushsection .fixups, \"a\"\n",
            ".balign 8\n",
            ".quad ",
            $instruction,
            ", ",
            $landing,
            "\n",
            ".popsection",
        )
    };
}

/// Executes an instruction that is allowed to fault, with its operands as `asm!` takes them. Evaluates to true if it
/// has not faulted. Like `asm!`, this has to be in an unsafe block.
macro_rules! execute_checked {
    ($instruction:literal, $($operands:tt)*) => {{
        let done: u32;
        core::arch::asm!(
            "xor {done:e}, {done:e}",
            concat!("2: ", $instruction),
            "mov {done:e}, 1",
            "3:",
            $crate::arch::fixup::fixup!("2b", "3b"),
            done = out(reg) done,
            $($operands)*
        );
        done == 1
    }};
}
pub(crate) use {execute_checked, fixup};

/// Returns where execution continues if the instruction at `rip` is allowed to fault, or `None` if it is not.
pub fn landing(rip: u64) -> Option<u64> {
    // SAFETY: between the two symbols the linker script puts whole entries and nothing else, in read-only memory.
    let table = unsafe {
        let start: *const Fixup = (&raw const START).cast();
        let end: *const Fixup = (&raw const END).cast();
        core::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    };
    table.iter().find(|fixup| fixup.instruction == rip).map(|fixup| fixup.landing)
}
