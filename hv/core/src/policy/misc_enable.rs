//! IA32_MISC_ENABLE as the guest has it: without events that Vidar refuses, and with an XD Bit Disable that is not the
//! CPU's. Intel SDM Vol. 4, 2.1 "Architectural MSRs".

/// Processor Event Based Sampling Unavailable, which is read-only.
const PEBS_UNAVAILABLE: u64 = 1 << 12;
/// XD Bit Disable. In the CPU it would make the no-execute bit of Vidar's own pages a reserved one.
const XD_DISABLE: u64 = 1 << 34;

/// What the guest reads where the CPU has `native`; `xd_disabled` is what it wrote last. A CPU without the debug store has no
/// PEBS whose absence there would be to tell.
pub const fn read(native: u64, has_debug_store: bool, xd_disabled: bool) -> u64 {
    let pebs = if has_debug_store { PEBS_UNAVAILABLE } else { 0 };
    let xd = if xd_disabled { XD_DISABLE } else { 0 };
    native & !XD_DISABLE | pebs | xd
}

/// Splits a write of `value` into the value for the CPU, which has `native`, and whether no-execute is disabled then.
pub const fn write(value: u64, native: u64) -> (u64, bool) {
    const OWN: u64 = PEBS_UNAVAILABLE | XD_DISABLE;
    (value & !OWN | native & OWN, value & XD_DISABLE != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pebs_is_unavailable_where_it_could_be() {
        assert_eq!(read(1, true, false), 1 << 12 | 1);
        assert_eq!(read(1, false, false), 1);
    }

    #[test]
    fn xd_disable_reads_back_and_never_reaches_the_cpu() {
        let (to_cpu, disabled) = write(1 << 34 | 1 << 12 | 1, 0);
        assert_eq!((to_cpu, disabled), (1, true));
        assert_eq!(read(to_cpu, true, disabled), 1 << 34 | 1 << 12 | 1);
        assert_eq!(
            write(1 << 12 | 1, 1 << 12),
            (1 << 12 | 1, false),
            "what is read-only stays as the CPU has it"
        );
    }
}
