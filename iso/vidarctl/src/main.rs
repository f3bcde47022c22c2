//! Shows the state of Vidar, from inside its guest.

use std::process::ExitCode;

fn main() -> ExitCode {
    vidarctl::run(std::env::args_os())
}
