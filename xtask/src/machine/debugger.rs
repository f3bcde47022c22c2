//! A client for QEMU's debugger, as far as tests need one: it stops the machine at an address, and reads and changes
//! registers of its CPU. It speaks GDB's remote protocol, in which a packet is a text between `$` and `#`, followed by
//! a checksum.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A register of an x86-64 CPU, with QEMU's number for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Register {
    /// The instruction pointer.
    Rip = 16,
    /// The flags.
    Rflags = 17,
    /// Control register 0.
    Cr0 = 27,
    /// Control register 4.
    Cr4 = 30,
    /// The MSR IA32_EFER.
    Efer = 32,
}

/// The debugger of a machine that is stopped.
#[derive(Debug)]
pub struct Debugger {
    from_qemu: BufReader<TcpStream>,
    to_qemu: TcpStream,
}

impl Debugger {
    /// Talks to the debugger at the other end of `stream`. Waits for each answer for at most `patience`.
    pub fn new(stream: TcpStream, patience: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        let to_qemu = stream.try_clone().context("cannot share the debugger")?;
        let mut debugger = Self { from_qemu: BufReader::new(stream), to_qemu };
        // QEMU accepts the numbers of registers only after their list has been read.
        let list = debugger.ask("qXfer:features:read:target.xml:0,ffb")?;
        ensure!(
            list.starts_with(['l', 'm']),
            "QEMU's debugger answers {list:?} in place of a list of registers"
        );
        Ok(debugger)
    }

    /// Lets the machine run until its CPU is about to execute the instruction at `address`.
    pub fn run_to(&mut self, address: u64) -> Result<()> {
        self.demand(&format!("Z1,{address:x},1"))?;
        let stopped = self.ask("c")?;
        ensure!(
            stopped.starts_with(['T', 'S']),
            "the machine did not stop at {address:#x}: QEMU's debugger answers {stopped:?}"
        );
        self.demand(&format!("z1,{address:x},1"))
    }

    /// Lets the machine run.
    pub fn go_on(&mut self) -> Result<()> {
        self.send("c")
    }

    /// Sets `register` to `value`.
    pub fn set(&mut self, register: Register, value: u64) -> Result<()> {
        let bytes: String = value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.demand(&format!("P{:x}={bytes}", register as u8))
    }

    /// Returns the value of `register`.
    pub fn get(&mut self, register: Register) -> Result<u64> {
        let bytes = self.ask(&format!("p{:x}", register as u8))?;
        // The lowest byte comes first, and a register may have fewer than eight bytes.
        let value = u64::from_str_radix(&format!("{bytes:0<16}"), 16).map(u64::swap_bytes).ok();
        value.with_context(|| format!("QEMU's debugger gives {bytes:?} for {register:?}"))
    }

    fn demand(&mut self, packet: &str) -> Result<()> {
        match self.ask(packet)?.as_str() {
            "OK" => Ok(()),
            other => bail!("QEMU's debugger answers {other:?} to {packet:?}"),
        }
    }

    fn ask(&mut self, packet: &str) -> Result<String> {
        self.send(packet)?;
        self.answer()
    }

    fn send(&mut self, packet: &str) -> Result<()> {
        write!(self.to_qemu, "${packet}#{:02x}", checksum(packet.as_bytes())).context("QEMU has ended")
    }

    /// Returns the next packet. Bytes between packets are acknowledgements and are skipped.
    fn answer(&mut self) -> Result<String> {
        while self.byte()? != b'$' {}
        let mut packet = Vec::new();
        loop {
            match self.byte()? {
                b'#' => break,
                byte => packet.push(byte),
            }
        }
        let stated = String::from_utf8_lossy(&[self.byte()?, self.byte()?]).into_owned();
        let right = u8::from_str_radix(&stated, 16).is_ok_and(|stated| stated == checksum(&packet));
        ensure!(right, "a packet of QEMU's debugger has a wrong checksum");
        self.to_qemu.write_all(b"+").context("QEMU has ended")?;
        String::from_utf8(packet).context("QEMU's debugger sent a packet that is not text")
    }

    fn byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.from_qemu.read_exact(&mut byte).context("QEMU's debugger does not answer")?;
        Ok(byte[0])
    }
}

fn checksum(packet: &[u8]) -> u8 {
    packet.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Returns a debugger, and a QEMU that sends `answers`. Its thread returns everything that it has received.
    fn pair(answers: &'static str) -> (Result<Debugger>, thread::JoinHandle<String>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let qemu = thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(answers.as_bytes()).unwrap();
            let mut heard = String::new();
            stream.read_to_string(&mut heard).unwrap();
            heard
        });
        (Debugger::new(stream, Duration::from_secs(10)), qemu)
    }

    #[test]
    fn packets_are_sent_with_checksums() {
        let (debugger, qemu) = pair("+$l<x>#5e+$OK#9a+$T05#b9+$OK#9a+$OK#9a+$2010000000000000#03");
        let mut debugger = debugger.unwrap();
        debugger.run_to(0x20_0070).unwrap();
        debugger.set(Register::Cr4, 0x1020).unwrap();
        assert_eq!(debugger.get(Register::Cr4).unwrap(), 0x1020);
        debugger.go_on().unwrap();
        drop(debugger);
        assert_eq!(
            qemu.join().unwrap(),
            "$qXfer:features:read:target.xml:0,ffb#79+$Z1,200070,1#3d+$c#63+$z1,200070,1#5d+\
             $P1e=2010000000000000#26+$p1e#06+$c#63"
        );
    }

    #[test]
    fn unexpected_answers_are_errors() {
        assert!(pair("+$#00").0.is_err(), "no list");
        assert!(pair("+$l#00").0.is_err(), "a wrong checksum");
        let (debugger, _) = pair("+$l<x>#5e+$E22#a9");
        let error = debugger.unwrap().set(Register::Rip, 0).unwrap_err().to_string();
        assert!(error.contains("E22"), "{error}");
    }
}
