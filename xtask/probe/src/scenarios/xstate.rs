//! Extended state: XCR0, whose value Vidar checks before it sets it, and the registers, which Vidar does not use.

#![expect(unsafe_code, reason = "assembly fills the vector registers")]

use core::arch::{asm, naked_asm};

use crate::attempt::{Hex, Outcome, Verdict, attempt, keeping_cr4, set_cr4, xsetbv as set};
use crate::cpu::{cpuid, cr4};
use crate::line::Line;
use crate::user;

/// The bit OSXSAVE of CR4.
pub const CR4_OSXSAVE: u64 = 1 << 18;

const X87: u64 = 1;
const SSE: u64 = 1 << 1;
const AVX: u64 = 1 << 2;
const BOUNDS: u64 = 1 << 3;
const AVX512: u64 = 7 << 5;
const OPMASK: u64 = 1 << 5;
const PKRU: u64 = 1 << 9;

/// The number of exits before the registers are compared.
const ROUNDS: u32 = 1000;

/// Executes XSETBV at CPL 3, with a value that is good at CPL 0.
#[unsafe(naked)]
extern "C" fn xsetbv_at_cpl3() {
    naked_asm!("mov eax, 1", "xor ecx, ecx", "xor edx, edx", "xsetbv", "int 0x80")
}

fn xcr0() -> Outcome<u64> {
    let (low, high): (u32, u32);
    attempt!("xgetbv"; in("ecx") 0, inout("eax") 0 => low, inout("edx") 0 => high)?;
    Ok(u64::from(high) << 32 | u64::from(low))
}

/// Returns the bits of XCR0 that the CPU supports.
fn supported() -> u64 {
    let [low, _, _, high] = cpuid(0xd, 0);
    u64::from(high) << 32 | u64::from(low)
}

fn has_xsave() -> bool {
    cpuid(1, 0)[2] >> 26 & 1 == 1
}

/// Writes good and bad values to XCR0, and reads the size of the state from CPUID after each.
pub fn xsetbv(line: &mut Line) {
    if !has_xsave() {
        return line.word("none");
    }
    let supported = supported();
    let unsupported = 1 << supported.trailing_ones();
    line.item("supported", format_args!("{supported:#x}"));
    line.item("without-osxsave", Verdict(set(0, X87)));
    keeping_cr4(|| {
        line.item("osxsave", Verdict(set_cr4(cr4() | CR4_OSXSAVE)));
        line.item("start", Hex(xcr0()));
        for (name, value) in [
            ("nothing", 0),
            ("sse-alone", SSE),
            ("x87", X87),
            ("sse", X87 | SSE),
            ("avx-without-sse", X87 | AVX),
            ("avx", X87 | SSE | AVX),
            ("half-of-mpx", X87 | BOUNDS),
            ("opmask-alone", X87 | SSE | AVX | OPMASK),
            ("avx512", X87 | SSE | AVX | AVX512),
            ("avx512-without-avx", X87 | SSE | AVX512),
            ("pkru", X87 | PKRU),
            ("unsupported", X87 | unsupported),
            ("bit-62", X87 | 1 << 62),
            ("bit-63", X87 | 1 << 63),
            ("all", supported),
        ] {
            let outcome = set(0, value);
            line.item(name, format_args!("{}/{}/{:#x}", Verdict(outcome), Hex(xcr0()), cpuid(0xd, 0)[1]));
            // This cannot fault: XCR0 is 1 after a reset.
            let _ = set(0, X87);
        }
        for index in [1, 2, u32::MAX] {
            line.item(format_args!("xcr{index:x}"), Verdict(set(index, X87)));
        }
        let code = xsetbv_at_cpl3 as *const () as u64;
        // SAFETY: the function uses no stack, writes only registers that it may change, and ends with INT 0x80.
        line.item("cpl3", Verdict(unsafe { user::visit(code, 0) }.map(drop)));
    });
}

/// A save area with the size and the alignment that FXSAVE and XSAVE require.
#[repr(C, align(64))]
pub struct Area([u8; 4096]);

impl Area {
    /// An area of zeros.
    pub const ZERO: Self = Self([0; 4096]);
}

static mut PATTERN: Area = Area::ZERO;
static mut BEFORE: Area = Area::ZERO;
static mut AFTER: Area = Area::ZERO;

/// Prepares the areas for a comparison: fills the one to load from with a pattern, and the others with zeros.
fn areas() -> (*mut Area, *mut Area, *mut Area) {
    let (pattern, before, after) = (&raw mut PATTERN, &raw mut BEFORE, &raw mut AFTER);
    // SAFETY: one CPU runs, and no scenario keeps a reference to the areas.
    unsafe {
        for (index, byte) in (*pattern).0.iter_mut().enumerate() {
            *byte = ((index * 37) >> 3) as u8 ^ index as u8;
        }
        (*before).0.fill(0);
        (*after).0.fill(0);
    }
    (pattern, before, after)
}

fn same(before: *const Area, after: *const Area) -> &'static str {
    // SAFETY: the areas are static, and nothing writes to them now.
    let (before, after) = unsafe { (&(*before).0, &(*after).0) };
    match (before == after, before.iter().any(|byte| *byte != 0)) {
        (true, true) => "kept",
        (true, false) => "empty",
        (false, _) => "lost",
    }
}

/// Fills the registers by these instructions, saves them, exits `ROUNDS` times, and saves them again. Returns the
/// comparison of the two saved states.
macro_rules! survives {
    ($save:literal, $($load:literal),+) => {{
        let (pattern, before, after) = areas();
        // SAFETY: the areas are large enough and aligned for what is loaded and saved, and the target has no code
        // that would keep a value in these registers.
        unsafe {
            asm!(
                "mov r12, rbx",
                $($load,)+
                "mov eax, -1",
                "mov edx, -1",
                concat!($save, " [rsi]"),
                "2:",
                "mov eax, 0x80000000",
                "xor ecx, ecx",
                "cpuid",
                "dec r13d",
                "jnz 2b",
                "mov eax, -1",
                "mov edx, -1",
                concat!($save, " [r14]"),
                "mov rbx, r12",
                in("rdi") pattern,
                in("rsi") before,
                in("r14") after,
                inout("r13") ROUNDS => _,
                out("rax") _, out("rcx") _, out("rdx") _, out("r12") _,
            );
        }
        same(before, after)
    }};
}

/// Compares the x87 stack and the registers XMM, YMM and ZMM before and after a thousand exits.
pub fn fpu(line: &mut Line) {
    let kept = survives!(
        "fxsave64",
        "fninit",
        "fldpi",
        "fld1",
        "fldl2e",
        "push 0x7f80",
        "ldmxcsr [rsp]",
        "pop rax",
        ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "movdqu xmm\\i, [rdi + 16 * \\i]",
        ".endr"
    );
    line.item("x87-and-xmm", kept);
    if !has_xsave() {
        return;
    }
    let supported = supported();
    keeping_cr4(|| {
        // The scenario `xsetbv` tests the outcome of both.
        let _ = set_cr4(cr4() | CR4_OSXSAVE);
        if supported & AVX != 0 && set(0, X87 | SSE | AVX).is_ok() {
            let kept = survives!(
                "xsave64",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
                "vmovdqu ymm\\i, [rdi + 32 * \\i]",
                ".endr"
            );
            line.item("ymm", kept);
        }
        if supported & AVX512 == AVX512 && set(0, X87 | SSE | AVX | AVX512).is_ok() {
            let kept = survives!(
                "xsave64",
                "kmovw k1, [rdi]",
                "kmovw k7, [rdi + 64]",
                ".irp i, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 20, 24, 28, 31",
                "vmovdqu64 zmm\\i, [rdi + 64 * \\i]",
                ".endr"
            );
            line.item("zmm", kept);
        }
        let _ = set(0, X87);
    });
}
