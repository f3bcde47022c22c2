//! What the guard locks of a kernel: its read-only data and its interrupt descriptor table, and the code to be watched.

use core::ops::Range;

use super::Kernel;
use super::view::locate;
use crate::mem::addr::{Gpa, PAGE_SIZE};
use crate::vmm::cpu_state::CpuState;
use crate::vmm::guard::kernel::Guest;
use crate::vmm::guard::target::Target;

/// Returns what is to be locked of `kernel`, which runs on a CPU in this state.
pub(super) fn target(kernel: &Kernel, Guest { memory, ram }: Guest<'_>, state: &CpuState) -> Option<Target> {
    let names = ["_stext", "_etext", "__start_rodata", "__end_rodata", "idt_table", "_end"];
    let [Some(text), Some(text_end), Some(data), Some(data_end), Some(idt), Some(end)] =
        kernel.addresses(memory, names)?
    else {
        return None;
    };
    let in_order = text < text_end && text_end <= data && data < data_end && data_end <= end;
    // The kernel uses its table at another address, where it can only be read.
    let used = locate(memory, &state.controls, state.idtr.base);
    let table = kernel.place_in_image(idt)?;
    if !in_order || !(text..end).contains(&idt) || used != Some(table) {
        return None;
    }
    // The end of each part is the start of the next page, as in the kernel: Linux 6.1, arch/x86/mm/init_64.c,
    // `mark_rodata_ro`.
    let place = |range: Range<u64>| {
        let (start, last) = (kernel.place_in_image(range.start)?, kernel.place_in_image(range.end - 1)?);
        let end = Gpa(last.align_down(PAGE_SIZE).0.checked_add(PAGE_SIZE)?);
        (start < end).then_some(start..end)
    };
    let idt = table..(table + u64::from(state.idtr.limit)).align_down(PAGE_SIZE) + PAGE_SIZE;
    let to_image = text.wrapping_sub(kernel.place_in_image(text)?.0);
    let target = Target { data: place(data..data_end)?, idt, text: place(text..text_end)?, to_image };
    let is_ram = |range: &Range<Gpa>| ram.covers(&(range.start.identity()..range.end.identity()));
    let all_in_ram = [&target.data, &target.idt, &target.text].into_iter().all(is_ram);
    all_in_ram.then_some(target)
}
