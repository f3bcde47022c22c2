//! Instructions that exit, with all kinds of prefixes: the guest must resume right after them. In one case the
//! instruction lies in two pages whose physical addresses are not adjacent.

#![expect(unsafe_code, reason = "the instructions under test exist only as bytes")]

use core::arch::asm;

use super::step::stepping;
use crate::attempt::{Verdict, attempt, keeping_cr4, set_cr4};
use crate::line::Line;
use crate::{cpu, vidar, window};

const CR4_OSXSAVE: u64 = 1 << 18;

/// Steps over instructions with prefixes.
pub fn lengths(line: &mut Line) {
    macro_rules! cpuid {
        ($name:literal, $bytes:literal) => {
            line.item($name, stepping!($bytes; inout("rax") 0x8000_0000_u64 => _, out("rcx") _, out("rdx") _));
        };
    }
    cpuid!("cpuid", ".byte 0x0f, 0xa2");
    cpuid!("operand-size", ".byte 0x66, 0x0f, 0xa2");
    cpuid!("address-size", ".byte 0x67, 0x0f, 0xa2");
    cpuid!("rep", ".byte 0xf3, 0x0f, 0xa2");
    cpuid!("rex", ".byte 0x48, 0x0f, 0xa2");
    cpuid!("rex-ignored", ".byte 0x48, 0x2e, 0x0f, 0xa2");
    cpuid!("segments", ".byte 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x0f, 0xa2");
    cpuid!("longest", ".byte 0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x66,0x0f,0xa2");
    let apic_base = crate::attempt::rdmsr(0x1b).unwrap_or(0);
    let (low, high) = (apic_base as u32, (apic_base >> 32) as u32);
    line.item(
        "wrmsr",
        stepping!(".byte 0x64, 0x49, 0x0f, 0x30"; in("ecx") 0x1b, in("eax") low, in("edx") high),
    );
    line.item("rdmsr", stepping!(".byte 0x2e, 0x41, 0x0f, 0x32"; in("ecx") 0x3a, out("eax") _, out("edx") _));
    line.item("invd", stepping!(".byte 0x65, 0x65, 0x0f, 0x08"));
    if cpu::cpuid(1, 0)[2] >> 26 & 1 == 1 {
        keeping_cr4(|| {
            let _ = set_cr4(cpu::cr4() | CR4_OSXSAVE);
            let traps = stepping!(".byte 0x64, 0x48, 0x0f, 0x01, 0xd1"; in("ecx") 0, in("eax") 1, in("edx") 0);
            line.item("xsetbv", traps);
        });
    }
    if vidar::amd() && vidar::present() {
        line.item("vmmcall", stepping!(".byte 0x3e, 0x48, 0x0f, 0x01, 0xd9"; inout("rax") u64::MAX => _));
    }
    line.item("two-pages", straddling());
}

/// Executes the same instructions with a LOCK prefix, which none of them allows. INVD is left out, since it does not
/// exit in QEMU.
pub fn locked(line: &mut Line) {
    // A CPU that executes WRMSR with LOCK writes the value that the MSR has.
    let apic_base = crate::attempt::rdmsr(0x1b).unwrap_or(0);
    macro_rules! show {
        ($name:literal, $bytes:literal, $msr:expr) => {
            let tried = attempt!("xchg rbx, {rbx}", $bytes, "99:", "xchg rbx, {rbx}"; rbx = inout(reg) 0_u64 => _,
                inout("rax") apic_base & 0xffff_ffff => _, inout("rcx") $msr => _, inout("rdx") apic_base >> 32 => _);
            line.item($name, Verdict(tried));
        };
    }
    show!("cpuid", ".byte 0xf0, 0x0f, 0xa2", 0_u64);
    show!("cpuid-longer", ".byte 0x66, 0xf0, 0x48, 0x0f, 0xa2", 0_u64);
    // Reads of EFER exit.
    show!("rdmsr", ".byte 0xf0, 0x0f, 0x32", 0xc000_0080_u64);
    show!("wrmsr", ".byte 0xf0, 0x0f, 0x30", 0x1b_u64);
    show!("xsetbv", ".byte 0xf0, 0x0f, 0x01, 0xd1", 0_u64);
    show!("vmmcall", ".byte 0xf0, 0x0f, 0x01, 0xd9", 0_u64);
}

/// Executes CPUID at an address inside of Vidar's region. The guest sees a decoy there, which Vidar does not reach in
/// the same way as the guest's other memory.
pub fn hidden(line: &mut Line) {
    let Some((base, size)) = vidar::region() else {
        return line.word("none");
    };
    // push rbx; prefix CS, CPUID; pop rbx; ret. The prefix makes CPUID longer than two bytes, so that a length that is
    // only assumed is wrong.
    const CODE: [u8; 6] = [0x53, 0x2e, 0x0f, 0xa2, 0x5b, 0xc3];
    let entry = window::show((base + size / 2) & !0xfff);
    let expected = cpu::cpuid(0x8000_0000, 0);
    let (eax, ecx, edx): (u64, u64, u64);
    // SAFETY: nothing uses the page, and the bytes are a function that changes only the registers that are named here.
    unsafe {
        (entry as *mut [u8; 6]).write_volatile(CODE);
        asm!("call {entry}", entry = in(reg) entry, inout("rax") 0x8000_0000_u64 => eax, inout("rcx") 0_u64 => ecx,
            out("rdx") edx);
    }
    let same = [eax, ecx, edx] == [0, 2, 3].map(|register| expected[register].into());
    line.item("cpuid", if same { "same" } else { "other" });
}

/// Executes a CPUID that begins at the end of one physical page and ends at the beginning of another. Returns `same` if
/// the answer is the same as elsewhere.
fn straddling() -> &'static str {
    // Two physical pages far from the image. The window maps them side by side, in the opposite order.
    const PAGES: [u64; 2] = [0x80_5000, 0x80_2000];
    const END: u64 = 0x1000;
    // push rbx; prefix CS, CPUID; pop rbx; ret
    const BEFORE: [u8; 3] = [0x53, 0x2e, 0x0f];
    const AFTER: [u8; 3] = [0xa2, 0x5b, 0xc3];
    let code = window::show_pages(PAGES);
    let entry = code + END - BEFORE.len() as u64;
    let expected = cpu::cpuid(0x8000_0000, 0);
    let (eax, ecx, edx): (u64, u64, u64);
    // SAFETY: the two pages are free memory, and the bytes are a function that changes only the registers that are
    // named here.
    unsafe {
        (entry as *mut [u8; 3]).write_volatile(BEFORE);
        ((code + END) as *mut [u8; 3]).write_volatile(AFTER);
        asm!("call {entry}", entry = in(reg) entry, inout("rax") 0x8000_0000_u64 => eax, inout("rcx") 0_u64 => ecx,
            out("rdx") edx);
    }
    if [eax, ecx, edx] == [0, 2, 3].map(|register| expected[register].into()) { "same" } else { "other" }
}
