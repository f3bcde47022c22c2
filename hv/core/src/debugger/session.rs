//! The conversation with gdb, byte by byte. Packets are checked before the crate gdbstub gets them, since it takes a byte
//! that the serial line has spoiled for the end of the conversation.

use core::convert::Infallible;

use gdbstub::conn::Connection;
use gdbstub::stub::state_machine::GdbStubStateMachine;
use gdbstub::stub::{GdbStub, GdbStubError};

use super::cpus::{Cpus, Reason};
use super::packet::{Packets, Received, SIZE};
use super::target::Guest;

type Stub<C> = GdbStubStateMachine<'static, Guest, C>;
type StubResult<C> = Result<Stub<C>, GdbStubError<Infallible, Infallible>>;

/// What the guest does after gdb has said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It is stopped.
    Stopped,
    /// It goes on, as the slots of its CPUs say.
    Runs,
    /// The conversation is over, by an error on which the crate gdbstub cannot go on. The guest is stopped.
    Lost,
}

/// A conversation with gdb.
pub struct Session<C: Connection<Error = Infallible> + 'static> {
    /// What gdb debugs.
    pub guest: Guest,
    stub: Option<Stub<C>>,
    packets: Packets,
    /// True from gdb's first packet until it leaves.
    connected: bool,
}

impl<C: Connection<Error = Infallible>> Session<C> {
    /// Returns a conversation that has not begun. It must be given a line by [`Session::connect`].
    pub const fn new(guest: Guest) -> Self {
        Self { guest, stub: None, packets: Packets::new(), connected: false }
    }

    /// Begins a conversation over `line`, in place of one that may have been lost, whose memory is free again before this one
    /// takes its own.
    pub fn connect(&mut self, line: C) {
        self.stub = None;
        self.connected = false;
        self.packets.forget();
        let stub = GdbStub::builder(line).packet_buffer_size(SIZE).build();
        self.stub = stub.ok().and_then(|stub| stub.run_state_machine(&mut self.guest).ok());
    }

    /// Returns true if gdb waits to be told that the guest has stopped.
    pub const fn is_awaited(&self) -> bool {
        matches!(self.stub, Some(GdbStubStateMachine::Running(_)))
    }

    /// Returns true if gdb expects nothing of a guest that has stopped because something was received: it waits for the
    /// guest, or it is not there.
    pub const fn is_indifferent(&self) -> bool {
        self.is_awaited() || !self.connected
    }

    /// Tells gdb that the CPU `index` has stopped, if gdb waits for it. In any case this is the current CPU from now on.
    pub fn stopped(&mut self, index: usize, reason: Reason) -> Next {
        self.guest.current = Cpus::thread(index);
        match self.stub.take() {
            Some(GdbStubStateMachine::Running(stub)) => {
                let told = stub.report_stop(&mut self.guest, reason.stop(Cpus::thread(index)));
                self.settle(told)
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
            Received::Spoiled => {
                if let Some(GdbStubStateMachine::Idle(stub)) = &mut self.stub {
                    let Ok(()) = stub.borrow_conn().write(b'-');
                }
                Next::Stopped
            }
            Received::Interrupt => self.pass(1),
            Received::Packet(length) => {
                self.connected = true;
                self.pass(length)
            }
        }
    }

    /// Passes the `length` bytes that have been received to the crate gdbstub.
    fn pass(&mut self, length: usize) -> Next {
        for index in 0..length {
            let byte = self.packets.byte(index);
            let result = match self.stub.take() {
                Some(GdbStubStateMachine::Idle(stub)) => stub.incoming_data(&mut self.guest, byte),
                Some(GdbStubStateMachine::Running(stub)) => stub.incoming_data(&mut self.guest, byte),
                other => {
                    self.stub = other;
                    return Next::Lost;
                }
            };
            match self.settle(result) {
                Next::Stopped => {}
                other => return other,
            }
        }
        Next::Stopped
    }

    /// Keeps the new state of the crate gdbstub, and returns what follows from it.
    fn settle(&mut self, result: StubResult<C>) -> Next {
        let (stub, next) = match result {
            Ok(stub @ GdbStubStateMachine::Idle(_)) => (stub, Next::Stopped),
            Ok(stub @ GdbStubStateMachine::Running(_)) => (stub, Next::Runs),
            Ok(GdbStubStateMachine::CtrlCInterrupt(stub)) => {
                let signal = Reason::Interrupt.stop(self.guest.current);
                let handled = stub.interrupt_handled(&mut self.guest, Some(signal));
                let Ok(handled) = handled else { return Next::Lost };
                (handled, Next::Stopped)
            }
            Ok(GdbStubStateMachine::Disconnected(stub)) => {
                self.guest.leave();
                self.connected = false;
                (stub.return_to_idle(), Next::Runs)
            }
            Err(_) => return Next::Lost,
        };
        self.stub = Some(stub);
        next
    }
}
