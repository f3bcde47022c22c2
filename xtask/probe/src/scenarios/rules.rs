//! The rules for entering the guest that Vidar has found to be broken with `check=on`.

use core::str;

use crate::line::Line;
use crate::vidar;

/// What Vidar's log says after the number of a rule.
const AFTER: &[u8] = b" is broken: ";
/// The number of bytes before that which are kept: more than the number of a rule has.
const KEPT: usize = 16;

/// Names the rules of which Vidar's log says that they are broken.
pub fn rules(line: &mut Line) {
    let mut last = [b' '; KEPT + AFTER.len()];
    let mut any = false;
    vidar::read_log(|byte| {
        last.rotate_left(1);
        last[KEPT + AFTER.len() - 1] = byte;
        if let Some(before) = last.strip_suffix(AFTER) {
            any = true;
            let number = before.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
            line.item("broken", str::from_utf8(number).unwrap_or("?"));
        }
    });
    if !any {
        line.item("broken", "none");
    }
}
