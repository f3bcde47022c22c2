//! `cargo xtask run`: boots a guest, with the user's terminal as its console.

use std::io::{Read, Write, stdin, stdout};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::flag;

use crate::iso::{self, Recipe};
use crate::machine::gdb::Relay;
use crate::machine::{Machine, RunningMachine, Spec};
use crate::paths;
use crate::terminal::Raw;

/// The port of this host at which gdb finds the guest, if it is free.
const GDB_PORT: u16 = 1234;

/// Ctrl-A, the key that begins a command to this program.
const ESCAPE: u8 = 0x01;

/// Makes the ISO of `recipe` and boots it in `machine`, with the terminal as the console, until the guest powers off or
/// the user quits. `spec` describes the machine. With `symbols`, gdb can debug the guest with the symbols of this file.
pub fn interactive(recipe: &Recipe, machine: Machine, symbols: Option<&Path>, spec: Spec) -> Result<()> {
    // Each run has a folder of its own, so that two can run at once. The folder is kept only if the machine failed.
    let mut dir = tempfile::Builder::new().prefix("run-").tempdir_in(paths::ensure(paths::machines())?)?;
    let iso = dir.path().join("vidar.iso");
    iso::make_with_progress(recipe, &iso)?;
    let spec = Spec { dir: dir.path().to_path_buf(), iso, ..spec };
    let mut running = machine.start(&spec).inspect_err(|_| dir.disable_cleanup(true))?;
    if let Some(symbols) = symbols {
        let relay = Relay::open(running.second_serial()?, GDB_PORT)?;
        eprintln!(
            "Type in another terminal: gdb {} -ex 'target remote localhost:{}'",
            symbols.display(),
            relay.port()
        );
    }
    eprintln!("Booting in {}. Ctrl-A x quits, Ctrl-A Ctrl-A sends Ctrl-A.", machine.name());
    let end = {
        let _raw = Raw::enter()?;
        bridge(&mut running)
    }?;
    match end {
        End::Quit => eprintln!("\nQuit."),
        End::Signal => bail!("this program was ended by a signal"),
        End::PoweredOff => eprintln!("\nThe guest powered the machine off."),
        End::Died => {
            let log = running.emulator_log();
            let why = log.lines().rev().find(|line| line.contains("PANIC") || line.contains(">>"));
            dir.disable_cleanup(true);
            bail!(
                "the machine ended without being powered off ({}): see its logs in {}",
                why.unwrap_or("the emulator gave no reason"),
                dir.path().display()
            );
        }
    }
    Ok(())
}

enum End {
    Quit,
    Signal,
    PoweredOff,
    Died,
}

/// Connects the terminal and the guest's serial port, until the machine ends or the user quits.
fn bridge(running: &mut RunningMachine) -> Result<End> {
    let from_guest = running.serial()?;
    let to_guest = running.serial()?;
    let output = thread::spawn(move || show(from_guest));
    let signalled = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        flag::register(signal, Arc::clone(&signalled)).context("cannot watch for signals")?;
    }
    let end = feed(running, to_guest, &signalled);
    // This ends the other thread after it has shown the guest's last output.
    running.serial()?.shutdown(Shutdown::Both).ok();
    output.join().ok();
    end
}

fn show(mut from_guest: TcpStream) {
    let mut bytes = [0; 4096];
    let mut out = stdout().lock();
    while let Ok(count @ 1..) = from_guest.read(&mut bytes) {
        if out.write_all(&bytes[..count]).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
}

/// Sends what the user types to the guest, until the machine ends or the user wants to quit.
fn feed(running: &mut RunningMachine, mut to_guest: TcpStream, signalled: &AtomicBool) -> Result<End> {
    let mut keys = Keys::default();
    let mut open = true;
    loop {
        if signalled.load(Ordering::Relaxed) {
            return Ok(End::Signal);
        }
        if let Some(well) = running.ended(Duration::ZERO)? {
            return Ok(if well { End::PoweredOff } else { End::Died });
        }
        if !open {
            thread::sleep(Duration::from_millis(100));
            continue;
        }
        let input = stdin();
        let mut waited = [PollFd::new(&input, PollFlags::IN)];
        let soon = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
        match poll(&mut waited, Some(&soon)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(error) => return Err(error).context("cannot wait for the terminal"),
        }
        let mut bytes = [0; 256];
        let count = rustix::io::read(input.as_fd(), &mut bytes).context("cannot read the terminal")?;
        // At the end of a file or a pipe, the guest continues to run and its output is still shown.
        open = count != 0;
        let (sent, quit) = keys.take(&bytes[..count]);
        if quit {
            return Ok(End::Quit);
        }
        // If the machine is just ending, writing may fail. The next iteration sees that it has ended.
        let _ = to_guest.write_all(&sent);
    }
}

/// Finds this program's own keys in what the user types.
#[derive(Default)]
struct Keys {
    escaped: bool,
}

impl Keys {
    /// Returns the bytes for the guest, and true if the user wants to quit.
    fn take(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut sent = Vec::new();
        for &byte in typed {
            match (self.escaped, byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x' | b'X') => return (sent, true),
                (true, ESCAPE) => {
                    sent.push(ESCAPE);
                    self.escaped = false;
                }
                (true, other) => {
                    sent.extend([ESCAPE, other]);
                    self.escaped = false;
                }
                (false, other) => sent.push(other),
            }
        }
        (sent, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quit_key_is_found_across_reads() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ab\x01"), (b"ab".to_vec(), false));
        assert_eq!(keys.take(b"xc"), (Vec::new(), true));
    }

    #[test]
    fn other_keys_reach_the_guest() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"\x03x\x01\x01x"), (b"\x03x\x01x".to_vec(), false));
        assert_eq!(keys.take(b"\x01k"), (b"\x01k".to_vec(), false));
    }
}
