//! Tests of landing, in which start-up IPIs lead to Vidar. They try every page, and every order of messages, exits and
//! steps of the CPU that is started, and compare each with a bare CPU.

use std::collections::HashSet;
use std::ops::Range;

use vidar_core::boot::landing::{WINDOW, stub};
use vidar_core::mem::addr::{Hpa, PAGE_SIZE};
use vidar_core::mem::moved::MovedPages;
use vidar_core::mem::ranges::RangeSet;

const TRAMPOLINE: u8 = 0x9e;

/// What a CPU in real mode does at the beginning of a page: CS:IP and BP after the stub.
fn execute(stub: [u8; 7], vector: u8) -> (u16, u16, u16) {
    let cs = u16::from(vector) << 8;
    match stub {
        [0x8c, 0xcd, 0xea, ip_low, ip_high, cs_low, cs_high] => {
            (u16::from_le_bytes([cs_low, cs_high]), u16::from_le_bytes([ip_low, ip_high]), cs)
        }
        _ => panic!("{stub:x?} is code of the guest's"),
    }
}

#[test]
fn every_page_of_ram_leads_to_the_trampoline() {
    // This is what a PC has: the BIOS's data at the end, and the trampoline's page, which is reserved.
    let mut ram = RangeSet::from([Hpa(0)..Hpa(0x9_fc00), Hpa(0x10_0000)..Hpa(0x4000_0000)]);
    ram.remove(&(Hpa(0x9_e000)..Hpa(0x9_f000)));
    let moved = MovedPages::new(&ram, &WINDOW, Hpa(0x30_0000));
    let pages: HashSet<_> = moved.pages().map(|page| page.0).collect();
    for vector in 1..0x9e_u8 {
        let page = u64::from(vector) * PAGE_SIZE;
        assert!(pages.contains(&page), "{page:#x}");
        let (cs, ip, bp) = execute(stub(TRAMPOLINE), vector);
        assert_eq!((cs, ip, (bp >> 8) as u8), (u16::from(TRAMPOLINE) << 8, 0, vector));
    }
    // Each page is moved into the region that Vidar keeps, and no two pages to the same address.
    let places: HashSet<_> = moved.pages().filter_map(|page| moved.place(page.identity())).collect();
    assert_eq!(places.len(), pages.len());
    let kept: Range<u64> = 0x30_0000..0x30_0000 + (WINDOW.end.0 - WINDOW.start.0);
    assert!(places.iter().all(|place| kept.contains(&place.0)));
}

/// The state of the CPU that is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Place {
    /// It runs the guest, since the start-up IPI with this vector if there was one.
    Guest(Option<u8>),
    /// It is in Vidar because of an exit. GIF is 0, so an INIT stays pending.
    Exit(Option<u8>),
    /// It waits for a start-up IPI after an INIT.
    Waiting,
    /// It is on its way from the stub to VMRUN, with GIF 1. A CPU that no table lists is on its way to its own INIT.
    Starting(u8),
    /// It is on the same way, with GIF 0.
    Entering(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Cpu {
    place: Place,
    init_waits: bool,
    /// The state of a bare CPU: the vector that it was started with, or `None` while it waits.
    bare: Option<Option<u8>>,
    /// True if a start-up IPI arrived while an INIT was pending, and was lost.
    lost: bool,
}

#[derive(Debug, Clone, Copy)]
enum Message {
    Init,
    Startup(u8),
    /// The sender waits until an exit must be over.
    Pause,
}

impl Cpu {
    fn receive(&mut self, message: Message) {
        match message {
            Message::Init => {
                self.bare = None;
                match self.place {
                    Place::Exit(_) | Place::Entering(_) => self.init_waits = true,
                    _ => self.place = Place::Waiting,
                }
            }
            Message::Startup(vector) => {
                self.bare = self.bare.or(Some(Some(vector)));
                match self.place {
                    Place::Waiting => self.place = Place::Starting(vector),
                    _ => self.lost |= self.init_waits,
                }
            }
            Message::Pause => {}
        }
    }

    /// Does the CPU's next step: the guest goes on or exits, or Vidar goes on. VMRUN sets GIF, and takes a pending
    /// INIT.
    fn steps(self) -> Vec<Self> {
        let to = |place| Self { place, ..self };
        let enter = |since| match self.init_waits {
            true => Self { place: Place::Waiting, init_waits: false, ..self },
            false => to(Place::Guest(since)),
        };
        match self.place {
            Place::Guest(since) => vec![to(Place::Exit(since))],
            Place::Exit(since) => vec![enter(since)],
            Place::Waiting => vec![],
            Place::Starting(vector) => vec![to(Place::Entering(vector))],
            Place::Entering(vector) => vec![enter(Some(vector))],
        }
    }

    /// Returns the state as the guest sees it: where the CPU runs, or will run as soon as Vidar has finished.
    fn ends(mut self) -> Option<Option<u8>> {
        loop {
            match self.place {
                Place::Guest(since) => return Some(since),
                Place::Waiting => return None,
                _ => self = self.steps()[0],
            }
        }
    }
}

/// Returns a CPU that runs the guest.
const RUNNING: Cpu = Cpu { place: Place::Guest(None), init_waits: false, bare: Some(None), lost: false };

/// Tries all orders of the messages and the CPU's own steps, and returns the states in which they can end.
fn explore(start: Cpu, messages: &[Message]) -> HashSet<Cpu> {
    let (mut seen, mut ends) = (HashSet::new(), HashSet::new());
    let mut open = vec![(start, 0)];
    while let Some((cpu, sent)) = open.pop() {
        if !seen.insert((cpu, sent)) {
            continue;
        }
        open.extend(cpu.steps().into_iter().map(|next| (next, sent)));
        match messages.get(sent) {
            // The pause is over when the CPU is out of Vidar.
            Some(Message::Pause) if !matches!(cpu.place, Place::Guest(_) | Place::Waiting) => {}
            Some(message) => {
                let mut next = cpu;
                next.receive(*message);
                open.push((next, sent + 1));
            }
            None => {
                ends.insert(cpu);
            }
        }
    }
    ends
}

/// INIT, and two start-up IPIs with at least ten microseconds between them: Linux, arch/x86/kernel/smpboot.c,
/// wakeup_secondary_cpu_via_init().
const AS_LINUX: [Message; 4] =
    [Message::Init, Message::Startup(0x9a), Message::Pause, Message::Startup(0x9a)];

#[test]
fn cpu_that_linux_starts_runs_whatever_its_state_was() {
    for end in explore(RUNNING, &AS_LINUX) {
        assert_eq!((end.ends(), end.bare), (Some(Some(0x9a)), Some(Some(0x9a))), "{end:?}");
    }
    // The same a second time, and from a state in which it is not known when the CPU leaves Vidar.
    for end in explore(RUNNING, &[AS_LINUX, AS_LINUX].concat()) {
        assert_eq!(end.ends(), Some(Some(0x9a)), "{end:?}");
    }
}

/// Tries all sequences of five messages.
fn all_messages() -> impl Iterator<Item = Vec<Message>> {
    let alphabet = [Message::Init, Message::Startup(0x10), Message::Startup(0x20)];
    (0..3_usize.pow(5)).map(move |number| (0..5).map(|at| alphabet[number / 3_usize.pow(at) % 3]).collect())
}

/// Without a pause, a start-up IPI can come too early, as on a bare CPU that is slow to take an INIT. This is the only
/// difference.
#[test]
fn only_a_lost_startup_ipi_differs_from_a_bare_cpu() {
    for messages in all_messages() {
        for end in explore(RUNNING, &messages) {
            assert!(end.lost || end.ends() == end.bare, "{messages:?} {end:?}");
            // A CPU that has lost one waits, or was started by a later one. It never runs at a page that no message has
            // named.
            assert!(end.ends().is_none() || end.bare.is_some(), "{messages:?} {end:?}");
        }
    }
}
