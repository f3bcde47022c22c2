//! Lengths of the intercepted instructions, compared with a complete decoder.

use iced_x86::{Code, Decoder, DecoderOptions};
use proptest::prelude::*;
use vidar_abi::ExitKind;
use vidar_core::svm::instruction::{Instruction, MAX_LENGTH, Verdict};
use vidar_core::vmm::doubt::{Doubt, Site};

fn is(instruction: Instruction, code: Code) -> bool {
    match instruction {
        Instruction::Cpuid => code == Code::Cpuid,
        Instruction::Rdmsr => code == Code::Rdmsr,
        Instruction::Wrmsr => code == Code::Wrmsr,
        Instruction::Xsetbv => code == Code::Xsetbv,
        Instruction::Invd => code == Code::Invd,
        Instruction::Vmmcall => matches!(code, Code::Vmmcall | Code::Vmgexit | Code::Vmgexit_F2),
    }
}

const OPCODES: [&[u8]; 6] =
    [&[0x0f, 0xa2], &[0x0f, 0x32], &[0x0f, 0x30], &[0x0f, 0x01, 0xd1], &[0x0f, 0x08], &[0x0f, 0x01, 0xd9]];

fn prefixes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![
        prop::sample::select(vec![0x66u8, 0x67, 0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0xf2, 0xf3]),
        0x40u8..0x50,
        any::<u8>(),
    ];
    prop_oneof![3 => prop::collection::vec(prefix.clone(), 0..5), 1 => prop::collection::vec(prefix, 10..16)]
}

proptest! {
    #[test]
    fn lengths_agree_with_a_complete_decoder(prefixes in prefixes(), opcode in 0usize..6, tail in any::<[u8; 4]>(), cut in 0usize..24) {
        let mut bytes = [&prefixes, OPCODES[opcode], &tail[..]].concat();
        bytes.truncate(cut.max(1));
        for bits in [16, 32, 64] {
            let decoded = Decoder::new(bits, &bytes, DecoderOptions::AMD).decode();
            for instruction in Instruction::ALL {
                let length = instruction.length(bytes.iter().copied(), bits == 64);
                if is(instruction, decoded.code()) {
                    prop_assert_eq!(length, Some(decoded.len() as u8), "{:02x?} in {} bits", bytes, bits);
                } else if let Some(length) = length {
                    // The decoder refuses some prefixes that the instruction does not take. A CPU that does so raises
                    // an exception, and the instruction never exits.
                    prop_assert!(decoded.is_invalid() && length <= MAX_LENGTH, "{:02x?}", bytes);
                }
            }
        }
    }

    #[test]
    fn instruction_is_undefined_only_with_a_lock_prefix(
        prefixes in prefixes(),
        lock in any::<prop::sample::Index>(),
        opcode in 0usize..6,
        cut in 0usize..24,
    ) {
        let instruction = Instruction::ALL[opcode];
        let without = [&prefixes, OPCODES[opcode]].concat();
        let mut bytes = without.clone();
        bytes.insert(lock.index(prefixes.len() + 1), 0xf0);
        bytes.truncate(cut);
        let site = Site { kind: ExitKind::Cpuid, rip: 0, answered: 0 };
        for long in [false, true] {
            let verdict = instruction.decide(&mut Doubt::default(), site, bytes.iter().copied(), long);
            let whole = bytes.len() > without.len() && bytes.len() <= usize::from(MAX_LENGTH);
            if whole && instruction.length(without.iter().copied(), long) == Some(without.len() as u8) {
                prop_assert_eq!(verdict, Verdict::Undefined, "{:02x?}", bytes);
            } else if verdict == Verdict::Undefined {
                let bits = if long { 64 } else { 32 };
                let decoded = Decoder::new(bits, &bytes, DecoderOptions::AMD).decode();
                prop_assert!(decoded.is_invalid(), "{:02x?}", bytes);
            }
        }
    }
}
