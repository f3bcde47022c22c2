//! The CPUID instruction, and the few features that Vidar itself needs to know of.

pub use vidar_core::x86::cpuid::Leaf;

/// Executes CPUID with `leaf` in EAX and `subleaf` in ECX, and returns the four registers.
pub fn cpuid(leaf: u32, subleaf: u32) -> Leaf {
    let result = core::arch::x86_64::__cpuid_count(leaf, subleaf);
    Leaf { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx }
}

/// Returns true if the CPU has VT-x, though firmware may have locked it off: CPUID.01H:ECX.VMX.
pub fn has_vmx() -> bool {
    cpuid(1, 0).ecx & 1 << 5 != 0
}

/// Returns true if the CPU has AMD-V, though firmware may have switched it off: CPUID Fn8000_0001_ECX.SVM.
pub fn has_svm() -> bool {
    cpuid(0x8000_0000, 0).eax >= 0x8000_000a && cpuid(0x8000_0001, 0).ecx & 1 << 2 != 0
}

/// Returns true if page tables have the no-execute bit: CPUID Fn8000_0001_EDX.NX.
pub fn has_no_execute() -> bool {
    cpuid(0x8000_0001, 0).edx & 1 << 20 != 0
}

/// Returns true if Vidar runs under another hypervisor that reports itself: CPUID.01H:ECX, bit 31, which is 0 on a bare
/// CPU.
pub fn has_hypervisor() -> bool {
    cpuid(1, 0).ecx & 1 << 31 != 0
}

/// Returns true if the CPU has MTRRs, which then determine memory types: CPUID.01H:EDX.MTRR.
pub fn has_mtrrs() -> bool {
    cpuid(1, 0).edx & 1 << 12 != 0
}

/// Returns true if XCR0 and CR4.OSXSAVE exist: CPUID.01H:ECX.XSAVE.
pub fn has_xsave() -> bool {
    cpuid(1, 0).ecx & 1 << 26 != 0
}

/// Returns true if the MSRs of CET exist, that is, if the CPU has shadow stacks (CPUID.07H.0:ECX, bit 7) or
/// indirect-branch tracking (EDX, bit 20).
pub fn has_cet() -> bool {
    has_leaf_7() && (cpuid(7, 0).ecx & 1 << 7 != 0 || cpuid(7, 0).edx & 1 << 20 != 0)
}

/// Returns true if the CPU has MPX: CPUID.07H.0:EBX.MPX.
pub fn has_mpx() -> bool {
    has_leaf_7() && cpuid(7, 0).ebx & 1 << 14 != 0
}

/// Returns true if the CPU has SGX: CPUID.07H.0:EBX.SGX.
pub fn has_sgx() -> bool {
    has_leaf_7() && cpuid(7, 0).ebx & 1 << 2 != 0
}

/// Returns true if the CPU has SGX launch control: CPUID.07H.0:ECX.SGX_LC.
pub fn has_sgx_launch_control() -> bool {
    has_leaf_7() && cpuid(7, 0).ecx & 1 << 30 != 0
}

/// Returns true if CPUID has leaf 7.
fn has_leaf_7() -> bool {
    cpuid(0, 0).eax >= 7
}

/// Returns true if page tables can map 1 GiB pages.
pub fn has_1g_pages() -> bool {
    cpuid(0x8000_0000, 0).eax >= 0x8000_0001 && cpuid(0x8000_0001, 0).edx & 1 << 26 != 0
}

/// Returns the width of a physical address in bits. Intel SDM Vol. 3A, 4.1.4 "Enumeration of Paging Features by CPUID".
pub fn physical_address_bits() -> u32 {
    if cpuid(0x8000_0000, 0).eax < 0x8000_0008 {
        return 36;
    }
    (cpuid(0x8000_0008, 0).eax & 0xff).clamp(32, 52)
}

/// Returns the brand string, padded with zeros to 48 bytes, or only zeros if the CPU has none.
pub fn brand() -> [u8; 48] {
    let mut brand = [0; 48];
    if cpuid(0x8000_0000, 0).eax >= 0x8000_0004 {
        for (chunk, leaf) in brand.as_chunks_mut::<16>().0.iter_mut().zip(0x8000_0002..) {
            let Leaf { eax, ebx, ecx, edx } = cpuid(leaf, 0);
            chunk.copy_from_slice([eax, ebx, ecx, edx].map(u32::to_le_bytes).as_flattened());
        }
    }
    brand
}
