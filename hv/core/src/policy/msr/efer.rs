//! IA32_EFER, whose bits are the guest's as far as the extension leaves them to it. The rows are in the tables of the backends.

use super::context::Context;
use super::row::Effect;
use crate::policy::control;
use crate::x86::msr::{EFER_NXE, Fault};

/// The guest reads its own value. The CPU's may have SVME set for Vidar.
///
/// # Errors
/// None.
pub fn read(context: &mut dyn Context) -> Result<u64, Fault> {
    Ok(context.controls().efer)
}

/// The guest writes by the rules of [`control::write_efer`], and cannot enable no-execute while it has that disabled.
///
/// # Errors
/// [`Fault`] where the CPU gives #GP.
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
