//! Decoding of stores to the APIC's page, compared with a complete decoder.

use iced_x86::{Code, Decoder, DecoderOptions, OpKind, Register as Iced};
use proptest::prelude::*;
use vidar_core::vmm::fetch::Width;
use vidar_core::vmm::store::{Operation, Source, Store, decode, flags};
use vidar_core::x86::registers::Register;

const WIDTHS: [(Width, u32); 3] = [(Width::Bits16, 16), (Width::Bits32, 32), (Width::Bits64, 64)];

/// Returns the store that the complete decoder finds.
fn expected(bits: u32, bytes: &[u8]) -> Option<Store> {
    let decoded = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    // Hints say nothing about what is stored.
    if decoded.has_rep_prefix() || decoded.has_repne_prefix() || decoded.op0_kind() != OpKind::Memory {
        return None;
    }
    let register = |register: Iced| Register::from_number(register as u64 - Iced::EAX as u64);
    let from_register = || Source::Register(register(decoded.op1_register()));
    let immediate = || Source::Immediate(decoded.immediate(1) as u32);
    let (operation, source) = match decoded.code() {
        Code::Mov_rm32_r32 | Code::Mov_moffs32_EAX => (Operation::Replace, from_register()),
        Code::Xchg_rm32_r32 => (Operation::Replace, Source::Exchange(register(decoded.op1_register()))),
        Code::Mov_rm32_imm32 => (Operation::Replace, immediate()),
        Code::And_rm32_r32 => (Operation::And, from_register()),
        Code::Or_rm32_r32 => (Operation::Or, from_register()),
        Code::Xor_rm32_r32 => (Operation::Xor, from_register()),
        Code::And_rm32_imm32 | Code::And_rm32_imm8 => (Operation::And, immediate()),
        Code::Or_rm32_imm32 | Code::Or_rm32_imm8 => (Operation::Or, immediate()),
        Code::Xor_rm32_imm32 | Code::Xor_rm32_imm8 => (Operation::Xor, immediate()),
        _ => return None,
    };
    Some(Store { operation, source, length: decoded.len() as u8 })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![prop::sample::select(vec![0x66u8, 0x67, 0x3e, 0x65, 0xf0]), 0x40u8..0x50];
    let opcode = prop_oneof![4 => prop::sample::select(vec![0x87u8, 0x89, 0xa3, 0xc7, 0x09, 0x21, 0x31, 0x81, 0x83]), 1 => any::<u8>()];
    let tail = prop_oneof![
        3 => (any::<u8>(), any::<[u8; 15]>()).prop_map(|(modrm, rest)| [&[modrm & 0xc7][..], &rest].concat()),
        2 => any::<[u8; 16]>().prop_map(|rest| rest.to_vec()),
    ];
    (prop::collection::vec(prefix, 0..5), opcode, tail, 1usize..22).prop_map(
        |(prefixes, opcode, tail, cut)| {
            let mut bytes = [&prefixes[..], &[opcode], &tail].concat();
            bytes.truncate(cut.max(prefixes.len() + 1));
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn decoding_agrees_with_a_complete_decoder(bytes in bytes()) {
        for (width, bits) in WIDTHS {
            let got = decode(bytes.iter().copied(), width);
            prop_assert_eq!(got, expected(bits, &bytes), "{:02x?} in {} bits", bytes, bits);
        }
    }
}

#[test]
fn store_of_linux_is_decoded() {
    let linux = [0x89, 0x04, 0x25, 0x00, 0xc3, 0x5f, 0xff];
    let (operation, source) = (Operation::Replace, Source::Register(Register::Rax));
    let store = Store { operation, source, length: 7 };
    assert_eq!(decode(linux.into_iter(), Width::Bits64), Some(store));
    assert_eq!(decode([0x89, 0x04].into_iter(), Width::Bits64), None, "cut off");
}

#[test]
fn locked_logical_operation_is_decoded() {
    // lock or dword ptr [rax + 0xf0], 0x100
    let or = [0xf0, 0x81, 0x88, 0xf0, 0, 0, 0, 0, 1, 0, 0];
    let store = Store { operation: Operation::Or, source: Source::Immediate(0x100), length: 11 };
    assert_eq!(decode(or.into_iter(), Width::Bits64), Some(store));
    assert_eq!(store.operation.result(0xff, 0x100), 0x1ff);
    assert_eq!(Operation::And.result(0x1ff, !0x100), 0xff);
    assert_eq!(Operation::Xor.result(0x1ff, 0x101), 0xfe);
    assert_eq!(Operation::Replace.result(0x1ff, 0x101), 0x101);
}

#[test]
fn flags_are_those_of_a_logical_instruction() {
    for (result, expected) in [(0, 0x44), (1, 0), (3, 4), (0x8000_0000, 0x84), (0x8000_0100, 0x84), (0x80, 0)]
    {
        assert_eq!(flags(result), expected, "{result:#x}");
    }
}
