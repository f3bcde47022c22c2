//! The guest's kernel: checked, placed, and told what it is told.

#![expect(unsafe_code, reason = "modules are read, and memory is filled that is the guest's from then on")]

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::Range;

use super::info::{BootInfo, Module};
use super::refusal::Refusal;
use super::rsdp;
use crate::guest::boot_params::{self, BootInfo as Told, Efi, Screen};
use crate::guest::bzimage::{BzImage, release};
use crate::guest::efi_map;
use crate::guest::handover::{CODE_SELECTOR, DATA_SELECTOR, GDT_LIMIT, Layout};
use crate::guest::placement::{Placement, Request, place};
use crate::mem::addr::Hpa;
use crate::mem::{layout, physical};
use crate::vmm::entry::EntryState;

/// A kernel that has its place, and nothing moved yet.
pub struct Linux {
    placement: Placement,
    layout: Layout,
    boot_params: Box<[u8; boot_params::SIZE]>,
    /// The EFI memory map that it is told, or nothing.
    efi_map: Vec<u8>,
}

/// Checks the kernel among the modules and decides where everything goes.
///
/// # Errors
/// [`Refusal`] where there is no kernel, or none that can be started here.
pub fn prepare(info: &BootInfo) -> Result<Linux, Refusal> {
    let Some((kernel, rest)) = info.modules.split_first() else { return Err(Refusal::NoKernel) };
    // SAFETY: the loader put the module there, and nothing is moved before this function has returned.
    let file = unsafe { physical::bytes(&kernel.range) };
    let parsed = BzImage::parse(file)?;
    let (length, limit) = (kernel.command_line.len(), parsed.cmdline_size as usize);
    if length > limit {
        return Err(Refusal::CommandLine { length, limit });
    }
    let efi_map = efi_map(info);
    let size = Layout::new(Hpa(0), length, efi_map.len()).size();
    let boot_services = info.boot_services();
    let placement = place(&Request {
        map: &info.memory,
        hidden: layout::region(),
        keep: &boot_services,
        kernel: &parsed,
        kernel_module: kernel.range.clone(),
        initrd_module: rest.first().map(|module| module.range.clone()),
        handover_size: size,
    })?;
    let layout = Layout::new(placement.handover, length, efi_map.len());
    describe(kernel, rest, file, &placement);
    let boot_params = boot_params(info, &parsed, &placement, &layout, efi_map.len())?;
    Ok(Linux { placement, layout, boot_params, efi_map })
}

/// The EFI memory map that the kernel is told, without what Vidar keeps.
fn efi_map(info: &BootInfo) -> Vec<u8> {
    let Some(efi) = &info.efi else { return Vec::new() };
    let hide = |map: &[u8], hidden: &Range<Hpa>| efi_map::hide(map, efi.descriptor_size, hidden);
    info.kept.iter().fold(hide(&efi.memory_map, &layout::region()), |map, kept| hide(&map, kept))
}

/// What the kernel is told.
fn boot_params(
    info: &BootInfo,
    kernel: &BzImage,
    placement: &Placement,
    layout: &Layout,
    efi_map: usize,
) -> Result<Box<[u8; boot_params::SIZE]>, Refusal> {
    // SAFETY: the BIOS area is memory or ROM that nothing of Vidar's writes.
    let bios = unsafe { physical::bytes(&rsdp::BIOS_AREA) };
    let mut page = Box::new([0; boot_params::SIZE]);
    boot_params::fill(
        &mut page,
        &Told {
            header: &kernel.header,
            kernel: placement.kernel,
            command_line: layout.command_line(),
            initrd: placement.initrd.clone(),
            map: &info.memory.reserved(&layout::region()),
            rsdp: info.rsdp.as_ref().and_then(|copy| rsdp::find(copy, bios, &rsdp::BIOS_AREA)),
            screen: Some(info.screen),
            efi: info.efi.as_ref().map(|efi| Efi {
                is_64bit: efi.is_64bit,
                system_table: efi.system_table,
                memory_map: layout.efi_map()..layout.efi_map() + efi_map as u64,
                descriptor_size: efi.descriptor_size,
                descriptor_version: efi.descriptor_version,
            }),
        },
    )?;
    Ok(page)
}

fn describe(kernel: &Module, rest: &[Module], file: &[u8], placement: &Placement) {
    let name = release(file).and_then(|text| text.split(' ').next()).unwrap_or("of unknown release");
    log::info!("kernel {name}, {} KiB, goes to {}", file.len() >> 10, placement.kernel);
    match &placement.initrd {
        Some(Range { start, end }) => log::info!("initrd, {} KiB, at {start}", (end.0 - start.0) >> 10),
        None => log::info!("no initrd"),
    }
    if let Some(module) = rest.get(1) {
        log::warn!("the module at {} is ignored: a guest has a kernel and one initrd", module.range.start);
    }
    log::info!("command line \"{}\"", kernel.command_line);
}

/// Moves the guest to its place and tells it of the machine; `cursor` is where Vidar's log ends on a text screen.
pub fn hand_over(linux: Linux, info: &BootInfo, cursor: (u8, u8)) -> EntryState {
    let Linux { placement, layout, mut boot_params, efi_map } = linux;
    if matches!(info.screen, Screen::Text { .. }) {
        boot_params::set_cursor(&mut boot_params, cursor);
    }
    let command_line = info.modules.first().map_or("", |module| module.command_line.as_str());
    let block = layout.build(command_line, &efi_map);
    // SAFETY: the placement lies in RAM that neither Vidar nor a source of a later move occupies. The loader's own
    // information has been read, and the modules are read here for the last time.
    unsafe {
        placement.moves.iter().for_each(|step| physical::copy(&step.from, step.to));
        physical::write(placement.handover, &block);
        physical::write(layout.boot_params(), &*boot_params);
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
