//! IA32_MISC_ENABLE as the guest sees it: PEBS is unavailable, since Vidar refuses it, and XD Bit Disable never reaches
//! the CPU. Intel SDM Vol. 4, 2.1 "Architectural MSRs".

use crate::policy::msr::{Context, Effect, Read, Row, Write};
use crate::x86::msr::{Fault, MISC_ENABLE};

/// The row for the table.
pub const ROW: Row = Row::new(&[MISC_ENABLE..=MISC_ENABLE], Read::Handled(read), Write::Handled(write));

/// Processor Event Based Sampling Unavailable, which is read-only.
const PEBS_UNAVAILABLE: u64 = 1 << 12;
/// XD Bit Disable. In the CPU it would make the no-execute bit of Vidar's own page tables reserved.
const XD_DISABLE: u64 = 1 << 34;
/// CPUID.01H:EDX.DS: the CPU has the debug store.
const DEBUG_STORE: u32 = 1 << 21;

/// Returns the CPU's value with XD Bit Disable as the guest has written it, and with PEBS unavailable. A CPU without
/// the debug store has no PEBS, and keeps its own bit.
fn read(context: &mut dyn Context) -> Result<u64, Fault> {
    let native = context.native()?;
    let pebs = if context.cpuid(1, 0).edx & DEBUG_STORE != 0 { PEBS_UNAVAILABLE } else { 0 };
    let xd = if context.execute_is_disabled() { XD_DISABLE } else { 0 };
    Ok(native & !XD_DISABLE | pebs | xd)
}

/// Writes all bits to the CPU but these two, of which the CPU keeps its own values.
fn write(value: u64, context: &mut dyn Context) -> Result<Effect, Fault> {
    const OWN: u64 = PEBS_UNAVAILABLE | XD_DISABLE;
    let to_cpu = value & !OWN | context.native()? & OWN;
    Ok(Effect::DisableExecute { value: to_cpu, disabled: value & XD_DISABLE != 0 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::context::Fixed;
    use crate::x86::cpuid::Leaf;

    #[test]
    fn pebs_is_unavailable_on_a_cpu_with_the_debug_store() {
        let leaf = Leaf { edx: DEBUG_STORE, ..Leaf::default() };
        let mut context = Fixed { native: Some(1), leaf, ..Fixed::default() };
        assert_eq!(read(&mut context), Ok(1 << 12 | 1));
        context.leaf = Leaf::default();
        assert_eq!(read(&mut context), Ok(1));
    }

    #[test]
    fn xd_disable_reads_back_and_never_reaches_the_cpu() {
        let mut context = Fixed { native: Some(0), ..Fixed::default() };
        let effect = write(1 << 34 | 1 << 12 | 1, &mut context);
        assert_eq!(effect, Ok(Effect::DisableExecute { value: 1, disabled: true }));
        context.execute_is_disabled = true;
        context.native = Some(1);
        assert_eq!(read(&mut context), Ok(1 << 34 | 1));
    }

    #[test]
    fn the_read_only_bit_keeps_the_cpus_value() {
        let mut context = Fixed { native: Some(1 << 12), ..Fixed::default() };
        let effect = write(1 << 12 | 1, &mut context);
        assert_eq!(effect, Ok(Effect::DisableExecute { value: 1 << 12 | 1, disabled: false }));
    }

    #[test]
    fn accesses_fault_on_a_cpu_without_the_msr() {
        let mut context = Fixed::default();
        assert_eq!(read(&mut context), Err(Fault));
        assert_eq!(write(0, &mut context), Err(Fault));
    }
}
