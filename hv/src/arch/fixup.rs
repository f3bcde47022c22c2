//! Instructions that are allowed to fault: the linker collects where they are and where to go on after #GP or #PF.

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

/// Assembly lines that declare: if the instruction at the first local label faults, go on at the second.
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
pub(crate) use fixup;

/// Where to go on if the instruction at `rip` faulted and is allowed to.
pub fn landing(rip: u64) -> Option<u64> {
    // SAFETY: the linker script puts nothing but whole entries between the two symbols, in read-only memory.
    let table = unsafe {
        let start: *const Fixup = (&raw const START).cast();
        let end: *const Fixup = (&raw const END).cast();
        core::slice::from_raw_parts(start, end.offset_from_unsigned(start))
    };
    table.iter().find(|fixup| fixup.instruction == rip).map(|fixup| fixup.landing)
}
