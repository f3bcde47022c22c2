//! Loading the guest's kernel: checks it, chooses its place, fills in its boot parameters, and moves it there.

#![expect(unsafe_code, reason = "modules are read, and the guest's memory is filled")]

use alloc::boxed::Box;
use core::ops::Range;

use vidar_core::boot::memory_plan::MemoryPlan;
use vidar_core::boot::refusal::Refusal;
use vidar_core::firmware::{efi_map, rsdp};
use vidar_core::linux::boot_params::{self, Contents, Efi, ScreenInfo};
use vidar_core::linux::bzimage::{BzImage, release};
use vidar_core::linux::handover::{CODE_SELECTOR, DATA_SELECTOR, GDT_LIMIT, Layout, Sizes};
use vidar_core::linux::placement::{ALIGNMENT, Placement, Request, place};
use vidar_core::loader::info::BootInfo;
use vidar_core::loader::modules::Module;
use vidar_core::mem::addr::Hpa;
use vidar_core::mem::ranges::RangeSet;
use vidar_core::vmm::entry::EntryState;

use crate::host::{image, physical};

/// A kernel that has been checked and placed, but not moved yet.
pub struct Linux {
    placement: Placement,
    layout: Layout,
    boot_params: Box<[u8; boot_params::SIZE]>,
}

/// Returns the release string of the kernel, which is the first module, or `None` if there is no kernel or no such
/// string in it.
pub fn release_of<'a>(info: &BootInfo<'a>) -> Option<&'a str> {
    kernel(info).and_then(|(_, file)| release(file))
}

/// Returns the kernel, which is the first module, and its bytes.
fn kernel<'a>(info: &BootInfo<'a>) -> Option<(Module<'a>, &'a [u8])> {
    let module = info.modules.clone().next()?;
    // SAFETY: the loader has put the module into RAM that the direct map covers, and nothing is written there before
    // `hand_over`.
    let file = unsafe { physical::bytes(&module.range) };
    Some((module, file))
}

/// Checks the kernel, which is the first module, and decides where everything goes. Nothing is moved yet.
///
/// # Errors
/// [`Refusal`] if there is no kernel, if it cannot be started, if its command line is too long, or if memory has no
/// place for it.
pub fn prepare(info: &BootInfo<'_>, plan: &MemoryPlan<'_>) -> Result<Linux, Refusal> {
    let (kernel, file) = kernel(info).ok_or(Refusal::NoKernel)?;
    let parsed = BzImage::parse(file)?;
    let (length, limit) = (kernel.command_line.0.len(), parsed.cmdline_size as usize);
    if length > limit {
        return Err(Refusal::CommandLine { length, limit });
    }
    let sizes = sizes(info, plan, length);
    let placement = place(&Request {
        map: plan.beside_region(),
        hidden: image::region(),
        keep: info.boot_services(),
        information: info.place.clone(),
        kernel: &parsed,
        kernel_module: kernel.range.clone(),
        initrds: info.initrds(),
        handover_size: Layout::new(Hpa(0), sizes).size(),
    })?;
    let layout = Layout::new(placement.handover, sizes);
    describe(&kernel, info.initrds().count(), file, &placement);
    let boot_params = boot_params(info, plan, &parsed, &placement, &layout);
    Ok(Linux { placement, layout, boot_params })
}

/// Returns the sizes of the parts of the hand-over block that vary, for a command line of `command_line` bytes.
fn sizes(info: &BootInfo<'_>, plan: &MemoryPlan<'_>, command_line: usize) -> Sizes {
    let mut efi_map = 0;
    show_efi_map(info, plan, |bytes| efi_map += bytes.len());
    Sizes { command_line, efi_map, setup_data: boot_params::more_regions_size(&plan.guest_map()) }
}

/// Passes the EFI memory map for the kernel to `put`, piece by piece. What is reserved for Vidar is hidden in it. Does
/// nothing if the machine has no EFI.
fn show_efi_map(info: &BootInfo<'_>, plan: &MemoryPlan<'_>, put: impl FnMut(&[u8])) {
    if let Some(efi) = &info.efi {
        let reserved: RangeSet = plan.reserved().collect();
        efi_map::hide(efi.memory_map, efi.descriptor_size, &reserved, put);
    }
}

/// Returns the kernel's boot parameters: the page `boot_params` of the Linux boot protocol.
fn boot_params(
    info: &BootInfo<'_>,
    plan: &MemoryPlan<'_>,
    kernel: &BzImage,
    placement: &Placement,
    layout: &Layout,
) -> Box<[u8; boot_params::SIZE]> {
    // SAFETY: the BIOS area is below 1 MiB, and so in the direct map, and Vidar does not write to it.
    let bios = unsafe { physical::bytes(&rsdp::BIOS_AREA) };
    let mut page = Box::new([0; boot_params::SIZE]);
    boot_params::fill(
        &mut page,
        &Contents {
            header: &kernel.header,
            kernel: placement.kernel,
            command_line: layout.command_line(),
            initrd: placement.initrd.clone(),
            map: &plan.guest_map(),
            setup_data: layout.setup_data(),
            rsdp: info.rsdp.and_then(|copy| rsdp::find(copy, bios, &rsdp::BIOS_AREA)),
            screen: info.screen,
            efi: info.efi.as_ref().map(|efi| Efi {
                is_64bit: efi.is_64bit,
                system_table: efi.system_table,
                memory_map: layout.efi_map(),
                descriptor_size: efi.descriptor_size,
                descriptor_version: efi.descriptor_version,
            }),
        },
    );
    page
}

/// Logs the kernel, its place, its initrd and its command line.
fn describe(kernel: &Module<'_>, initrds: usize, file: &[u8], placement: &Placement) {
    let name = release(file).and_then(|text| text.split(' ').next()).unwrap_or("of unknown release");
    log::info!("kernel {name}, {} KiB, goes to {}", file.len() >> 10, placement.kernel);
    match &placement.initrd {
        Some(Range { start, end }) => {
            let size = (end.0 - start.0) >> 10;
            match initrds {
                1 => log::info!("initrd, {size} KiB, at {start}"),
                _ => log::info!("initrd of {initrds} files, {size} KiB, at {start}"),
            }
        }
        None => log::info!("no initrd"),
    }
    log::info!("command line \"{}\"", kernel.command_line);
}

/// Writes the hand-over block, moves the kernel and the initrds to their places, and returns the state in which the
/// guest begins. `cursor` is where Vidar's log ends on a text screen.
pub fn hand_over(linux: Linux, info: &BootInfo<'_>, plan: &MemoryPlan<'_>, cursor: (u8, u8)) -> EntryState {
    let Linux { placement, layout, mut boot_params } = linux;
    if matches!(info.screen, Some(ScreenInfo::Text { .. })) {
        boot_params::set_cursor(&mut boot_params, cursor);
    }
    let put = |at: &mut Hpa, bytes: &[u8]| {
        // SAFETY: `place` has put the hand-over block into RAM that holds nothing of Vidar's, no information of the
        // loader's and no module, so nothing in use is overwritten.
        unsafe { physical::write(*at, bytes) };
        *at = *at + bytes.len() as u64;
    };
    put(&mut layout.boot_params(), &*boot_params);
    let command_line = info.modules.clone().next().unwrap_or_default().command_line;
    layout.write(command_line.0, |mut at, bytes| put(&mut at, bytes));
    let (mut efi_map, mut setup_data) = (layout.efi_map().start, layout.setup_data());
    show_efi_map(info, plan, |bytes| put(&mut efi_map, bytes));
    boot_params::more_regions(&plan.guest_map(), |bytes| put(&mut setup_data, bytes));
    // SAFETY: `place` has chosen RAM that holds nothing of Vidar's, and the moves come in an order in which none
    // overwrites the source of a later one. Only the last move may overwrite the loader's information, which nothing
    // reads after it.
    unsafe {
        placement.moves(info.initrds()).for_each(|step| {
            physical::copy(&step.from, step.to);
            let after = step.to + (step.from.end.0 - step.from.start.0);
            physical::write(after, [0; ALIGNMENT as usize].get(..step.zeros as usize).unwrap_or_default());
        });
    }
    EntryState {
        entry: placement.kernel.identity(),
        boot_params: layout.boot_params().identity(),
        gdt: layout.gdt().identity(),
        gdt_limit: GDT_LIMIT,
        code: CODE_SELECTOR,
        data: DATA_SELECTOR,
    }
}
