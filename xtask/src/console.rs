//! Drives the serial console of a machine: waits for the guest's output, and types.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The number of bytes that are typed before their echo is awaited. A UART buffers 16, while a busy guest reads none.
const TYPED_AT_ONCE: usize = 8;
/// The time that the echo of some keys may take. After it, a key counts as lost, and the line is typed again: the UART
/// of Bochs drops a key now and then under load.
const ECHO: Duration = Duration::from_secs(60);
/// How often a line is typed before that is an error.
const TYPINGS: u32 = 3;
/// Ctrl-U, which deletes the line that is being typed.
const KILL_LINE: &str = "\x15";
/// The time that a guest has to answer a key or a command, which is far more than any machine needs.
pub const ANSWER: Duration = Duration::from_secs(300);
/// The time that a guest has from one landmark of its boot to the next.
pub const BOOT: Duration = Duration::from_secs(900);

/// Messages of a guest or of Vidar after which it makes no sense to keep waiting.
const TROUBLE: &[&str] =
    &["Kernel panic - not syncing", "Vidar panicked", "cannot start: ", "the guest has stopped on CPU "];

/// What Vidar shows the end of the last start with. It is no sign of trouble.
const LAST_START: &str = "the last start ended in: ";
/// What the further lines of that begin with.
const MARK: &[u8] = b"| ";

/// Makes the guest's kernel print only emergencies on its console.
const QUIET: &str = "dmesg -n 1";
/// Makes it print everything but debug messages, as it does after boot.
pub const TALK: &str = "dmesg -n 7";

/// The prompt of the shell in the built-in initramfs.
pub const PROMPT: &str = "guest# ";

/// The console of a machine. All output of the machine is also in a log file.
#[derive(Debug)]
pub struct Console {
    to_guest: TcpStream,
    chunks: Receiver<Vec<u8>>,
    /// Output that has arrived and has not been consumed.
    pending: Vec<u8>,
    commands: u32,
}

impl Console {
    /// Returns a console over `serial`. Everything that arrives is written to `log`.
    pub fn new(serial: TcpStream, log: &Path) -> Result<Self> {
        let mut log = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut from_guest = serial.try_clone()?;
        let (sender, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = from_guest.read(&mut bytes) {
                let _ = log.write_all(&bytes[..count]);
                if sender.send(bytes[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Ok(Self { to_guest: serial, chunks, pending: Vec::new(), commands: 0 })
    }

    /// Waits for `wanted`, and returns the output before it.
    pub fn expect(&mut self, wanted: &str, within: Duration) -> Result<String> {
        let begun = Instant::now();
        // Output is searched only once, since it comes byte by byte and there may be much of it.
        let (mut looked, mut line) = (0, 0);
        loop {
            if let Some(at) = find(&self.pending[looked..], wanted.as_bytes()) {
                let at = looked + at;
                let before = String::from_utf8_lossy(&self.pending[..at]).into_owned();
                self.pending.drain(..at + wanted.len());
                return Ok(before);
            }
            if let Some(line) = self.trouble(line) {
                bail!("while {wanted:?} was expected, the machine said: {line}");
            }
            looked = (self.pending.len() + 1).saturating_sub(wanted.len());
            let newline = self.pending[line..].iter().rposition(|&byte| byte == b'\n');
            line += newline.map_or(0, |newline| newline + 1);
            let left = within.saturating_sub(begun.elapsed());
            match self.chunks.recv_timeout(left) {
                Ok(chunk) => self.pending.extend(chunk),
                Err(RecvTimeoutError::Timeout) => bail!("no {wanted:?} within {} s", within.as_secs()),
                Err(RecvTimeoutError::Disconnected) => bail!("the machine ended before it said {wanted:?}"),
            }
        }
    }

    /// Returns the output that comes during `time`, or until the machine ends.
    pub fn listen(&mut self, time: Duration) -> String {
        let begun = Instant::now();
        while let Ok(chunk) = self.chunks.recv_timeout(time.saturating_sub(begun.elapsed())) {
            self.pending.extend(chunk);
        }
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }

    /// Sends keys without waiting for an echo.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        self.to_guest.write_all(keys.as_bytes()).context("the machine does not take keys any more")
    }

    /// Types a line at a shell, no faster than it is echoed.
    pub fn type_line(&mut self, line: &str) -> Result<()> {
        for _ in 1..TYPINGS {
            if self.type_once(line).is_ok() {
                return self.press("\n");
            }
            self.press(KILL_LINE)?;
        }
        self.type_once(line)?;
        self.press("\n")
    }

    fn type_once(&mut self, line: &str) -> Result<()> {
        for part in line.as_bytes().chunks(TYPED_AT_ONCE) {
            self.to_guest.write_all(part).context("the machine does not take keys any more")?;
            for &byte in part {
                self.expect(&char::from(byte).to_string(), ECHO)?;
            }
        }
        Ok(())
    }

    /// Runs a command in the guest's shell, and returns what it printed. A command that fails is an error.
    ///
    /// From then on the kernel prints only emergencies on the console. Another message could come between the command's
    /// output and would be taken for a part of it.
    pub fn run(&mut self, command: &str) -> Result<String> {
        self.run_within(command, ANSWER)
    }

    /// Does the same as [`Console::run`] for a command that may take longer.
    pub fn run_within(&mut self, command: &str, within: Duration) -> Result<String> {
        self.commands += 1;
        let number = self.commands;
        // The marks are typed with quotes inside, so that they are not found in the echo of the line.
        self.type_line(&format!("{QUIET}; echo b''egin-{number}; {command}; echo e''nd-{number} $?"))?;
        // A message of the kernel may come at any place, also right after a mark.
        self.expect(&format!("begin-{number}"), ANSWER)?;
        let output = self.expect(&format!("end-{number} "), within)?.replace("\r\n", "\n");
        let output = output.strip_prefix('\n').unwrap_or(&output).to_owned();
        let status = self.expect("\r\n", ANSWER)?;
        self.expect(PROMPT, ANSWER)?;
        let status = status.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default();
        ensure!(status == "0", "`{command}` failed with status {status}: {}", output.trim());
        Ok(output)
    }

    /// Returns the first line with a sign of trouble once it is complete. `from` is where the search begins.
    fn trouble(&self, from: usize) -> Option<String> {
        let has = |line: &[u8], word: &str| find(line, word.as_bytes()).is_some();
        let is_bad = |line: &[u8]| {
            let old = line.starts_with(MARK) || has(line, LAST_START);
            !old && TROUBLE.iter().any(|sign| has(line, sign))
        };
        let lines = self.pending[from..].split_inclusive(|&byte| byte == b'\n');
        let mut complete = lines.filter(|line| line.ends_with(b"\n"));
        let line = complete.find(|line| is_bad(line))?;
        Some(String::from_utf8_lossy(line).trim().to_owned())
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    /// Returns a console, and the machine's end of its line.
    fn pair(log: &Path) -> (Console, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let machine = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Console::new(listener.accept().unwrap().0, log).unwrap(), machine)
    }

    #[test]
    fn output_before_a_match_is_returned_and_output_after_it_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let (mut console, mut machine) = pair(&log);
        machine.write_all(b"one two").unwrap();
        machine.write_all(b" three").unwrap();
        drop(machine);
        assert_eq!(console.expect("two", SOON).unwrap(), "one ");
        assert_eq!(console.expect("thr", SOON).unwrap(), " ");
        let error = console.expect("four", SOON).unwrap_err().to_string();
        assert_eq!(error, "the machine ended before it said \"four\"");
        assert_eq!(std::fs::read(&log).unwrap(), b"one two three");
    }

    #[test]
    fn trouble_is_reported_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let (mut console, mut machine) = pair(&dir.path().join("log"));
        machine.write_all(b"fine\r\n[1.0] Kernel panic - not syncing: x\r\n").unwrap();
        let error = console.expect("shell", SOON).unwrap_err().to_string();
        assert_eq!(
            error,
            "while \"shell\" was expected, the machine said: [1.0] Kernel panic - not syncing: x"
        );
    }

    #[test]
    fn trouble_of_the_last_start_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let (mut console, mut machine) = pair(&dir.path().join("log"));
        machine.write_all(b"vidar: warning: the last start ended in: Vidar panicked\r\n").unwrap();
        machine.write_all(b"| Kernel panic - not syncing: x\r\nshell").unwrap();
        console.expect("shell", SOON).unwrap();
    }

    #[test]
    fn the_output_of_a_command_does_not_include_its_echo() {
        let dir = tempfile::tempdir().unwrap();
        let (mut console, mut machine) = pair(&dir.path().join("log"));
        let shell = thread::spawn(move || {
            for status in [0, 3] {
                let mut line = Vec::new();
                let mut byte = [0];
                while byte[0] != b'\n' {
                    machine.read_exact(&mut byte).unwrap();
                    machine.write_all(&byte).unwrap();
                    line.push(byte[0]);
                }
                let typed = String::from_utf8(line).unwrap();
                assert!(
                    typed.starts_with("dmesg -n 1; echo b''egin-"),
                    "a message could come between: {typed}"
                );
                let number = if status == 0 { 1 } else { 2 };
                let answer = format!("\rbegin-{number}\r\nhello\r\nend-{number} {status}\r\n{PROMPT}");
                machine.write_all(answer.as_bytes()).unwrap();
            }
        });
        assert_eq!(console.run("say hello").unwrap(), "hello\n");
        let error = console.run("fail").unwrap_err().to_string();
        assert_eq!(error, "`fail` failed with status 3: hello");
        shell.join().unwrap();
    }
}
