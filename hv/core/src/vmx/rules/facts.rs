//! What the rules must know of the CPU: its capability MSRs, and features from CPUID.

use crate::mem::addr::Hpa;
use crate::vmx::capabilities::RawCapabilities;
use crate::x86::cpuid::Leaf;

/// What the rules must know of the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Facts {
    /// The capability MSRs by which Vidar chooses its controls.
    pub capabilities: RawCapabilities,
    /// IA32_VMX_PROCBASED_CTLS3, or 0 if the CPU lacks it.
    pub tertiary: u64,
    /// IA32_VMX_EXIT_CTLS2, or 0 if the CPU lacks it.
    pub secondary_exit: u64,
    /// IA32_VMX_VMFUNC, or 0 if the CPU lacks it.
    pub functions: u64,
    /// The width of a physical address in bits, MAXPHYADDR.
    pub address_bits: u32,
    /// The width of a linear address in bits.
    pub linear_bits: u32,
    /// The bits of IA32_PERF_GLOBAL_CTRL that exist.
    pub perf_global: u64,
    /// The CPU is in IA-32e mode now.
    pub ia32e: bool,
    /// The CPU is in system-management mode now.
    pub smm: bool,
    /// The CPU has linear-address masking, which has two bits in CR3.
    pub lam: bool,
    /// The CPU has CET.
    pub cet: bool,
    /// The CPU reports bus locks by debug exceptions.
    pub bus_lock: bool,
    /// The CPU has restricted transactional memory.
    pub rtm: bool,
    /// The CPU has SGX.
    pub sgx: bool,
    /// The address of the current VMCS.
    pub current: Hpa,
}

impl Facts {
    /// Completes `self`, which has the MSRs, the width of a physical address and the current VMCS, by what CPUID says.
    /// `native` executes CPUID.
    #[must_use]
    #[cold]
    pub fn with_cpuid(self, native: impl Fn(u32, u32) -> Leaf) -> Self {
        let highest = native(0, 0).eax;
        let leaf = |leaf, subleaf| if leaf <= highest { native(leaf, subleaf) } else { Leaf::default() };
        let seven = leaf(7, 0);
        let more = if seven.eax >= 1 { leaf(7, 1) } else { Leaf::default() };
        // ArchPerfmonExt: leaf 23H has more counters than leaf 0AH can name.
        let more_counters = more.eax & 1 << 8 != 0 && leaf(0x23, 0).eax & 1 << 1 != 0;
        let extended = if more_counters { leaf(0x23, 1) } else { Leaf::default() };
        let wide = native(0x8000_0000, 0).eax >= 0x8000_0008;
        Self {
            linear_bits: if wide { (native(0x8000_0008, 0).eax >> 8 & 0xff).clamp(48, 57) } else { 48 },
            perf_global: global_counters(leaf(0xa, 0), extended),
            lam: more.eax & 1 << 26 != 0,
            cet: seven.ecx & 1 << 7 != 0 || seven.edx & 1 << 20 != 0,
            bus_lock: seven.ecx & 1 << 24 != 0,
            rtm: seven.ebx & 1 << 11 != 0,
            sgx: seven.ebx & 1 << 2 != 0,
            ..self
        }
    }
}

/// Returns the bits of IA32_PERF_GLOBAL_CTRL that exist: one for each general-purpose counter from bit 0, one for each
/// fixed-function counter from bit 32, and bit 48 for the metrics, which CPUID does not report. `leaf` is CPUID.0AH,
/// which has the number of the counters, and `extended` CPUID.(23H,1), which has a bit for each of them. Intel SDM Vol.
/// 3B, 20.2.2 "Architectural Performance Monitoring Version 2" and 20.2.6 "Architectural Performance Monitoring Version
/// 6".
fn global_counters(leaf: Leaf, extended: Leaf) -> u64 {
    let general = ((1 << (leaf.eax >> 8 & 0xff).min(32)) - 1) | u64::from(extended.eax);
    let fixed = ((1 << (leaf.edx & 0x1f).min(16)) - 1) | u64::from(leaf.ecx | extended.ebx) & 0xffff;
    general | fixed << 32 | 1 << 48
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_those_that_cpuid_reports() {
        let all = |leaf, subleaf| match leaf {
            0 => Leaf { eax: 0x23, ..Leaf::default() },
            0xa => Leaf { eax: 0x0800, edx: 3, ..Leaf::default() },
            0x23 if subleaf == 0 => Leaf { eax: 3, ..Leaf::default() },
            0x23 => Leaf { eax: 0xfff, ebx: 0x1f, ..Leaf::default() },
            0x8000_0000 => Leaf { eax: 0x8000_0008, ..Leaf::default() },
            0x8000_0008 => Leaf { eax: 0x3934, ..Leaf::default() },
            _ => Leaf { eax: !0, ebx: !0, ecx: !0, edx: !0 },
        };
        let facts = Facts::default().with_cpuid(all);
        assert!(facts.lam && facts.cet && facts.bus_lock && facts.rtm && facts.sgx);
        assert_eq!((facts.linear_bits, facts.perf_global), (57, 0x1_001f_0000_0fff));
        let before_leaf_23 = Facts::default().with_cpuid(|leaf, subleaf| match leaf {
            0 => Leaf { eax: 0x22, ..Leaf::default() },
            _ => all(leaf, subleaf),
        });
        assert_eq!(before_leaf_23.perf_global, 0x1_0007_0000_00ff);
        let old = Facts::default().with_cpuid(|_, _| Leaf { eax: 1, ebx: !0, ecx: !0, edx: !0 });
        assert_eq!(old, Facts { linear_bits: 48, perf_global: 1 << 48, ..Facts::default() });
    }
}
