//! MMIO_CFG_BASE: the guest may not place the configuration space of PCI at Vidar's memory. AMD BKDG for family 10h,
//! "MMIO Configuration Base Address Register".

use core::ops::Range;

use crate::mem::addr::Hpa;
use crate::policy::msr::{Context, Effect, Read, Row, Write};
use crate::x86::msr::{Fault, MMIO_CFG_BASE};

/// The row for the table.
pub const ROW: Row = Row::new(&[MMIO_CFG_BASE..=MMIO_CFG_BASE], Read::Native, Write::Handled(write));

/// Refuses a value whose configuration space overlaps Vidar's memory.
fn write(value: u64, context: &mut dyn Context) -> Result<Effect, Fault> {
    if configuration_space(value).is_some_and(|space| context.keeps(&space)) {
        return Err(Fault);
    }
    Ok(Effect::Write(value))
}

/// Returns the addresses at which the configuration space of PCI may be if MMIO_CFG_BASE is `value`, or `None` if it is
/// disabled. It has 1 MiB for each bus. The base is aligned down to the size, since the CPU may compare only the
/// address bits above the size. For a reserved number of buses all addresses are returned.
pub const fn configuration_space(value: u64) -> Option<Range<Hpa>> {
    const ENABLED: u64 = 1;
    let bus_bits = value >> 2 & 0xf;
    if value & ENABLED == 0 {
        return None;
    }
    if bus_bits > 8 {
        return Some(Hpa(0)..Hpa(u64::MAX));
    }
    let size = 1 << (20 + bus_bits);
    let base = value & 0x0000_ffff_fff0_0000 & !(size - 1);
    Some(Hpa(base)..Hpa(base + size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::msr::context::Fixed;

    #[test]
    fn the_configuration_space_has_the_base_and_size_of_the_value() {
        assert_eq!(configuration_space(0xe000_0021), Some(Hpa(0xe000_0000)..Hpa(0xf000_0000)));
        assert_eq!(configuration_space(0xfd_0000_0001), Some(Hpa(0xfd_0000_0000)..Hpa(0xfd_0010_0000)));
        assert_eq!(configuration_space(0xe000_0020), None, "off");
        assert_eq!(configuration_space(0x0ff0_0021), Some(Hpa(0)..Hpa(0x1000_0000)), "not aligned");
        assert_eq!(configuration_space(0xe000_0025), Some(Hpa(0)..Hpa(u64::MAX)), "512 buses");
    }

    #[test]
    fn a_configuration_space_in_vidars_memory_is_refused() {
        let mut context = Fixed { kept: Some(Hpa(0x20_0000)..Hpa(0x40_0000)), ..Fixed::default() };
        assert_eq!(write(0x20_0001, &mut context), Err(Fault));
        assert_eq!(write(0x40_0001, &mut context), Ok(Effect::Write(0x40_0001)));
        assert_eq!(write(0x20_0000, &mut context), Ok(Effect::Write(0x20_0000)), "off");
    }
}
