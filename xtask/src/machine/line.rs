//! The sockets that connect an emulator to this program.

use std::io::ErrorKind;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A socket that an emulator connects to. Since this program listens before the emulator starts, nobody else can take
/// the port, and no byte is lost.
pub struct Line {
    listener: TcpListener,
    what: &'static str,
}

/// The TCP ports that the emulator connects to.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// The port for the serial port.
    pub serial: Option<u16>,
    /// The port for the monitor.
    pub monitor: Option<u16>,
    /// The port for the debugger.
    pub debugger: Option<u16>,
    /// The port for the second serial port.
    pub second_serial: Option<u16>,
}

impl Line {
    /// Opens a socket for the emulator's `what`.
    pub fn open(what: &'static str) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0));
        Ok(Self { listener: listener.with_context(|| format!("cannot open a socket for the {what}"))?, what })
    }

    /// Returns the port of the line, if there is one.
    pub fn port(line: Option<&Self>) -> Result<Option<u16>> {
        Ok(line.map(|line| line.listener.local_addr()).transpose()?.map(|address| address.port()))
    }

    /// Waits for the emulator to connect.
    pub fn accept(self, child: &mut Child, dir: &Path) -> Result<TcpStream> {
        let what = self.what;
        self.listener.set_nonblocking(true)?;
        let begun = Instant::now();
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot connect to the emulator's {what}"));
                }
            }
            if let Some(status) = child.try_wait()? {
                bail!("the emulator ended at once ({status}); it says why in {}", dir.display());
            }
            if begun.elapsed() > Duration::from_secs(60) {
                bail!("the emulator did not connect its {what}; see {}", dir.display());
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}
