//! The conversation with gdb, byte by byte. Packets are checked before the crate gdbstub gets them, since it takes a
//! byte that the serial line has spoiled for the end of the conversation.

use alloc::vec::Vec;
use core::convert::Infallible;

use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{GdbStub, GdbStubError};

use super::answers::Answers;
use super::cpus::{Cpus, Reason};
use super::packet::{INTERRUPT, Packets, Received, SIZE};
use super::target::Guest;

type Stub<C> = GdbStubStateMachine<'static, Guest, Answers<C>>;
type StubResult<C> = Result<Stub<C>, GdbStubError<Infallible, Infallible>>;

/// What the guest does after gdb has said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is stopped.
    Stopped,
    /// It goes on, as the slots of its CPUs say.
    Runs,
}

/// The packet with which gdb begins a conversation, and which it sends at no other time. "Debugging with GDB", E.4
/// "General Query Packets".
const BEGIN: &[u8] = b"$qSupported";
/// The packets that choose what later ones are about: features of the protocol, the thread whose registers and memory
/// gdb asks for, and the thread that goes on. "Debugging with GDB", E.2 "Packets", `H`.
const CHOICES: [&[u8]; 3] = [BEGIN, b"$Hg", b"$Hc"];
/// [`BEGIN`] without any feature, which the protocol allows.
const NO_FEATURES: &[u8] = b"$qSupported#37";
/// The same with a feature that nobody knows, since the crate gdbstub takes a packet without features for damaged.
const ONE_FEATURE: &[u8] = b"$qSupported:x#e9";
/// The answer to a packet on which the crate gdbstub cannot go on: an acknowledgement, and an error.
const ERROR: &[u8] = b"+$E01#a6";

/// A conversation with gdb.
pub struct Session<C: Connection<Error = Infallible> + 'static> {
    /// What gdb debugs.
    pub guest: Guest,
    line: Option<C>,
    stub: Option<Stub<C>>,
    packets: Packets,
    /// The last packet that has made each of the [`CHOICES`], as it was passed on.
    choices: [Vec<u8>; CHOICES.len()],
    /// True from gdb's first packet until it leaves.
    connected: bool,
}

impl<C: Connection<Error = Infallible> + Clone> Session<C> {
    /// Returns a conversation that has not begun. It must be given a line by [`Session::connect`].
    pub const fn new(guest: Guest) -> Self {
        let choices = [const { Vec::new() }; CHOICES.len()];
        Self { guest, line: None, stub: None, packets: Packets::new(), choices, connected: false }
    }

    /// Has gdb come over `line`.
    pub fn connect(&mut self, line: C) {
        self.line = Some(line);
        self.begin();
    }

    /// Begins a conversation, in place of one that may have been lost, whose memory is free again before this one takes
    /// its own.
    fn begin(&mut self) {
        self.stub = None;
        let Some(line) = self.line.clone() else { return };
        let stub = GdbStub::builder(Answers::new(line)).packet_buffer_size(SIZE).build();
        self.stub = stub.ok().and_then(|stub| stub.run_state_machine(&mut self.guest).ok());
    }

    /// Begins a conversation in place of one that the crate gdbstub has ended by an error, with what gdb has chosen in
    /// that one. gdb need not know, and is told that what it has asked for has failed. The guest is stopped.
    fn begin_again(&mut self) -> Next {
        log::warn!("gdb has sent a request that means nothing to Vidar, and is told so");
        self.begin();
        self.mute(true);
        let choices = core::mem::take(&mut self.choices);
        for packet in &choices {
            self.pass_all(packet);
        }
        self.choices = choices;
        self.mute(false);
        if let Some(answers) = self.answers() {
            ERROR.iter().for_each(|byte| {
                let Ok(()) = answers.write(*byte);
            });
        }
        Next::Stopped
    }

    /// Returns the line to gdb that the crate gdbstub uses.
    fn answers(&mut self) -> Option<&mut Answers<C>> {
        match self.stub.as_mut()? {
            GdbStubStateMachine::Idle(stub) => Some(stub.borrow_conn()),
            GdbStubStateMachine::Running(stub) => Some(stub.borrow_conn()),
            _ => None,
        }
    }

    /// Keeps what the crate gdbstub says from gdb, or does so no more.
    fn mute(&mut self, mutes: bool) {
        if let Some(answers) = self.answers() {
            answers.is_muted = mutes;
        }
    }

    /// Returns true from gdb's first packet until it leaves.
    pub const fn is_connected(&self) -> bool {
        self.connected
    }

    /// Returns true if gdb waits to be told that the guest has stopped.
    const fn is_awaited(&self) -> bool {
        matches!(self.stub, Some(GdbStubStateMachine::Running(_)))
    }

    /// Returns true if gdb expects nothing of a guest that has stopped because something was received: it waits for the
    /// guest, or it is not there.
    pub const fn is_indifferent(&self) -> bool {
        self.is_awaited() || !self.connected
    }

    /// Returns true if a packet has begun to come.
    pub const fn is_spoken_to(&self) -> bool {
        self.packets.has_begun()
    }

    /// Has the guest go on without gdb, from which nothing more comes.
    pub fn go_on(&mut self) -> Next {
        self.packets.drop_begun();
        self.guest.go_on();
        Next::Runs
    }

    /// Tells gdb that the CPU `index` has stopped, if gdb waits for it. In any case this is the current CPU from now
    /// on.
    pub fn stopped(&mut self, index: usize, reason: Reason) -> Next {
        self.guest.current = Cpus::thread(index);
        match self.stub.take() {
            Some(GdbStubStateMachine::Running(stub)) => {
                let told = stub.report_stop(&mut self.guest, reason.stop(Cpus::thread(index)));
                self.settle(told).unwrap_or_else(|| self.begin_again())
            }
            other => {
                self.stub = other;
                Next::Stopped
            }
        }
    }

    /// Hears a byte from gdb while the guest is stopped.
    pub fn hear(&mut self, byte: u8) -> Next {
        match self.packets.take(byte) {
            Received::Part => Next::Stopped,
            Received::Acknowledged => {
                self.answers().map(Answers::acknowledged);
                Next::Stopped
            }
            Received::Refused => {
                self.answers().map(Answers::refused);
                Next::Stopped
            }
            Received::Spoiled => {
                self.answers().map(|answers| answers.write(b'-'));
                Next::Stopped
            }
            Received::Interrupt => self.pass(INTERRUPT).unwrap_or_else(|| self.begin_again()),
            Received::Packet(length) => {
                self.connected = true;
                self.pass_packet(length)
            }
        }
    }

    /// Passes the packet with this many bytes that has been received to the crate gdbstub.
    fn pass_packet(&mut self, length: usize) -> Next {
        if self.packets.first(length).starts_with(BEGIN) {
            // This is another gdb, if there was one before. That one cannot have its breakpoints removed any more.
            self.guest.forget();
            self.choices.iter_mut().for_each(Vec::clear);
            self.begin();
        }
        self.answers().map(Answers::asked);
        let passed = match self.packets.first(length) == NO_FEATURES {
            true => self.pass_all(ONE_FEATURE),
            // The crate has to see the packet's end even if it has the guest run before.
            false => (0..length).try_fold(Next::Stopped, |_, index| self.pass(self.packets.byte(index))),
        };
        if passed.is_some() {
            self.keep_choice(length);
        }
        let next = passed.unwrap_or_else(|| self.begin_again());
        // The crate has CPUs released by a request to go on that ends at once: it cannot be met, or Ctrl-C has come
        // before it.
        if next == Next::Stopped {
            self.guest.cpus.stop_released();
        }
        next
    }

    /// Keeps the packet with this many bytes that has been received if it is one of the [`CHOICES`].
    fn keep_choice(&mut self, length: usize) {
        let received = self.packets.first(length);
        let packet = if received == NO_FEATURES { ONE_FEATURE } else { received };
        if let Some(index) = CHOICES.iter().position(|choice| packet.starts_with(choice)) {
            self.choices[index].clear();
            self.choices[index].extend(packet);
        }
    }

    /// Passes these bytes to the crate gdbstub, and returns what follows from the last one. Returns `None` if the crate
    /// has ended the conversation by an error.
    fn pass_all(&mut self, bytes: &[u8]) -> Option<Next> {
        bytes.iter().try_fold(Next::Stopped, |_, byte| self.pass(*byte))
    }

    /// Passes a byte to the crate gdbstub, like [`Session::pass_all`].
    fn pass(&mut self, byte: u8) -> Option<Next> {
        let result = match self.stub.take()? {
            GdbStubStateMachine::Idle(stub) => stub.incoming_data(&mut self.guest, byte),
            GdbStubStateMachine::Running(stub) => stub.incoming_data(&mut self.guest, byte),
            other => Ok(other),
        };
        self.settle(result)
    }

    /// Keeps the new state of the crate gdbstub, and returns what follows from it. Returns `None` if the crate cannot
    /// go on.
    fn settle(&mut self, result: StubResult<C>) -> Option<Next> {
        let (stub, next) = match result {
            Ok(stub @ GdbStubStateMachine::Idle(_)) => (stub, Next::Stopped),
            Ok(stub @ GdbStubStateMachine::Running(_)) => (stub, Next::Runs),
            Ok(GdbStubStateMachine::CtrlCInterrupt(stub)) => {
                let signal = Reason::Interrupt.stop(self.guest.current);
                let handled = stub.interrupt_handled(&mut self.guest, Some(signal));
                (handled.ok()?, Next::Stopped)
            }
            Ok(GdbStubStateMachine::Disconnected(stub)) => {
                self.guest.leave();
                self.connected = false;
                (stub.return_to_idle(), Next::Runs)
            }
            Err(_) => return None,
        };
        self.stub = Some(stub);
        Some(next)
    }
}
