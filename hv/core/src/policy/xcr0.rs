//! The values of XCR0 that XSETBV accepts. For the others the guest gets #GP, and Vidar does not execute XSETBV.

/// x87 state, which must always be set.
const X87: u64 = 1 << 0;
/// SSE state.
const SSE: u64 = 1 << 1;
/// AVX state.
const AVX: u64 = 1 << 2;
/// MPX: bound registers and their configuration. Both bits must be equal.
const MPX: u64 = 0b11 << 3;
/// AVX-512: the opmask registers, the upper halves of ZMM0 to ZMM15, and ZMM16 to ZMM31. All three bits must be equal.
const AVX512: u64 = 0b111 << 5;
/// AMX: tile configuration and tile data. Both bits must be equal.
const AMX: u64 = 0b11 << 17;

/// The number of the bit of APX. CPUID hides APX, since Vidar cannot access the registers that it adds.
pub const APX: u32 = 19;

/// Returns true if the guest may write `value` to the extended control register `register`, of which only XCR0 can be
/// written. `supported` is EDX:EAX of CPUID.0DH, subleaf 0. Intel SDM Vol. 1, 13.3 "Enabling the XSAVE Feature Set and
/// XSAVE-Enabled Features".
pub fn valid(register: u32, value: u64, supported: u64) -> bool {
    let whole = |group: u64| value & group == 0 || value & group == group;
    register == 0
        && value & !supported == 0
        && value & 1 << APX == 0
        && value & X87 != 0
        && (value & AVX == 0 || value & SSE != 0)
        && (value & AVX512 == 0 || value & AVX != 0)
        && whole(MPX)
        && whole(AVX512)
        && whole(AMX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_break_a_rule_of_xsetbv_are_refused() {
        let all = X87 | SSE | AVX | MPX | AVX512 | AMX | 1 << 9;
        let supported = all | 1 << APX;
        for good in [X87, X87 | SSE, X87 | SSE | AVX, all, X87 | MPX] {
            assert!(valid(0, good, supported), "{good:#x}");
        }
        for bad in [
            0,
            SSE,
            X87 | AVX,
            X87 | 1 << 3,
            X87 | SSE | AVX512,
            X87 | SSE | AVX | 1 << 5,
            X87 | 1 << 17,
            1 << 63,
            X87 | 1 << APX,
        ] {
            assert!(!valid(0, bad, supported), "{bad:#x}");
        }
        assert!(!valid(1, X87, all), "XCR1 is read-only");
        assert!(!valid(0, X87 | SSE | AVX, X87 | SSE), "no AVX");
    }
}
