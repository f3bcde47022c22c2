//! What firmware and kernels set up once: microcode, memory types, and the address of the local APIC.

#![expect(unsafe_code, reason = "constant memory is read by its address, so that the compiler does not assume its content")]

use crate::apic::Apic;
use crate::attempt::{Hex, Verdict, rdmsr, wrmsr};
use crate::cpu::cpuid;
use crate::image::physical;
use crate::line::Line;
use crate::vidar;

const IA32_APIC_BASE: u32 = 0x1b;
const IA32_BIOS_UPDT_TRIG: u32 = 0x79;
const IA32_BIOS_SIGN_ID: u32 = 0x8b;
/// AMD's counterpart to IA32_BIOS_UPDT_TRIG.
const PATCH_LOADER: u32 = 0xc001_0020;
const IA32_MTRRCAP: u32 = 0xfe;
const IA32_MTRR_PHYSBASE0: u32 = 0x200;
const IA32_MTRR_FIX64K_00000: u32 = 0x250;
const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;

const APIC_ENABLED: u64 = 1 << 11;
const APIC_X2: u64 = 1 << 10;
const APIC_VERSION: u64 = 0x30;

/// A microcode update whose data are in another page than its header. No CPU accepts it, since all its other fields are
/// zero. Intel SDM Vol. 3A, 10.11.1 "Microcode Update".
static UPDATE: Update = Update { padding: [0; 4096 - HEADER], header: [1; 12], data: [0; 2000] };
const HEADER: usize = 48;

#[repr(C, align(4096))]
struct Update {
    padding: [u8; 4096 - HEADER],
    header: [u32; HEADER / 4],
    data: [u8; 2000],
}

/// Loads microcode from address 0, and then an update that no CPU accepts.
pub fn microcode(line: &mut Line) {
    line.item("update-nothing", Verdict(wrmsr(IA32_BIOS_UPDT_TRIG, 0)));
    line.item("loader-nothing", Verdict(wrmsr(PATCH_LOADER, 0)));
    line.item("update", Verdict(wrmsr(IA32_BIOS_UPDT_TRIG, (&raw const UPDATE.data) as u64)));
    line.item("loader", Verdict(wrmsr(PATCH_LOADER, (&raw const UPDATE.header) as u64)));
    line.item("revision", Hex(rdmsr(IA32_BIOS_SIGN_ID)));
    line.item("clear", Verdict(wrmsr(IA32_BIOS_SIGN_ID, 0)));
}

/// Memory whose content must stay the same while its memory type changes.
static PATTERN: [u64; 512] = {
    let mut pattern = [0; 512];
    let mut index = 0;
    while index < 512 {
        pattern[index] = 0x0123_4567_89ab_cdef_u64.rotate_left(index as u32);
        index += 1;
    }
    pattern
};

fn memory() -> &'static str {
    let word = |index: usize| {
        // SAFETY: the word is inside of the static.
        unsafe { (&raw const PATTERN).cast::<u64>().add(index).read_volatile() }
    };
    let kept = (0..512).all(|index| word(index) == 0x0123_4567_89ab_cdef_u64.rotate_left(index as u32));
    if kept { "kept" } else { "lost" }
}

/// Writes an MSR, reads it back, and restores it.
fn put(line: &mut Line, name: &str, index: u32, value: u64) {
    let before = rdmsr(index);
    let outcome = wrmsr(index, value);
    let read = if rdmsr(index) == Ok(value) { "written" } else { "unwritten" };
    line.item(name, format_args!("{}/{read}/{}", Verdict(outcome), memory()));
    if let (Ok(before), Ok(())) = (before, outcome) {
        // This cannot fault: the MSR had this value before.
        let _ = wrmsr(index, before);
    }
}

/// Writes good and bad values to the MTRRs. After each good one the MTRR is restored.
pub fn mtrr(line: &mut Line) {
    let capabilities = rdmsr(IA32_MTRRCAP);
    line.item("cap", Hex(capabilities));
    let Ok(count @ 1..) = capabilities.map(|capabilities| capabilities as u32 & 0xff) else {
        return;
    };
    let bits = cpuid(0x8000_0008, 0)[0] & 0xff;
    let two_megabytes = ((1 << bits) - (2 << 20)) | 1 << 11;
    // The address of the probe itself, as an MTRR with the type uncacheable.
    let here = physical(&raw const PATTERN) & !((2 << 20) - 1);
    let base = IA32_MTRR_PHYSBASE0 + 2 * (count - 1);
    put(line, "base", base, here);
    put(line, "mask", base + 1, two_megabytes);
    if let (Ok(base_before), Ok(mask_before)) = (rdmsr(base), rdmsr(base + 1)) {
        let wrote = wrmsr(base, here).and_then(|()| wrmsr(base + 1, two_megabytes));
        let during = memory();
        let undone = wrmsr(base + 1, mask_before).and_then(|()| wrmsr(base, base_before));
        line.item("uncached", format_args!("{}/{during}/{}/{}", Verdict(wrote), Verdict(undone), memory()));
    }
    put(line, "type-2", base, here | 2);
    put(line, "type-7", base, here | 7);
    put(line, "base-bit-8", base, here | 1 << 8);
    put(line, "base-bit-63", base, 1 << 63);
    put(line, "mask-bit-0", base + 1, two_megabytes | 1);
    put(line, "mask-bit-63", base + 1, two_megabytes | 1 << 63);
    let default = rdmsr(IA32_MTRR_DEF_TYPE).unwrap_or(0);
    line.item("default", format_args!("{default:#x}"));
    put(line, "default-same", IA32_MTRR_DEF_TYPE, default);
    put(line, "default-through", IA32_MTRR_DEF_TYPE, default & !0xff | 4);
    put(line, "default-off", IA32_MTRR_DEF_TYPE, default & !(1 << 11));
    put(line, "default-type-3", IA32_MTRR_DEF_TYPE, default & !0xff | 3);
    put(line, "default-bit-12", IA32_MTRR_DEF_TYPE, default | 1 << 12);
    put(line, "fixed", IA32_MTRR_FIX64K_00000, 0x0606_0606_0606_0606);
    put(line, "fixed-type-2", IA32_MTRR_FIX64K_00000, 0x0606_0606_0602_0606);
    put(line, "cap-written", IA32_MTRRCAP, 0);
    put(line, "one-too-many", IA32_MTRR_PHYSBASE0 + 2 * count, 0);
}

/// Writes IA32_APIC_BASE, reads it back, and restores it.
fn move_apic(line: &mut Line, start: u64, name: &str, value: u64) {
    let outcome = wrmsr(IA32_APIC_BASE, value);
    line.item(name, format_args!("{}/{}", Verdict(outcome), Hex(rdmsr(IA32_APIC_BASE))));
    // This cannot fault: the MSR had this value before.
    let _ = wrmsr(IA32_APIC_BASE, start);
}

/// Moves the local APIC to the first and the last page of Vidar's region, and to the page after it.
pub fn apic_onto_vidar(line: &mut Line) {
    let (Some((base, size)), Ok(start)) = (vidar::region(), rdmsr(IA32_APIC_BASE)) else {
        return line.word("none");
    };
    for (name, place) in [("first", base), ("last", base + size - 0x1000), ("behind", base + size)] {
        let outcome = wrmsr(IA32_APIC_BASE, place | start & 0xfff);
        line.item(name, Verdict(outcome));
        // This cannot fault: the MSR had this value before.
        let _ = wrmsr(IA32_APIC_BASE, start);
    }
}

/// Writes good and bad values to IA32_APIC_BASE, and moves the local APIC.
pub fn apicbase(line: &mut Line) {
    let Ok(start) = rdmsr(IA32_APIC_BASE) else {
        return line.word("none");
    };
    let flags = start & 0xfff;
    let elsewhere = 0xfef0_0000;
    line.item("start", format_args!("{start:#x}"));
    move_apic(line, start, "same", start);
    move_apic(line, start, "bit-0", start | 1);
    move_apic(line, start, "bit-9", start | 1 << 9);
    move_apic(line, start, "bit-63", start | 1 << 63);
    move_apic(line, start, "x2-without-enabled", start & !APIC_ENABLED | APIC_X2);
    move_apic(line, start, "elsewhere", elsewhere | flags);
    line.item("version", format_args!("{:#x}", Apic::find().read(APIC_VERSION)));
    let _ = wrmsr(IA32_APIC_BASE, elsewhere | flags);
    line.item("version-elsewhere", format_args!("{:#x}", Apic::find().read(APIC_VERSION)));
    line.item("back", Verdict(wrmsr(IA32_APIC_BASE, start)));
}
