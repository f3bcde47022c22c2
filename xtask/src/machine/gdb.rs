//! Connects gdb to the second serial port of a machine. gdb comes when it wants and as often as it wants, at a port of
//! this host, and the emulator is connected from the machine's start.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The bytes that a UART buffers. The emulator takes no more than that from gdb at once.
const FIFO: usize = 16;
/// The time in which Vidar takes that many bytes.
const PAUSE: Duration = Duration::from_millis(1);

/// The port of this host at which gdb finds the machine.
#[derive(Debug)]
pub struct Relay {
    port: u16,
}

impl Relay {
    /// Opens a port for gdb, `wanted` or the next free one, which leads to the machine's `line`.
    pub fn open(line: TcpStream, wanted: u16) -> Result<Self> {
        let listener =
            TcpListener::bind(("127.0.0.1", wanted)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
        let listener = listener.context("cannot open a port for gdb")?;
        let port = listener.local_addr()?.port();
        let gdb: Arc<Mutex<Option<TcpStream>>> = Arc::default();
        let (to_gdb, to_machine) = (Arc::clone(&gdb), line.try_clone()?);
        thread::spawn(move || from_machine(line, &to_gdb));
        thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                from_gdb(connection, to_machine.try_clone().ok(), &gdb);
            }
        });
        Ok(Self { port })
    }

    /// Returns the port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Passes what the machine sends to the gdb that is connected. Without one it is lost, as on a serial line.
fn from_machine(mut line: TcpStream, gdb: &Mutex<Option<TcpStream>>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = line.read(&mut bytes) {
        if let Ok(mut gdb) = gdb.lock()
            && let Some(gdb) = gdb.as_mut()
        {
            let _ = gdb.write_all(&bytes[..count]);
        }
    }
    if let Ok(Some(gdb)) = gdb.lock().as_deref() {
        let _ = gdb.shutdown(Shutdown::Both);
    }
}

/// Passes what one gdb sends to the machine, until it leaves.
fn from_gdb(mut connection: TcpStream, line: Option<TcpStream>, gdb: &Mutex<Option<TcpStream>>) {
    let Some(mut line) = line else { return };
    let _ = connection.set_nodelay(true);
    if let Ok(mut gdb) = gdb.lock() {
        *gdb = connection.try_clone().ok();
    }
    let mut bytes = [0; FIFO];
    while let Ok(count @ 1..) = connection.read(&mut bytes) {
        if line.write_all(&bytes[..count]).is_err() {
            return;
        }
        thread::sleep(PAUSE);
    }
}
