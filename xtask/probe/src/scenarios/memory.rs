//! Vidar's memory, physical addresses without memory, and memory in the caches.

#![expect(unsafe_code, reason = "the test accesses addresses that belong to Vidar or to nothing")]

use core::arch::naked_asm;

use vidar_abi::Call;

use crate::attempt::{Hex, Outcome, Verdict, attempt};
use crate::cpu::cpuid;
use crate::line::Line;
use crate::{user, vidar, window};

const PAGE: u64 = 4096;

/// Reads eight bytes of memory.
fn read(address: u64) -> Outcome<u64> {
    let value: u64;
    attempt!("mov {value}, [{address}]"; value = inout(reg) 0_u64 => value, address = in(reg) address)?;
    Ok(value)
}

/// Reads four bytes of memory, which is the size that registers of devices require.
fn read32(address: u64) -> Outcome<u64> {
    let value: u32;
    attempt!("mov {value:e}, [{address}]"; value = inout(reg) 0_u32 => value, address = in(reg) address)?;
    Ok(u64::from(value))
}

/// Writes eight bytes of memory.
fn write(address: u64, value: u64) -> Outcome {
    attempt!("mov [{address}], {value}"; value = in(reg) value, address = in(reg) address)
}

/// Calls `visit` with three addresses of each page, and with a value that is different for each page.
fn for_each_place(base: u64, pages: u64, mut visit: impl FnMut(u64, u64)) {
    for page in 0..pages {
        let place = window::show(base + page * PAGE);
        for offset in [0, 0x7f8, PAGE - 8] {
            visit(place + offset, 0x5649_4441_5200_0000 | page);
        }
    }
}

/// Reads and writes every page of Vidar's region, and then checks that Vidar still answers.
pub fn touch(line: &mut Line) {
    let Some((base, size)) = vidar::region() else {
        return line.word("none");
    };
    let exits = vidar::exits().unwrap_or(0);
    let pages = size / PAGE;
    // All pages are read before any is written, since what is written to one may be visible in others.
    let first = read(window::show(base));
    let (mut same, mut kept, mut faults) = (0, 0, 0);
    for_each_place(base, pages, |place, _| {
        let value = read(place);
        same += u64::from(value == first);
        faults += u64::from(value.is_err());
    });
    for_each_place(base, pages, |place, mark| {
        let wrote = write(place, mark);
        let value = read(place);
        kept += u64::from(value == Ok(mark));
        faults += u64::from(wrote.is_err()) + u64::from(value.is_err());
    });
    line.item("pages", format_args!("{pages:#x}"));
    line.item("first", Hex(first));
    line.item("as-first", format_args!("{same}/{}", 3 * pages));
    line.item("writes-kept", format_args!("{kept}/{}", 3 * pages));
    line.item("faults", faults);
    // Accesses that a hypervisor could not emulate in parts: across the edges of the region, locked, and repeated.
    let edge = window::show(base);
    if base % (2 << 20) != 0 {
        line.item("lower-edge", Verdict(read(edge - 4).map(drop)));
    }
    let end = base + size;
    if end % (2 << 20) != 0 {
        line.item("upper-edge", Verdict(read(window::show(end - 4)).map(drop)));
    }
    let middle = window::show((base + size / 2) & !(PAGE - 1));
    line.item("locked", Verdict(attempt!("lock add qword ptr [{a}], 1"; a = in(reg) middle)));
    line.item(
        "string",
        Verdict(attempt!("rep stosq"; inout("rdi") middle => _, inout("rcx") 512_u64 => _, in("rax") 0_u64)),
    );
    line.item("exits", vidar::exits().unwrap_or(0) - exits);
    line.item("region", if vidar::region() == Some((base, size)) { "same" } else { "changed" });
    line.item("version", Verdict(vidar::call(Call::Version as u64, 0, 0, 0).map(drop)));
    line.item("log", Verdict(vidar::call(Call::Log as u64, 0, 0, 0).map(drop)));
    line.item("present", if vidar::present() { "yes" } else { "no" });
}

/// Accesses physical addresses above RAM: devices, holes, and the highest addresses that the CPU has.
pub fn far(line: &mut Line) {
    let bits = cpuid(0x8000_0008, 0)[0] & 0xff;
    let end = 1_u64 << bits;
    line.item("bits", bits);
    line.item("lapic-version", Hex(read32(window::show(0xfee0_0030))));
    let io_apic = window::show(0xfec0_0000);
    line.item("ioapic-version", Hex(attempt!("mov dword ptr [{a}], 1"; a = in(reg) io_apic).and_then(|()| read32(io_apic + 0x10))));
    line.item("hpet", Hex(read32(window::show(0xfed0_0000))));
    line.item("bios", Hex(read(window::show(0xffff_fff0))));
    for (name, address) in [
        ("hole-2g", 0x9000_0000),
        ("hole-3g", 0xd123_4000),
        ("4g", 1 << 32),
        ("64g-less-8", (64 << 30) - 8),
        ("half", end / 2),
        ("last", end - 8),
    ] {
        let place = window::show(address);
        let before = read(place);
        let wrote = write(place, 0x0123_4567_89ab_cdef);
        line.item(name, format_args!("{}/{}/{}", Hex(before), Verdict(wrote), Hex(read(place))));
    }
    if bits < 52 {
        line.item("beyond", Hex(read(window::show(end))));
    }
    // The window must not keep mapping an address that does not exist.
    window::show(0);
}

/// Executes INVD at CPL 3, where it is not allowed.
#[unsafe(naked)]
extern "C" fn invd_at_cpl3() {
    naked_asm!("invd", "int 0x80")
}

/// Executes INVD while the caches hold dirty lines. On real hardware without a hypervisor, INVD loses these lines and
/// the probe crashes, so this scenario is for emulators and hypervisors only.
pub fn invd(line: &mut Line) {
    static mut BUFFER: [u64; 8192] = [0; 8192];
    let buffer = &raw mut BUFFER;
    let pattern = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for index in 0..8192 {
        // SAFETY: the word is inside of the buffer, to which there is no reference.
        unsafe { buffer.cast::<u64>().add(index).write_volatile(pattern(index as u64)) };
    }
    line.item("invd", Verdict(attempt!("invd")));
    // SAFETY: the word is inside of the buffer, to which there is no reference.
    let kept = (0..8192).all(|index| unsafe { buffer.cast::<u64>().add(index).read_volatile() } == pattern(index as u64));
    line.item("memory", if kept { "kept" } else { "lost" });
    line.item("wbinvd", Verdict(attempt!("wbinvd")));
    // SAFETY: the function uses no stack, writes nothing and ends with INT 0x80.
    line.item("cpl3", Verdict(unsafe { user::visit(invd_at_cpl3 as *const () as u64, 0) }.map(drop)));
}
