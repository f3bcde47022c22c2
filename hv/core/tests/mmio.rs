//! Decoding of accesses to registers, compared with a complete decoder.

use iced_x86::{Code, Decoder, DecoderOptions, OpKind, Register as Iced};
use proptest::prelude::*;
use vidar_core::vmm::fetch::Width;
use vidar_core::vmm::mmio::{Access, Instruction, Operation, Size, Source, decode, flags};
use vidar_core::x86::registers::Register;

const WIDTHS: [(Width, u32); 3] = [(Width::Bits16, 16), (Width::Bits32, 32), (Width::Bits64, 64)];

/// Returns the instruction that the complete decoder finds.
fn expected(bits: u32, bytes: &[u8]) -> Option<Instruction> {
    let decoded = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    // Hints say nothing about what is accessed.
    if decoded.has_rep_prefix() || decoded.has_repne_prefix() {
        return None;
    }
    let register = |register: Iced| {
        let first = if (Iced::RAX..=Iced::R15).contains(&register) { Iced::RAX } else { Iced::EAX };
        Register::from_number(register as u64 - first as u64)
    };
    let from_register = || Source::Register(register(decoded.op1_register()));
    let immediate = || Source::Immediate(decoded.immediate(1));
    let zero_extended = || Source::Immediate(i64::from(decoded.immediate(1) as i32).cast_unsigned());
    let (access, size) = match decoded.code() {
        Code::Mov_r32_rm32 | Code::Mov_EAX_moffs32 => (None, Size::Bits32),
        Code::Mov_r64_rm64 | Code::Mov_RAX_moffs64 => (None, Size::Bits64),
        Code::Mov_rm32_r32 | Code::Mov_moffs32_EAX => {
            (Some((Operation::Replace, from_register())), Size::Bits32)
        }
        Code::Mov_rm64_r64 | Code::Mov_moffs64_RAX => {
            (Some((Operation::Replace, from_register())), Size::Bits64)
        }
        Code::Xchg_rm32_r32 => {
            (Some((Operation::Replace, Source::Exchange(register(decoded.op1_register())))), Size::Bits32)
        }
        Code::Xchg_rm64_r64 => {
            (Some((Operation::Replace, Source::Exchange(register(decoded.op1_register())))), Size::Bits64)
        }
        Code::Mov_rm32_imm32 => (Some((Operation::Replace, zero_extended())), Size::Bits32),
        Code::Mov_rm64_imm32 => (Some((Operation::Replace, immediate())), Size::Bits64),
        Code::And_rm32_r32 => (Some((Operation::And, from_register())), Size::Bits32),
        Code::Or_rm32_r32 => (Some((Operation::Or, from_register())), Size::Bits32),
        Code::Xor_rm32_r32 => (Some((Operation::Xor, from_register())), Size::Bits32),
        Code::And_rm64_r64 => (Some((Operation::And, from_register())), Size::Bits64),
        Code::Or_rm64_r64 => (Some((Operation::Or, from_register())), Size::Bits64),
        Code::Xor_rm64_r64 => (Some((Operation::Xor, from_register())), Size::Bits64),
        Code::And_rm32_imm32 | Code::And_rm32_imm8 => (Some((Operation::And, zero_extended())), Size::Bits32),
        Code::Or_rm32_imm32 | Code::Or_rm32_imm8 => (Some((Operation::Or, zero_extended())), Size::Bits32),
        Code::Xor_rm32_imm32 | Code::Xor_rm32_imm8 => (Some((Operation::Xor, zero_extended())), Size::Bits32),
        Code::And_rm64_imm32 | Code::And_rm64_imm8 => (Some((Operation::And, immediate())), Size::Bits64),
        Code::Or_rm64_imm32 | Code::Or_rm64_imm8 => (Some((Operation::Or, immediate())), Size::Bits64),
        Code::Xor_rm64_imm32 | Code::Xor_rm64_imm8 => (Some((Operation::Xor, immediate())), Size::Bits64),
        _ => return None,
    };
    let memory = if access.is_some() { decoded.op0_kind() } else { decoded.op1_kind() };
    if memory != OpKind::Memory {
        return None;
    }
    let access = match access {
        Some((operation, source)) => Access::Store(operation, source),
        None => Access::Load(register(decoded.op0_register())),
    };
    Some(Instruction { access, size, length: decoded.len() as u8 })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![prop::sample::select(vec![0x66u8, 0x67, 0x3e, 0x65, 0xf0]), 0x40u8..0x50];
    let opcode = prop_oneof![4 => prop::sample::select(vec![0x87u8, 0x89, 0x8b, 0xa1, 0xa3, 0xc7, 0x09, 0x21, 0x31, 0x81, 0x83]), 1 => any::<u8>()];
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

const fn store(operation: Operation, source: Source, size: Size, length: u8) -> Option<Instruction> {
    Some(Instruction { access: Access::Store(operation, source), size, length })
}

#[test]
fn accesses_of_linux_are_decoded() {
    let (size, rax) = (Size::Bits32, Register::Rax);
    // mov [0xffffffffff5fc300], eax: a write to the local APIC
    let linux = [0x89, 0x04, 0x25, 0x00, 0xc3, 0x5f, 0xff];
    let expected = store(Operation::Replace, Source::Register(rax), size, 7);
    assert_eq!(decode(linux.into_iter(), Width::Bits64), expected);
    assert_eq!(decode([0x89, 0x04].into_iter(), Width::Bits64), None, "cut off");
    // readl, readq and writeq: mov eax, [rdi]; mov rax, [rdi + 8]; mov [rdi + 0xb8], rsi
    let load = |size, length| Some(Instruction { access: Access::Load(rax), size, length });
    assert_eq!(decode([0x8b, 0x07].into_iter(), Width::Bits64), load(Size::Bits32, 2));
    assert_eq!(decode([0x48, 0x8b, 0x47, 8].into_iter(), Width::Bits64), load(Size::Bits64, 4));
    let write = [0x48, 0x89, 0xb7, 0xb8, 0, 0, 0];
    let expected = store(Operation::Replace, Source::Register(Register::Rsi), Size::Bits64, 7);
    assert_eq!(decode(write.into_iter(), Width::Bits64), expected);
}

#[test]
fn locked_logical_operation_is_decoded() {
    // lock or dword ptr [rax + 0xf0], 0x100
    let or = [0xf0, 0x81, 0x88, 0xf0, 0, 0, 0, 0, 1, 0, 0];
    let expected = store(Operation::Or, Source::Immediate(0x100), Size::Bits32, 11);
    assert_eq!(decode(or.into_iter(), Width::Bits64), expected);
    assert_eq!(Operation::Or.result(0xff, 0x100), 0x1ff);
    assert_eq!(Operation::And.result(0x1ff, !0x100), 0xff);
    assert_eq!(Operation::Xor.result(0x1ff, 0x101), 0xfe);
    assert_eq!(Operation::Replace.result(0x1ff, 0x101), 0x101);
}

#[test]
fn flags_are_those_of_a_logical_instruction() {
    for (result, expected) in [(0, 0x44), (1, 0), (3, 4), (0x8000_0000, 0x84), (0x8000_0100, 0x84), (0x80, 0)]
    {
        assert_eq!(flags(result, Size::Bits32), expected, "{result:#x}");
        assert_eq!(flags(result, Size::Bits64), expected & 0x44, "{result:#x}");
        assert_eq!(flags(result << 32, Size::Bits64), expected & 0xc0 | 4, "{result:#x}");
    }
}
