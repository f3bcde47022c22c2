//! Emulators that end when we do.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A command that dies with us, even if we are killed, where this host's `setpriv` can do that; that of busybox cannot.
pub fn tied_to_us(program: &str) -> Command {
    const TIE: [&str; 2] = ["--pdeathsig", "KILL"];
    static CAN_TIE: OnceLock<bool> = OnceLock::new();
    let ties = CAN_TIE.get_or_init(|| {
        let tried = Command::new("setpriv").args(TIE).arg("true").stdin(Stdio::null()).output();
        tried.is_ok_and(|output| output.status.success())
    });
    if *ties {
        let mut command = Command::new("setpriv");
        command.args(TIE).arg(program);
        command
    } else {
        Command::new(program)
    }
}
