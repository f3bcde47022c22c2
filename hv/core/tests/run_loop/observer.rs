//! The loop and an observer: what the observer is told, and what it may answer.

use vidar_core::vmm::exit::Exit;
use vidar_core::vmm::observer::{Observer, Unobserved};
use vidar_core::vmm::outcome::{Exception, Outcome, Stop};
use vidar_core::x86::registers::Register;

use crate::bench::{Action, Bench, FakeCpu};

/// An observer that writes down what it is told, and answers for the first exit and the first stop.
#[derive(Default)]
struct Witness {
    entries: usize,
    exits: Vec<Exit>,
    stops: Vec<Stop>,
    answer: Option<Outcome>,
    instead: Option<Outcome>,
}

impl Observer<FakeCpu> for Witness {
    fn before_entry(&mut self, _: &mut FakeCpu) {
        self.entries += 1;
    }

    fn after_exit(&mut self, _: &mut FakeCpu, exit: &Exit) -> Option<Outcome> {
        self.exits.push(*exit);
        self.answer.take()
    }

    fn before_stop(&mut self, _: &mut FakeCpu, stop: Stop, _: &Exit) -> Option<Outcome> {
        self.stops.push(stop);
        self.instead.take()
    }
}

#[test]
fn observer_that_only_watches_changes_nothing() {
    const EXITS: [Exit; 4] = [Exit::Cpuid, Exit::Nmi, Exit::Invd, Exit::TripleFault];
    let mut witness = Witness::default();
    let observed = Bench::new().run_observed(&EXITS, &mut witness);
    assert_eq!(observed, Bench::new().run_observed(&EXITS, &mut Unobserved));
    assert_eq!(witness.entries, 4);
    assert_eq!(witness.exits, EXITS);
    assert_eq!(witness.stops, [Stop::TripleFault]);
}

#[test]
fn exit_that_the_observer_answers_reaches_no_handler() {
    let mut bench = Bench::new();
    let before = bench.get(Register::Rax);
    let mut witness =
        Witness { answer: Some(Outcome::Inject(Exception::InvalidOpcode)), ..Witness::default() };
    let (end, did) = bench.run_observed(&[Exit::Cpuid, Exit::TripleFault], &mut witness);
    assert_eq!(end, (Stop::TripleFault, Exit::TripleFault));
    assert_eq!(did, [Action::Run, Action::Inject(Exception::InvalidOpcode), Action::Run]);
    assert_eq!(bench.get(Register::Rax), before, "CPUID has been answered");
}

#[test]
fn observer_can_let_a_guest_go_on_that_would_stop() {
    let mut witness = Witness { instead: Some(Outcome::Resume), ..Witness::default() };
    let exits = [Exit::TripleFault, Exit::Nmi, Exit::TripleFault];
    let (end, did) = Bench::new().run_observed(&exits, &mut witness);
    assert_eq!(end, (Stop::TripleFault, Exit::TripleFault));
    assert_eq!(did, [Action::Run; 3]);
    assert_eq!(witness.stops, [Stop::TripleFault; 2]);
}
