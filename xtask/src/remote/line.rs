//! The line to a debugger: a TCP connection, or a serial device.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// The time for which a line is waited for at once.
const TICK: Duration = Duration::from_secs(1);

/// A line to a debugger.
pub trait Line {
    /// Sends bytes.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Receives bytes. Returns their number, or 0 if none have come within a tick.
    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<usize>;
}

impl Line for TcpStream {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self.read(bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(0),
            other => other,
        }
    }
}

/// A serial device, whose reads end after a tick.
impl Line for File {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn receive(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.read(bytes)
    }
}

/// What makes a serial device a line as the debugger has it. A modem is not waited for, and a read ends after 10 tenths
/// of a second.
const STTY: [&str; 9] = ["115200", "cs8", "raw", "-echo", "clocal", "min", "0", "time", "10"];

/// Opens a line, `HOST:PORT` or the path of a serial device.
pub fn open(line: &str) -> Result<Box<dyn Line>> {
    Ok(if line.contains('/') {
        let path = Path::new(line);
        let set = Command::new("stty").arg("-F").arg(path).args(STTY).status();
        ensure!(set.is_ok_and(|status| status.success()), "stty cannot set up the serial line {line}");
        Box::new(OpenOptions::new().read(true).write(true).open(path)?)
    } else {
        let stream = TcpStream::connect(line).with_context(|| format!("no debugger answers at {line}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TICK))?;
        Box::new(stream)
    })
}
