//! IA32_FEATURE_CONTROL as the guest sees it: locked, with VMX and SMX disabled, as if firmware had disabled them.
//! Intel SDM Vol. 3C, 24.7 "Enabling and Entering VMX Operation".

use crate::policy::msr::{Context, Read, Row, Write};
use crate::x86::msr::{FEATURE_CONTROL, Fault};

/// The row for the table.
pub const ROW: Row = Row::new(&[FEATURE_CONTROL..=FEATURE_CONTROL], Read::Handled(read), Write::Refuse);

/// Returns the CPU's value with the lock bit set and the bits of VMX and SMX clear.
fn read(context: &mut dyn Context) -> Result<u64, Fault> {
    const LOCK: u64 = 1;
    const VMX_AND_SMX: u64 = 0b110 | 0xff << 8;
    Ok(context.native()? & !VMX_AND_SMX | LOCK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::context::Fixed;

    #[test]
    fn the_guest_reads_that_vmx_and_smx_are_disabled_and_locked() {
        for (native, seen) in [(0b101, 1), (0, 1), (1 << 20 | 0xff07, 1 << 20 | 1)] {
            assert_eq!(
                read(&mut Fixed { native: Some(native), ..Fixed::default() }),
                Ok(seen),
                "{native:#x}"
            );
        }
        assert_eq!(read(&mut Fixed::default()), Err(Fault), "a CPU without the MSR");
    }
}
