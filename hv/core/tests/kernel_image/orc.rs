//! The tables of call frames.

use vidar_core::kernel::orc::{Base, Kind, Rule};

use super::memory::Memory;
use super::{Era, FUNCTION, FUNCTIONS, Flags, TEXT, in_image};

/// Writes the tables to `at`. Returns the addresses of the symbols around them.
pub fn write(memory: &mut Memory, era: &Era, at: u64) -> [(&'static str, u64); 3] {
    let last = TEXT + FUNCTIONS.len() as u64 * FUNCTION;
    let starts = FUNCTIONS.iter().zip(0..).map(|((_, rule), number)| (TEXT + number * FUNCTION, rule));
    let terminator = Rule { kind: Kind::Undefined, ..FUNCTIONS[0].1 };
    let entries: Vec<_> = starts.chain([(last, &terminator)]).collect();
    let rules = at + 4 * entries.len() as u64;
    for ((address, rule), number) in entries.iter().zip(0..) {
        let place = at + 4 * number;
        memory.write(place, &(address.wrapping_sub(in_image(place)) as u32).to_le_bytes());
        memory.write(rules + 6 * number, &encode(era, rule));
    }
    [
        ("__start_orc_unwind_ip", in_image(at)),
        ("__stop_orc_unwind_ip", in_image(rules)),
        ("__start_orc_unwind", in_image(rules)),
    ]
}

/// Returns the entry for a rule.
pub fn encode(era: &Era, rule: &Rule) -> [u8; 6] {
    // ORC_REG_UNDEFINED and the following ones: arch/x86/include/asm/orc_types.h of Linux 6.12 and of 7.2.
    let number = |base| match (base, era.renumbered) {
        (Base::Undefined, _) => 0,
        (Base::PreviousSp, false) => 1,
        (Base::Saved(12), _) => 2,
        (Base::Saved(14), false) => 3,
        (Base::Bp, _) => 4,
        (Base::Sp, false) => 5,
        (Base::Saved(7), _) => 6,
        (Base::Saved(2), _) => 7,
        (Base::BpIndirect, false) => 8,
        (Base::SpIndirect, _) => 9,
        (Base::Saved(10), false) => 10,
        (Base::Saved(10), true) => 1,
        (Base::Sp, true) => 3,
        (Base::Saved(14), true) => 5,
        (Base::PreviousSp, true) => 8,
        (Base::BpIndirect, true) => 10,
        (Base::Saved(_), _) => unreachable!("no release has such a base"),
    };
    let signal = u8::from(rule.signal);
    let plain = match rule.kind {
        Kind::Undefined | Kind::End | Kind::Call => 0,
        Kind::Registers => 1,
        Kind::Interrupt => 2,
    };
    let end = u8::from(rule.kind == Kind::End);
    let flags = match era.flags {
        Flags::End => plain | end << 2,
        Flags::SignalEnd => plain | signal << 2 | end << 3,
        Flags::Types => {
            let kind = match rule.kind {
                Kind::Undefined => 0,
                Kind::End => 1,
                Kind::Call => 2,
                Kind::Registers => 3,
                Kind::Interrupt => 4,
            };
            kind | signal << 3
        }
    };
    let [sp_low, sp_high] = rule.sp_offset.to_le_bytes();
    let [bp_low, bp_high] = rule.bp_offset.to_le_bytes();
    [sp_low, sp_high, bp_low, bp_high, number(rule.sp) | number(rule.bp) << 4, flags]
}
