//! Stores to the APIC's page, against a whole decoder.

use iced_x86::{Code, Decoder, DecoderOptions, OpKind, Register as Iced};
use proptest::prelude::*;
use vidar::vmm::fetch::Width;
use vidar::vmm::registers::Register;
use vidar::vmm::store::{Source, Store, decode};

const WIDTHS: [(Width, u32); 3] = [(Width::Bits16, 16), (Width::Bits32, 32), (Width::Bits64, 64)];

/// What the decoder makes of it.
fn expected(bits: u32, bytes: &[u8]) -> Option<Store> {
    let decoded = Decoder::new(bits, bytes, DecoderOptions::NONE).decode();
    // Hints and locks say nothing about what is stored.
    if decoded.has_lock_prefix()
        || decoded.has_rep_prefix()
        || decoded.has_repne_prefix()
        || decoded.op0_kind() != OpKind::Memory
    {
        return None;
    }
    let register = |register: Iced| Register::from_number(register as u64 - Iced::EAX as u64);
    let source = match decoded.code() {
        Code::Mov_rm32_r32 | Code::Mov_moffs32_EAX => Source::Register(register(decoded.op1_register())),
        Code::Xchg_rm32_r32 => Source::Exchange(register(decoded.op1_register())),
        Code::Mov_rm32_imm32 => Source::Immediate(decoded.immediate32()),
        _ => return None,
    };
    Some(Store { source, length: decoded.len() as u8 })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let prefix = prop_oneof![prop::sample::select(vec![0x66u8, 0x67, 0x3e, 0x65]), 0x40u8..0x50];
    let opcode = prop_oneof![4 => prop::sample::select(vec![0x87u8, 0x89, 0xa3, 0xc7]), 1 => any::<u8>()];
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
    fn as_the_decoder_says(bytes in bytes()) {
        for (width, bits) in WIDTHS {
            let got = decode(bytes.iter().copied(), width);
            prop_assert_eq!(got, expected(bits, &bytes), "{:02x?} in {} bits", bytes, bits);
        }
    }
}

#[test]
fn as_linux_writes() {
    let linux = [0x89, 0x04, 0x25, 0x00, 0xc3, 0x5f, 0xff];
    let store = Store { source: Source::Register(Register::Rax), length: 7 };
    assert_eq!(decode(linux.into_iter(), Width::Bits64), Some(store));
    assert_eq!(decode([0x89, 0x04].into_iter(), Width::Bits64), None, "cut off");
}
