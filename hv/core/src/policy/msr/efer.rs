//! The handlers of IA32_EFER. The rows are in the tables of the extensions.

use super::context::Context;
use super::row::Effect;
use crate::policy::control;
use crate::x86::msr::{EFER_NXE, Fault};

/// Returns the value that the guest has written. The value in the CPU may have SVME set for Vidar.
///
/// # Errors
/// Never fails.
pub fn read(context: &mut dyn Context) -> Result<u64, Fault> {
    Ok(context.controls().efer)
}

/// Sets EFER by the rules of [`control::write_efer`].
///
/// # Errors
/// Returns [`Fault`] if the CPU raises #GP, or if the write sets NXE while the guest has disabled no-execute pages.
pub fn write(value: u64, context: &mut dyn Context) -> Result<Effect, Fault> {
    if value & EFER_NXE != 0 && context.execute_is_disabled() {
        return Err(Fault);
    }
    control::write_efer(&context.controls(), value, context.efer_allowed()).map(Effect::SetControls)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::control::Controls;
    use crate::policy::msr::context::Fixed;
    use crate::x86::msr::{EFER_SCE, EFER_SVME};

    #[test]
    fn a_bit_can_be_set_if_it_is_allowed() {
        let mut context = Fixed { efer_allowed: EFER_SCE | EFER_NXE, ..Fixed::default() };
        let set = |efer| Ok(Effect::SetControls(Controls { efer, ..Controls::default() }));
        assert_eq!(write(EFER_SCE | EFER_NXE, &mut context), set(EFER_SCE | EFER_NXE));
        assert_eq!(write(EFER_SVME, &mut context), Err(Fault));
        context.execute_is_disabled = true;
        assert_eq!(write(EFER_SCE, &mut context), set(EFER_SCE));
        assert_eq!(write(EFER_NXE, &mut context), Err(Fault));
    }

    #[test]
    fn the_guest_reads_its_own_value() {
        let controls = Controls { efer: EFER_NXE, ..Controls::default() };
        let mut context = Fixed { native: Some(EFER_NXE | EFER_SVME), controls, ..Fixed::default() };
        assert_eq!(read(&mut context), Ok(EFER_NXE));
    }
}
