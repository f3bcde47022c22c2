//! QEMU's debugger, as far as tests need it: the machine is stopped at an address, and registers of its CPU are read and changed. It
//! speaks GDB's remote protocol: a packet is a text between `$` and `#`, with a checksum after it.

use std::io::{BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// A register of an x86-64 CPU, by the number that QEMU gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Register {
    /// RIP.
    Rip = 16,
    /// RFLAGS.
    Rflags = 17,
    /// CR0.
    Cr0 = 27,
    /// CR4.
    Cr4 = 30,
    /// IA32_EFER.
    Efer = 32,
}

/// The debugger of a machine, which is stopped.
#[derive(Debug)]
pub struct Debugger {
    from_qemu: BufReader<TcpStream>,
    to_qemu: TcpStream,
}

impl Debugger {
    /// The debugger at the other end of `stream`. QEMU takes `patience` at most to say something.
    pub fn new(stream: TcpStream, patience: Duration) -> Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        let to_qemu = stream.try_clone().context("cannot share the debugger")?;
        let mut debugger = Self { from_qemu: BufReader::new(stream), to_qemu };
        // Only who has asked for the list of registers may use their numbers.
        let list = debugger.ask("qXfer:features:read:target.xml:0,ffb")?;
        ensure!(list.starts_with(['l', 'm']), "QEMU's debugger gives no list of registers but {list:?}");
        Ok(debugger)
    }

    /// Lets the machine run until its CPU is about to execute what is at `address`.
    pub fn run_to(&mut self, address: u64) -> Result<()> {
        self.demand(&format!("Z1,{address:x},1"))?;
        let stopped = self.ask("c")?;
        ensure!(
            stopped.starts_with(['T', 'S']),
            "the machine did not stop at {address:#x} but says {stopped:?}"
        );
        self.demand(&format!("z1,{address:x},1"))
    }

    /// Lets the machine run.
    pub fn go_on(&mut self) -> Result<()> {
        self.send("c")
    }

    /// Gives `register` a value.
    pub fn set(&mut self, register: Register, value: u64) -> Result<()> {
        let bytes: String = value.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        self.demand(&format!("P{:x}={bytes}", register as u8))
    }

    /// The value of `register`.
    pub fn get(&mut self, register: Register) -> Result<u64> {
        let bytes = self.ask(&format!("p{:x}", register as u8))?;
        // The lowest byte comes first, and a register may have fewer than eight.
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

    /// The next packet. What stands between packets only says that one has arrived.
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
        String::from_utf8(packet).context("QEMU's debugger says something that is no text")
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

    /// A debugger, and a QEMU that says `answers` and at the end gives all that it heard.
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
    fn packets_have_their_checksums() {
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
    fn what_is_not_understood_is_an_error() {
        assert!(pair("+$#00").0.is_err(), "no list");
        assert!(pair("+$l#00").0.is_err(), "a wrong checksum");
        let (debugger, _) = pair("+$l<x>#5e+$E22#a9");
        let error = debugger.unwrap().set(Register::Rip, 0).unwrap_err().to_string();
        assert!(error.contains("E22"), "{error}");
    }
}
