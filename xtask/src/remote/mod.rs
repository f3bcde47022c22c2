//! gdb's remote protocol, from gdb's side, as far as it takes to read a machine, and to stop it and have it go on.
//! "Debugging with GDB", appendix E "GDB Remote Serial Protocol".

mod line;
mod running;

use std::collections::VecDeque;
use std::io::ErrorKind;

use anyhow::{Context, Result, bail, ensure};

use self::line::Line;
pub use self::running::{INTERRUPT, Stop, TRAP};

/// How often a packet is sent that has been damaged on the way, or its answer.
const REPEATS: u32 = 5;
/// The ticks after which the first packet is sent again. The CPUs of a guest that runs take a while to stop, and the
/// UART holds 16 bytes meanwhile. Further bytes may be lost.
const FIRST: u32 = 3;
/// How often the first packet is sent before nobody is taken to be there.
const GREETINGS: u32 = 10;
/// The ticks that an answer may take. The debugger may search all of the guest's memory for its kernel meanwhile.
const PATIENCE: u32 = 120;
/// The packet that begins a conversation. It names a feature, since some debuggers take it for damaged without any.
const GREETING: &str = "qSupported:swbreak+;hwbreak+";

/// A debugger at the other end of a line. The machine is stopped.
pub struct Remote {
    line: Box<dyn Line>,
    /// What has been received and not been looked at yet.
    received: VecDeque<u8>,
}

/// What has come in place of a packet.
enum Received {
    /// A packet.
    Packet(String),
    /// A packet that was damaged on the way.
    Damaged,
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
        Self::over(line::open(line)?)
    }

    fn over(line: Box<dyn Line>) -> Result<Self> {
        let mut remote = Self { line, received: VecDeque::new() };
        remote.greet()?;
        remote.ask("?")?;
        Ok(remote)
    }

    /// Begins the conversation.
    fn greet(&mut self) -> Result<()> {
        for greeting in 1..=GREETINGS {
            self.line.send(&packet(GREETING))?;
            loop {
                match self.byte_within(FIRST)? {
                    Some(b'+') => {
                        if let Received::Packet(_) = self.receive()? {
                            // If the debugger has been slow and not deaf, it answers all that was sent.
                            while greeting > 1 && self.byte_within(FIRST)?.is_some() {}
                            return Ok(());
                        }
                        break;
                    }
                    None | Some(b'-') => break,
                    Some(_) => {}
                }
            }
        }
        bail!(
            "the debugger does not answer: is Vidar booted with gdb=com2, and is this the line to the machine's second serial port?"
        )
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
            let Received::Packet(next) = self.receive()? else { bail!("{DAMAGED}") };
            answer = next;
        }
        ensure!(answer == "OK", "the debugger does not know `monitor {command}`");
        Ok(String::from_utf8_lossy(&said).into_owned())
    }

    /// Returns the address of a symbol of the guest's kernel.
    pub fn symbol(&mut self, name: &str) -> Result<u64> {
        let said = self.monitor(&format!("sym {name}"))?;
        let Some(address) = address_in(&said) else { bail!("{}", said.trim()) };
        Ok(address)
    }

    /// Returns the memory at this virtual address, up to the first byte that is not mapped. All of it is asked for at
    /// once, since the size of packets that the debugger names is that of those it takes: its answers can be longer.
    pub fn memory(&mut self, address: u64, length: usize) -> Result<Vec<u8>> {
        let mut memory = Vec::with_capacity(length);
        while memory.len() < length {
            let (at, wanted) = (address + memory.len() as u64, length - memory.len());
            let answer = self.ask(&format!("m{at:x},{wanted:x}"))?;
            if answer.starts_with('E') {
                break;
            }
            let piece = bytes(&answer).context("the debugger's answer has no hexadecimal digits")?;
            ensure!(piece.len() <= wanted, "the debugger sends more memory than it was asked for");
            memory.extend(&piece);
            if piece.is_empty() {
                break;
            }
        }
        Ok(memory)
    }

    /// Returns the registers of all CPUs that have stopped.
    pub fn cpus(&mut self) -> Result<Vec<Cpu>> {
        self.threads()?.into_iter().map(|thread| self.cpu(thread)).collect()
    }

    /// Returns the threads of all CPUs that have stopped.
    pub fn threads(&mut self) -> Result<Vec<u32>> {
        let mut threads = Vec::new();
        let mut answer = self.ask("qfThreadInfo")?;
        while let Some(list) = answer.strip_prefix('m') {
            for thread in list.split(',') {
                threads.push(u32::from_str_radix(thread, 16).context("a thread has no number")?);
            }
            answer = self.ask("qsThreadInfo")?;
        }
        Ok(threads)
    }

    /// Returns the registers of the CPU that this thread stands for.
    pub fn cpu(&mut self, thread: u32) -> Result<Cpu> {
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

    /// Sends a packet and returns the answer. If one of them is damaged on the way, the packet is sent again.
    fn ask(&mut self, contents: &str) -> Result<String> {
        for _ in 0..REPEATS {
            if self.say(contents)?
                && let Received::Packet(answer) = self.receive()?
            {
                return Ok(answer);
            }
        }
        bail!("{DAMAGED}")
    }

    /// Sends a packet. Returns false if it has been damaged on the way.
    fn say(&mut self, contents: &str) -> Result<bool> {
        self.line.send(&packet(contents))?;
        // What comes before the acknowledgement was on the line before.
        loop {
            match self.byte()? {
                b'+' => return Ok(true),
                b'-' => return Ok(false),
                _ => {}
            }
        }
    }

    /// Receives a packet, and acknowledges it if it is whole.
    fn receive(&mut self) -> Result<Received> {
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
        if right != Some(sum) {
            return Ok(Received::Damaged);
        }
        self.line.send(b"+")?;
        expand(&contents).map(Received::Packet).context("the debugger's answer is damaged")
    }

    /// Returns the next byte.
    fn byte(&mut self) -> Result<u8> {
        self.byte_within(PATIENCE)?.context("the debugger has stopped answering")
    }

    /// Returns the next byte, or `None` if none comes within so many ticks.
    fn byte_within(&mut self, ticks: u32) -> Result<Option<u8>> {
        for _ in 0..ticks {
            if let Some(byte) = self.received.pop_front() {
                return Ok(Some(byte));
            }
            let mut bytes = [0; 4096];
            match self.line.receive(&mut bytes) {
                Ok(count) => self.received.extend(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the line to the debugger has been closed"),
            }
        }
        Ok(self.received.pop_front())
    }
}

/// What is said of a line that damages what it carries.
const DAMAGED: &str = "packets do not arrive whole: see if the line has 115200 baud";

/// Returns the address in the answer of `monitor sym`, such as `0xffffffff82558f60 is tick_sched_timer+0x0`.
fn address_in(said: &str) -> Option<u64> {
    let (digits, _) = said.strip_prefix("0x")?.split_once(" is ")?;
    u64::from_str_radix(digits, 16).ok()
}

/// Returns a packet with these contents.
fn packet(contents: &str) -> Vec<u8> {
    let sum = contents.bytes().fold(0u8, u8::wrapping_add);
    format!("${contents}#{sum:02x}").into_bytes()
}

/// Writes out the runs of a packet: a star and a byte stand for as many repetitions of the byte before as the byte is
/// above 28.
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
    use std::io::{self, Read};

    use super::*;

    #[test]
    fn the_address_of_a_symbol_is_read_from_what_monitor_says() {
        assert_eq!(address_in("0xffffffff82558f60 is tick_sched_timer+0x0\n"), Some(0xffff_ffff_8255_8f60));
        assert_eq!(address_in("the kernel has no symbol x\n"), None);
    }

    /// A debugger that is asked these things and gives these answers. Where it has nothing to say, time passes.
    struct Answers {
        wanted: VecDeque<(Vec<u8>, Vec<u8>)>,
        asked: Vec<u8>,
        said: VecDeque<u8>,
    }

    impl Line for Answers {
        fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.asked.extend(bytes);
            if let Some((asked, _)) = self.wanted.front()
                && self.asked.ends_with(asked)
                && let Some((_, answer)) = self.wanted.pop_front()
            {
                self.said.extend(answer);
                self.asked.clear();
            }
            Ok(())
        }

        fn receive(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            self.said.read(bytes)
        }
    }

    /// Returns an acknowledgement and a packet.
    pub fn answer(contents: &str) -> Vec<u8> {
        [b"+", &packet(contents)[..]].concat()
    }

    fn over(wanted: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Result<Remote> {
        let wanted = wanted.into_iter().collect();
        Remote::over(Box::new(Answers { wanted, asked: Vec::new(), said: VecDeque::new() }))
    }

    /// Returns a debugger that has been greeted, and then is asked these things and gives these answers.
    pub fn remote(more: impl IntoIterator<Item = (Vec<u8>, Vec<u8>)>) -> Remote {
        let noise = [b"x", &answer("PacketSize=20;a+")[..]].concat();
        let begin = [(packet(GREETING), noise), (packet("?"), answer("S05"))];
        over(begin.into_iter().chain(more)).unwrap()
    }

    #[test]
    fn a_debugger_that_has_lost_the_first_bytes_is_greeted_again() {
        let greetings = [&b""[..], b"-", b""].map(|answer| (packet(GREETING), answer.to_vec()));
        let twice = [answer("PacketSize=40"), answer("PacketSize=40")].concat();
        let rest = [(packet(GREETING), twice), (packet("?"), answer("S05")), (packet("m0,1"), answer("11"))];
        let mut remote = over(greetings.into_iter().chain(rest)).unwrap();
        assert_eq!(remote.memory(0, 1).unwrap(), [0x11]);
    }

    #[test]
    fn a_line_on_which_nobody_answers_is_an_error() {
        let error = over([]).err().map(|error| error.to_string());
        assert!(error.is_some_and(|text| text.starts_with("the debugger does not answer: is Vidar booted")));
        let mut remote = remote([(packet("m0,1"), b"+".to_vec())]);
        assert_eq!(remote.memory(0, 1).unwrap_err().to_string(), "the debugger has stopped answering");
    }

    #[test]
    fn memory_is_read_in_pieces_up_to_what_is_not_mapped() {
        let mut remote = remote([
            (packet("mffff8000,10"), answer("0* 1*0")),
            (packet("mffff800c,4"), answer("0102")),
            (packet("mffff800e,2"), answer("E01")),
            (packet("m0,1"), answer("E01")),
        ]);
        let memory = remote.memory(0xffff_8000, 16).unwrap();
        assert_eq!(memory, [&[0, 0][..], &[0x11; 10], &[1, 2]].concat());
        assert_eq!(remote.memory(0, 1).unwrap(), Vec::<u8>::new());
    }

    #[test]
    fn what_is_damaged_is_asked_for_again() {
        let mut remote = remote([
            (packet("m0,1"), b"+$13#63".to_vec()),
            (packet("m0,1"), answer("12")),
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
