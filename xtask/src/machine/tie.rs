//! Ties an emulator to this process, so that it ends when this process does.

use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Returns a command whose process is killed when this process ends, even if it is killed. This needs a `setpriv` that
/// can do it; that of busybox cannot, and the command is then not tied.
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
