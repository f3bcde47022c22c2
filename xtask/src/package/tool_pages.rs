//! The manual page vidarctl(1) and the completion of its command line in bash, both from the command line's own table.

use anyhow::Result;
use clap::Command;
use clap_complete::{Shell, generate};
use clap_mangen::Man;

/// Returns the source of vidarctl(1). The page of the program has those of its commands in it.
pub fn manual() -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(vidarctl::command().flatten_help(true)).section("1").render(&mut page)?;
    Ok(page)
}

/// Returns the completion for bash.
pub fn completion() -> Vec<u8> {
    let mut script = Vec::new();
    let mut command: Command = vidarctl::command();
    generate(Shell::Bash, &mut command, "vidarctl", &mut script);
    script
}
