//! How a CPU waits for its start-up IPI with emulated start-up: in the guest, in a page that holds nothing but a loop
//! around HLT. There the second stage applies to it, whatever message it receives. When another CPU calls it, it leaves
//! the loop by an exit.

use super::exit::Exit;
use super::machine::Machine;
use super::outcome::Stop;
use super::vcpu::Vcpu;

/// What the page holds: cli; hlt; jmp to the hlt.
pub const ROOM: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];

/// Has the CPU wait in the page with the number `room` until it is to start, and starts it. The page is the guest's, so
/// its kernel may change what is there: each exit puts the CPU back.
///
/// # Errors
/// The reason for which the CPU cannot go on, and the last exit.
#[cold]
pub fn wait<V: Vcpu, T>(vcpu: &mut V, machine: &Machine<V, T>, room: u8) -> Result<(), (Stop, Exit)> {
    let percpu = vcpu.percpu();
    let mut last = Exit::Init;
    percpu.flushed.leaves();
    loop {
        if vcpu.stop_is_wanted() {
            return Err((Stop::Elsewhere, last));
        }
        // This comes first, since a call may be among the events that it drops.
        vcpu.init();
        if let Some(vector) = percpu.startup.take() {
            percpu.reset_address();
            vcpu.startup(vector);
            // The CPU may have cached a large page around the room from before a change of rights.
            vcpu.flush_second_stage();
            machine.locked.enters(percpu);
            return Ok(());
        }
        vcpu.wait_at(room);
        last = vcpu.run();
        match last {
            Exit::Init if percpu.startup.arrived() || vcpu.takes_init() => {}
            Exit::Init => return Err((Stop::InitPending, last)),
            Exit::EntryFailed { .. } => return Err((Stop::EntryFailed, last)),
            _ => {}
        }
    }
}
