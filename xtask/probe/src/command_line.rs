//! The command line, which names the scenarios to run.

#![expect(unsafe_code, reason = "boot_params is memory that the loader filled")]

/// The offset of `cmd_line_ptr` in boot_params.
const CMD_LINE_PTR: u64 = 0x228;

/// The largest number of bytes that are read of a command line.
const LONGEST: usize = 2048;

/// Returns the command line that boot_params points to. It is empty if there is none, or if it is not UTF-8.
///
/// # Safety
///
/// `boot_params` must be the address of the structure of that name. The structure and the command line must be mapped.
pub unsafe fn find(boot_params: u64) -> &'static str {
    // SAFETY: the caller guarantees that the structure is mapped, and the field is aligned to four bytes.
    let pointer = unsafe { *((boot_params + CMD_LINE_PTR) as *const u32) };
    if pointer == 0 {
        return "";
    }
    let start = pointer as *const u8;
    // SAFETY: the loader ends the string with a zero, and it lies below 4 GiB, where all is mapped.
    let length = (0..LONGEST).take_while(|index| unsafe { *start.add(*index) } != 0).count();
    // SAFETY: these bytes have just been read, and nothing writes to them any more.
    core::str::from_utf8(unsafe { core::slice::from_raw_parts(start, length) }).unwrap_or("")
}

/// Returns the names of scenarios after `probe=`.
pub fn scenarios(command_line: &str) -> impl Iterator<Item = &str> {
    let names = command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("probe="));
    names.unwrap_or("").split(',').filter(|name| !name.is_empty())
}
