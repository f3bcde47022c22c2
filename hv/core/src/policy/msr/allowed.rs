//! The decision about a write of an MSR, and the writes that Vidar executes for the guest.

use super::context::Context;
use super::row::{Effect, Row, Write, policy};
use crate::x86::msr::{EFER, FEATURE_CONTROL, Fault, GS_BASE, PAT, VM_CR, VM_HSAVE_PA};

/// The MSRs to which Vidar never writes a value of the guest, whatever the tables say. Vidar depends on their values
/// while it runs. EFER, PAT and GS_BASE have a value for the guest and one for Vidar, which the CPU or the entry
/// assembly switches. So the guest's writes of them do not exit, or they change the VMCS or the VMCB.
const VIDARS_OWN: [u32; 6] = [EFER, PAT, GS_BASE, FEATURE_CONTROL, VM_CR, VM_HSAVE_PA];

/// A write of an MSR that the policy lets through to the CPU.
///
/// Only the policy's decision about a write of the guest makes one, and executing it consumes it. No other code in
/// Vidar can make [`Processor::wrmsr`](crate::vmm::processor::Processor::wrmsr) write an MSR:
///
/// ```compile_fail
/// use vidar_core::policy::msr::AllowedMsrWrite;
///
/// let switch_svm_off = AllowedMsrWrite { index: 0xc000_0080, value: 0 };
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct AllowedMsrWrite {
    index: u32,
    value: u64,
}

impl AllowedMsrWrite {
    /// Returns the write of `value` to the MSR `index`, or [`Fault`] if it is one of [`VIDARS_OWN`].
    fn new(index: u32, value: u64) -> Result<Self, Fault> {
        if VIDARS_OWN.contains(&index) { Err(Fault) } else { Ok(Self { index, value }) }
    }

    /// Returns the index of the MSR.
    pub const fn index(&self) -> u32 {
        self.index
    }

    /// Returns the value.
    pub const fn value(&self) -> u64 {
        self.value
    }
}

/// Returns the effect of the guest's write of `value` to the MSR `index`, or [`Fault`] if the write raises #GP.
pub(crate) fn decide(
    tables: &[&[Row]],
    index: u32,
    value: u64,
    context: &mut dyn Context,
) -> Result<Effect<AllowedMsrWrite>, Fault> {
    let effect = match policy(tables, index).1 {
        Write::Native => Effect::Write(value),
        Write::Refuse => return Err(Fault),
        Write::Keep => context.native().map(|_| Effect::Nothing)?,
        Write::Without(bits) if value & bits != 0 => return Err(Fault),
        Write::Without(_) => Effect::Write(value),
        Write::Handled(handler) | Write::HandledIfWatched(handler) => handler(value, context)?,
    };
    effect.allow(|value| AllowedMsrWrite::new(index, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::context::Fixed;
    use crate::policy::msr::{COMMON, Read, efer};

    #[test]
    fn the_guests_values_never_reach_the_msrs_that_vidar_depends_on() {
        const EFER_ROW: Row = Row::new(&[EFER..=EFER], Read::Native, Write::HandledIfWatched(efer::write));
        for tables in [&[][..], &[COMMON], &[COMMON, &[EFER_ROW]]] {
            for index in VIDARS_OWN {
                let mut context = Fixed { native: Some(0), efer_allowed: !0, ..Fixed::default() };
                let decision = decide(tables, index, 1, &mut context);
                assert!(
                    matches!(decision, Err(Fault) | Ok(Effect::SetControls(_))),
                    "{index:#x}: {decision:?}"
                );
            }
        }
    }

    #[test]
    fn each_effect_writes_the_value_of_the_handler_to_the_msr_that_the_guest_named() {
        const INDEX: u32 = 0x140;
        type Case = (Write, Effect<AllowedMsrWrite>);
        let write = |value| AllowedMsrWrite { index: INDEX, value };
        let cases: [Case; 6] = [
            (Write::Native, Effect::Write(write(5))),
            (Write::Without(2), Effect::Write(write(5))),
            (Write::Keep, Effect::Nothing),
            (Write::Handled(|value, _| Ok(Effect::WriteMtrr(value + 1))), Effect::WriteMtrr(write(6))),
            (Write::HandledIfWatched(|value, _| Ok(Effect::SendIcr(value))), Effect::SendIcr(write(5))),
            (
                Write::Handled(|value, _| Ok(Effect::DisableExecute { value, disabled: true })),
                Effect::DisableExecute { value: write(5), disabled: true },
            ),
        ];
        for (rule, expected) in cases {
            let table: &'static [Row] = vec![Row::new(&[INDEX..=INDEX], Read::Native, rule)].leak();
            let mut context = Fixed { native: Some(0), ..Fixed::default() };
            assert_eq!(decide(&[table], INDEX, 5, &mut context), Ok(expected));
        }
        for (rule, native) in [(Write::Refuse, Some(0)), (Write::Without(4), Some(0)), (Write::Keep, None)] {
            let table: &'static [Row] = vec![Row::new(&[INDEX..=INDEX], Read::Native, rule)].leak();
            let mut context = Fixed { native, ..Fixed::default() };
            assert_eq!(decide(&[table], INDEX, 5, &mut context), Err(Fault), "{rule:?}");
        }
    }
}
