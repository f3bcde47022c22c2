//! The features of CPUID leaf 07H that this version of Vidar knows. Intel SDM Vol. 2A, 3.3 "CPUID-CPU Identification".

use crate::x86::cpuid::Leaf;

/// The bits of leaf 07H, subleaves 0 and 1, whose features cause no exit that Vidar cannot decode. On VT-x,
/// instructions may exit whatever the controls are. So a new feature stays hidden there until someone has checked it
/// and set its bit here. Subleaf 2 holds only features for the control of speculation.
pub const KNOWN_FEATURES: [Leaf; 2] = [
    Leaf {
        eax: !0, // the highest subleaf
        ebx: !0,
        ecx: !(1 << 15 | 1 << 26),
        edx: !(1 << 0 | 1 << 6 | 1 << 7 | 1 << 12 | 1 << 17 | 1 << 21),
    },
    Leaf {
        // SHA512, SM3, SM4, RAO-INT, AVX-VNNI, AVX512-BF16, LASS, CMPCCXADD, performance monitoring; fast string
        // operations; FRED, LKGS, WRMSRNS, NMI sources, AMX-FP16, HRESET, AVX-IFMA; LAM, MSRLIST; INVD, MOVRS.
        eax: 0x1ff | 0b111 << 10 | 0x7f << 17 | 0b11 << 26 | 0b11 << 30,
        // PPIN; the limit of CPUID.
        ebx: 1 << 0 | 1 << 3,
        // RDMSR and WRMSRNS with an immediate.
        ecx: 1 << 5,
        // AVX-VNNI-INT8, AVX-NE-CONVERT, AMX-COMPLEX, AVX-VNNI-INT16, PREFETCHI, USER_MSR, UIRET's UIF, CET_SSS, AVX10,
        // APX, MWAIT, SLSM.
        edx: 0b11 << 4 | 1 << 8 | 1 << 10 | 0b11 << 14 | 0b111 << 17 | 1 << 21 | 0b11 << 23,
    },
];
