//! gdb's remote protocol, from gdb's side, as far as it takes to read a stopped machine. "Debugging with GDB", appendix E "GDB
//! Remote Serial Protocol".

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// How often a packet is asked for again that has been damaged on the way.
const REPEATS: u32 = 5;
/// The time that an answer may take. The debugger may search all of the guest's memory for its kernel meanwhile.
const PATIENCE: Duration = Duration::from_secs(120);
/// The size of a packet if the debugger does not say what it can take.
const USUAL_PACKET: usize = 400;

/// A line to a debugger.
trait Line: Read + Write {}
impl<T: Read + Write> Line for T {}

/// A debugger at the other end of a line. The machine is stopped.
pub struct Remote {
    line: Box<dyn Line>,
    /// What has been received and not been looked at yet.
    received: VecDeque<u8>,
    /// The size of the longest packet that the debugger takes.
    packet: usize,
}

/// The registers of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpu {
    /// The number of gdb's thread, which is that of the CPU and one.
    pub thread: u32,
    /// RAX, RBX, RCX, RDX, RSI, RDI, RBP, RSP, R8 to R15, and RIP.
    pub general: [u64; 17],
    /// RFLAGS.
    pub flags: u32,
    /// CS, SS, DS, ES, FS, GS.
    pub selectors: [u32; 6],
}

impl Remote {
    /// Opens a line, `HOST:PORT` or the path of a serial device, and stops the machine.
    pub fn open(line: &str) -> Result<Self> {
        let line: Box<dyn Line> = if line.contains('/') {
            let path = Path::new(line);
            let set = Command::new("stty").arg("-F").arg(path).args(["115200", "raw", "-echo"]).status();
            ensure!(set.is_ok_and(|status| status.success()), "stty cannot set up the serial line {line}");
            Box::new(OpenOptions::new().read(true).write(true).open(path)?)
        } else {
            let stream =
                TcpStream::connect(line).with_context(|| format!("no debugger answers at {line}"))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        };
        Self::over(line)
    }

    fn over(line: Box<dyn Line>) -> Result<Self> {
        let mut remote = Self { line, received: VecDeque::new(), packet: USUAL_PACKET };
        let supported = remote.ask("qSupported")?;
        let size = supported.split(';').find_map(|word| word.strip_prefix("PacketSize="));
        if let Some(size) = size.and_then(|size| usize::from_str_radix(size, 16).ok()) {
            remote.packet = size;
        }
        remote.ask("?")?;
        Ok(remote)
    }

    /// Has the machine run on.
    pub fn leave(mut self) -> Result<()> {
        let answer = self.ask("D")?;
        ensure!(answer == "OK", "the debugger does not let the machine run on: {answer}");
        Ok(())
    }

    /// Returns what a command of `monitor` says.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        let digits: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        let mut answer = self.ask(&format!("qRcmd,{digits}"))?;
        let mut said = Vec::new();
        while let Some(digits) = answer.strip_prefix('O').filter(|rest| *rest != "K") {
            said.extend(bytes(digits).context("the debugger's answer has no hexadecimal digits")?);
            answer = self.receive()?;
        }
        ensure!(answer == "OK", "the debugger does not know `monitor {command}`");
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Returns the memory at this virtual address, up to the first byte that is not mapped.
    pub fn memory(&mut self, address: u64, length: usize) -> Result<Vec<u8>> {
        let most = (self.packet - 8) / 2;
        let mut memory = Vec::with_capacity(length);
        while memory.len() < length {
            let (at, wanted) = (address + memory.len() as u64, most.min(length - memory.len()));
            let answer = self.ask(&format!("m{at:x},{wanted:x}"))?;
            if answer.starts_with('E') {
                break;
            }
            let piece = bytes(&answer).context("the debugger's answer has no hexadecimal digits")?;
            ensure!(piece.len() <= wanted, "the debugger sends more memory than it was asked for");
            memory.extend(&piece);
            if piece.len() < wanted {
                break;
            }
        }
        Ok(memory)
    }

    /// Returns the registers of all CPUs that have stopped.
    pub fn cpus(&mut self) -> Result<Vec<Cpu>> {
        let mut threads = Vec::new();
        let mut answer = self.ask("qfThreadInfo")?;
        while let Some(list) = answer.strip_prefix('m') {
            for thread in list.split(',') {
                threads.push(u32::from_str_radix(thread, 16).context("a thread has no number")?);
            }
            answer = self.ask("qsThreadInfo")?;
        }
        threads.into_iter().map(|thread| self.cpu(thread)).collect()
    }

    fn cpu(&mut self, thread: u32) -> Result<Cpu> {
        ensure!(self.ask(&format!("Hg{thread:x}"))? == "OK", "the debugger does not know CPU {}", thread - 1);
        let answer = self.ask("g")?;
        let unknown = format!("the debugger does not tell the registers of CPU {}", thread - 1);
        // A register whose value is not known has an x for each digit. None of those that are used here is one.
        let known = answer.get(..2 * (17 * 8 + 7 * 4)).and_then(bytes).context(unknown)?;
        let (long, short) = known.split_at(17 * 8);
        let (long, short) = (long.as_chunks().0, short.as_chunks().0);
        let short: [u32; 7] = std::array::from_fn(|index| u32::from_le_bytes(short[index]));
        Ok(Cpu {
            thread,
            general: std::array::from_fn(|index| u64::from_le_bytes(long[index])),
            flags: short[0],
            selectors: std::array::from_fn(|index| short[index + 1]),
        })
    }

    /// Sends a packet and returns the answer.
    fn ask(&mut self, packet: &str) -> Result<String> {
        let sum = packet.bytes().fold(0u8, u8::wrapping_add);
        let sent = format!("${packet}#{sum:02x}");
        for _ in 0..REPEATS {
            self.line.write_all(sent.as_bytes())?;
            self.line.flush()?;
            // What comes before the acknowledgement was on the line before.
            loop {
                match self.byte()? {
                    b'+' => return self.receive(),
                    b'-' => break,
                    _ => {}
                }
            }
        }
        bail!("the debugger does not understand what it is sent: see if the line has 115200 baud")
    }

    /// Receives a packet and acknowledges it.
    fn receive(&mut self) -> Result<String> {
        for _ in 0..REPEATS {
            while self.byte()? != b'$' {}
            let (mut contents, mut sum) = (Vec::new(), 0u8);
            loop {
                match self.byte()? {
                    b'#' => break,
                    byte => {
                        contents.push(byte);
                        sum = sum.wrapping_add(byte);
                    }
                }
            }
            let digits = [self.byte()?, self.byte()?];
            let right = std::str::from_utf8(&digits).ok().and_then(|text| u8::from_str_radix(text, 16).ok());
            let good = right == Some(sum);
            self.line.write_all(if good { b"+" } else { b"-" })?;
            self.line.flush()?;
            if good {
                return expand(&contents).context("the debugger's answer is damaged");
            }
        }
        bail!("what the debugger sends does not arrive whole: see if the line has 115200 baud")
    }

    fn byte(&mut self) -> Result<u8> {
        if self.received.is_empty() {
            let mut bytes = [0; 4096];
            let silent = "the debugger does not answer: is Vidar booted with gdb=com2?";
            let count = self.line.read(&mut bytes).context(silent)?;
            self.received.extend(&bytes[..count]);
        }
        self.received.pop_front().context("the line to the debugger has been closed")
    }
}

/// Writes out the runs of a packet: a star and a byte stand for as many repetitions of the byte before as the byte is above 28.
fn expand(contents: &[u8]) -> Option<String> {
    let mut text = String::new();
    let mut bytes = contents.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'*' {
            let last = text.chars().next_back()?;
            let count = bytes.next()?.checked_sub(29)?;
            text.extend(std::iter::repeat_n(last, count.into()));
        } else {
            text.push(char::from(*byte));
        }
    }
    Some(text)
}

/// Returns the bytes that hexadecimal `digits` stand for.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    /// A debugger that is asked these things and gives these answers.
    struct Answers {
        wanted: VecDeque<(Vec<u8>, Vec<u8>)>,
        asked: Vec<u8>,
        said: VecDeque<u8>,
    }

    impl Read for Answers {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.said.read(buffer)
        }
    }

    impl Write for Answers {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.asked.extend(bytes);
            if let Some((asked, _)) = self.wanted.front()
                && self.asked.ends_with(asked)
                && let Some((_, answer)) = self.wanted.pop_front()
            {
                self.said.extend(answer);
                self.asked.clear();
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns a packet.
    fn packet(contents: &str) -> Vec<u8> {
        let sum = contents.bytes().fold(0u8, u8::wrapping_add);
        format!("${contents}#{sum:02x}").into_bytes()
    }

    /// Returns an acknowledgement and a packet.
    fn answer(contents: &str) -> Vec<u8> {
        [b"+", &packet(contents)[..]].concat()
    }

    fn remote(more: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Remote {
        let noise = [b"x", &answer("PacketSize=20;a+")[..]].concat();
        let begin = [(packet("qSupported"), noise), (packet("?"), answer("S05"))];
        let wanted = begin.into_iter().chain(more).collect();
        Remote::over(Box::new(Answers { wanted, asked: Vec::new(), said: VecDeque::new() })).unwrap()
    }

    #[test]
    fn memory_is_read_in_pieces_up_to_what_is_not_mapped() {
        let mut remote = remote([
            (packet("mffff8000,c"), answer("0* 1*0")),
            (packet("mffff800c,4"), answer("0102")),
            (packet("m0,1"), answer("E01")),
        ]);
        let memory = remote.memory(0xffff_8000, 16).unwrap();
        assert_eq!(memory, [&[0, 0][..], &[0x11; 10], &[1, 2]].concat());
        assert_eq!(remote.memory(0, 1).unwrap(), Vec::<u8>::new());
    }

    #[test]
    fn a_damaged_answer_is_asked_for_again() {
        let mut remote = remote([
            (packet("m0,1"), b"+$13#63".to_vec()),
            (b"-".to_vec(), packet("12")),
            (packet("m1,1"), b"-".to_vec()),
            (packet("m1,1"), answer("34")),
        ]);
        assert_eq!(remote.memory(0, 1).unwrap(), [0x12]);
        assert_eq!(remote.memory(1, 1).unwrap(), [0x34]);
    }

    #[test]
    fn commands_of_monitor_answer_in_several_packets() {
        let mut remote = remote([
            (packet("qRcmd,6c6f67"), answer("O6f6e")),
            (b"+".to_vec(), packet("O65")),
            (b"+".to_vec(), packet("OK")),
        ]);
        assert_eq!(remote.monitor("log").unwrap(), "one");
    }
}
