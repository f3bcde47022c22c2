//! The lengths of instructions that exit, for CPUs that do not report them. The first byte of the input chooses the
//! mode of the CPU, the rest is the code.

use std::cell::Cell;

use vidar_abi::ExitKind;
use vidar_core::svm::instruction::{Instruction, MAX_LENGTH, Verdict};
use vidar_core::vmm::doubt::{Doubt, PATIENCE, Site};

use crate::target::Target;

const TARGET: Target = Target::new("instruction", check);

fn check(input: &[u8]) {
    let Some((choice, code)) = input.split_first() else { return };
    let long_mode_64 = choice % 2 == 1;
    let mut found = 0;
    for instruction in Instruction::ALL {
        let read = Cell::new(0);
        let counted = code.iter().copied().inspect(|_| read.set(read.get() + 1));
        let length = instruction.length(counted, long_mode_64);
        assert!(read.get() <= usize::from(MAX_LENGTH) + 1, "{} bytes were read", read.get());
        if let Some(length) = length {
            found += 1;
            assert!((instruction.shortest()..=MAX_LENGTH).contains(&length));
            let whole = &code[..usize::from(length)];
            assert_eq!(instruction.length(whole.iter().copied(), long_mode_64), Some(length));
            let cut = &whole[..whole.len() - 1];
            assert_eq!(instruction.length(cut.iter().copied(), long_mode_64), None);
        }
        check_decision(instruction, code, long_mode_64, length);
    }
    assert!(found <= 1, "the code is {found} instructions at once");
}

/// Vidar decides about an exit in at most as many tries as it has patience for.
fn check_decision(instruction: Instruction, code: &[u8], long_mode_64: bool, length: Option<u8>) {
    let mut doubt = Doubt::default();
    let site = Site { kind: ExitKind::Cpuid, rip: 0x1000, answered: 0 };
    let mut decide = || instruction.decide(&mut doubt, site, code.iter().copied(), long_mode_64);
    let verdict = (0..PATIENCE).map(|_| decide()).find(|verdict| *verdict != Verdict::Again);
    match (verdict.expect("the same exit comes for ever"), length) {
        (Verdict::Length(decided), Some(length)) => assert_eq!(decided, length),
        (Verdict::Length(decided), None) => assert_eq!(decided, instruction.shortest()),
        (Verdict::Undefined, length) => assert!(length.is_none() && code.contains(&0xf0)),
        (Verdict::Again, _) => unreachable!("it was looked for"),
    }
}

#[test]
fn lengths_of_instructions() {
    TARGET.run();
}
