//! IA32_APIC_BASE: the guest may not place the local APIC's page in Vidar's memory.

use super::context::Context;
use super::row::{Effect, Read, Row, Write};
use crate::mem::addr::{Hpa, PAGE_SIZE};
use crate::x86::msr::{APIC_BASE, Fault};

/// The row for the tables.
pub const ROW: Row = Row::new(&[APIC_BASE..=APIC_BASE], Read::Native, Write::Handled(write));

/// The end of Vidar's direct map, by which Vidar accesses the local APIC.
const REACH: Hpa = Hpa(4 << 30);

/// Refuses a value that places the local APIC's page at or above 4 GiB or in Vidar's memory, or that moves the page
/// while it is watched.
fn write(value: u64, context: &mut dyn Context) -> Result<Effect, Fault> {
    let page = Hpa(value & 0x000f_ffff_ffff_f000);
    let allowed = page < REACH
        && context.watched_apic().is_none_or(|watched| watched == page.identity())
        && !context.keeps(&(page..page + PAGE_SIZE));
    if allowed { Ok(Effect::Write(value)) } else { Err(Fault) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mem::addr::Gpa;
    use crate::policy::msr::context::Fixed;

    #[test]
    fn the_apics_page_must_be_below_4_gib_and_outside_vidars_memory() {
        let kept = Hpa(0x20_0000)..Hpa(0x40_0000);
        for (value, allowed) in [
            (0xfee0_0900, true),
            (0xffff_f900, true),
            (0x1_0000_0900, false),
            (0x1f_f900, true),
            (0x20_0900, false),
            (0x3f_fd00, false),
            (0x40_0900, true),
        ] {
            let mut context = Fixed { kept: Some(kept.clone()), ..Fixed::default() };
            let expected = if allowed { Ok(Effect::Write(value)) } else { Err(Fault) };
            assert_eq!(write(value, &mut context), expected, "{value:#x}");
        }
    }

    #[test]
    fn a_watched_page_cannot_be_moved() {
        let mut context = Fixed { watched_apic: Some(Gpa(0xfee0_0000)), ..Fixed::default() };
        assert_eq!(write(0xfee0_0d00, &mut context), Ok(Effect::Write(0xfee0_0d00)));
        assert_eq!(write(0xfed0_0900, &mut context), Err(Fault));
    }
}
