//! The interrupt command register (ICR) of the local APIC: messages and their destinations.
//!
//! Intel SDM Vol. 3A, 11.6.1 "Interrupt Command Register (ICR)" and 11.12.9 "ICR Operation in x2APIC Mode".

/// The mode of the local APIC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// xAPIC mode: software accesses the registers in the APIC's page.
    XApic,
    /// x2APIC mode: software accesses the registers as MSRs.
    X2Apic,
}

impl Mode {
    /// Returns true if a message can be sent to the CPU with this APIC ID alone. The destination field has 8 bits in
    /// xAPIC mode and 32 in x2APIC mode, and all ones address all CPUs.
    pub const fn reaches(self, id: u32) -> bool {
        match self {
            Self::XApic => id < 0xff,
            Self::X2Apic => id < u32::MAX,
        }
    }
}

/// Offsets of registers in the APIC's page of xAPIC mode.
pub mod register {
    /// Local APIC ID.
    pub const ID: u16 = 0x20;
    /// Logical destination register.
    pub const LOGICAL_DESTINATION: u16 = 0xd0;
    /// Destination format register.
    pub const DESTINATION_FORMAT: u16 = 0xe0;
    /// Interrupt command register, bits 31:0. A write sends the message.
    pub const ICR_LOW: u16 = 0x300;
    /// Interrupt command register, bits 63:32.
    pub const ICR_HIGH: u16 = 0x310;
}

/// The messages that Vidar tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// INIT.
    Init,
    /// INIT level de-assert. CPUs since the Pentium 4 ignore it.
    Deassert,
    /// A start-up IPI with this vector.
    Startup(u8),
    /// An NMI, which Vidar sends. One that the guest sends is [`Message::Other`].
    Nmi,
    /// Anything else: an interrupt, an NMI, an SMI.
    Other,
}

/// The destination of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The sender.
    Itself,
    /// All CPUs.
    All,
    /// All but the sender.
    Others,
    /// The CPU with this APIC ID.
    Physical(u32),
    /// In xAPIC mode, the CPUs whose logical destination registers match.
    LogicalXApic(u8),
    /// In x2APIC mode, the CPUs whose logical IDs, which follow from their APIC IDs, match.
    LogicalX2Apic(u32),
}

/// The decoded content of the ICR.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icr {
    /// The message to send.
    pub message: Message,
    /// The CPUs to send it to.
    pub destination: Destination,
}

/// Delivery mode, bits 10:8: NMI.
const NMI: u32 = 4;
/// Delivery mode, bits 10:8: INIT.
const INIT: u32 = 5;
/// Delivery mode, bits 10:8: start-up IPI.
const STARTUP: u32 = 6;
/// Destination mode: logical.
const LOGICAL: u32 = 1 << 11;
/// Delivery status, in xAPIC mode alone: the last message has not been sent yet.
pub const PENDING: u32 = 1 << 12;
/// Level: assert.
const ASSERT: u32 = 1 << 14;
/// Trigger mode: level.
const LEVEL: u32 = 1 << 15;
/// The reserved bits in x2APIC mode, which must be 0.
const RESERVED: u64 = 0xfff3_3000;

impl Icr {
    /// Decodes bits 31:0 of the ICR, `low`, and its destination field, `destination`, which has 8 bits in xAPIC mode
    /// and 32 in x2APIC mode.
    pub const fn decode(mode: Mode, low: u32, destination: u32) -> Self {
        let broadcast = match mode {
            Mode::XApic => 0xff,
            Mode::X2Apic => u32::MAX,
        };
        let destination = match low >> 18 & 3 {
            1 => Destination::Itself,
            2 => Destination::All,
            3 => Destination::Others,
            _ if destination == broadcast => Destination::All,
            _ if low & LOGICAL == 0 => Destination::Physical(destination),
            _ => match mode {
                Mode::XApic => Destination::LogicalXApic(destination as u8),
                Mode::X2Apic => Destination::LogicalX2Apic(destination),
            },
        };
        let message = match low >> 8 & 7 {
            INIT if low & (LEVEL | ASSERT) == LEVEL => Message::Deassert,
            INIT => Message::Init,
            STARTUP => Message::Startup(low as u8),
            _ => Message::Other,
        };
        Self { message, destination }
    }

    /// Decodes the ICR of x2APIC mode. Returns `None` if a reserved bit is set, so that the write raises #GP.
    pub const fn decode_msr(value: u64) -> Option<Self> {
        if value & RESERVED != 0 {
            return None;
        }
        Some(Self::decode(Mode::X2Apic, value as u32, (value >> 32) as u32))
    }

    /// Returns bits 31:0 of the ICR for an INIT, an INIT level de-assert, a start-up IPI or an NMI, with the
    /// destination mode physical or with a shorthand. The destination field is not among these bits.
    pub const fn encode(self) -> u32 {
        let message = match self.message {
            Message::Init => INIT << 8 | ASSERT,
            Message::Startup(vector) => STARTUP << 8 | ASSERT | vector as u32,
            Message::Nmi => NMI << 8 | ASSERT,
            Message::Deassert | Message::Other => LEVEL | INIT << 8,
        };
        let shorthand = match self.destination {
            Destination::Itself => 1,
            Destination::All => 2,
            Destination::Others => 3,
            Destination::Physical(_) | Destination::LogicalXApic(_) | Destination::LogicalX2Apic(_) => 0,
        };
        message | shorthand << 18
    }
}

/// The registers of a local APIC that decide which messages are for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The APIC ID.
    pub id: u32,
    /// The logical destination register of xAPIC mode.
    pub logical: u32,
    /// The destination format register of xAPIC mode.
    pub format: u32,
}

impl Address {
    /// The values of the logical destination and destination format registers after INIT.
    pub const RESET: (u32, u32) = (0, u32::MAX);

    /// Returns true if a message to `destination` is for this APIC. `sender` is true if this APIC sends the message.
    /// Intel SDM Vol. 3A, 11.6.2 "Determining IPI Destination".
    pub const fn answers(&self, destination: Destination, sender: bool) -> bool {
        match destination {
            Destination::Itself => sender,
            Destination::All => true,
            Destination::Others => !sender,
            Destination::Physical(id) => id == self.id,
            Destination::LogicalX2Apic(to) => to >> 16 == self.id >> 4 && to & 1 << (self.id & 0xf) != 0,
            Destination::LogicalXApic(to) => {
                let own = (self.logical >> 24) as u8;
                match self.format >> 28 {
                    0xf => to & own != 0,
                    _ => to >> 4 == own >> 4 && to & own & 0xf != 0,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(low: u32, destination: u32) -> Icr {
        Icr::decode(Mode::XApic, low, destination)
    }

    #[test]
    fn the_messages_with_which_linux_starts_a_cpu_decode() {
        let to = Destination::Physical(3);
        assert_eq!(decoded(0xc500, 3), Icr { message: Message::Init, destination: to });
        assert_eq!(decoded(0x8500, 3), Icr { message: Message::Deassert, destination: to });
        assert_eq!(decoded(0x069a, 3), Icr { message: Message::Startup(0x9a), destination: to });
    }

    #[test]
    fn shorthands_and_broadcasts_decode() {
        for (low, to, expected) in [
            (0x4_0500, 3, Destination::Itself),
            (0x8_0500, 3, Destination::All),
            (0xc_0500, 3, Destination::Others),
            (0x0500, 0xff, Destination::All),
            (0x0d00, 0x03, Destination::LogicalXApic(3)),
        ] {
            assert_eq!(decoded(low, to).destination, expected, "{low:#x}");
        }
        let x2apic = |low| Icr::decode(Mode::X2Apic, low, 0xff).destination;
        assert_eq!(x2apic(0x4500), Destination::Physical(0xff), "FFH is no broadcast in x2APIC mode");
        assert_eq!(x2apic(0x4d00), Destination::LogicalX2Apic(0xff));
    }

    #[test]
    fn an_id_that_the_destination_field_cannot_hold_is_not_reached() {
        for (id, xapic, x2apic) in [
            (0, true, true),
            (254, true, true),
            (255, false, true),
            (256, false, true),
            (u32::MAX, false, false),
        ] {
            assert_eq!((Mode::XApic.reaches(id), Mode::X2Apic.reaches(id)), (xapic, x2apic), "{id}");
        }
    }

    #[test]
    fn logical_destinations_match_in_flat_cluster_and_x2apic_mode() {
        let flat = Address { id: 2, logical: 0x0400_0000, format: u32::MAX };
        assert!(flat.answers(Destination::LogicalXApic(0x06), false));
        assert!(!flat.answers(Destination::LogicalXApic(0x03), false));
        let cluster = Address { id: 2, logical: 0x2400_0000, format: 0x0fff_ffff };
        assert!(cluster.answers(Destination::LogicalXApic(0x26), false));
        assert!(!cluster.answers(Destination::LogicalXApic(0x16), false));
        let x2 = Address { id: 0x23, logical: 0, format: 0 };
        assert!(x2.answers(Destination::LogicalX2Apic(0x2_0008), false));
        assert!(!x2.answers(Destination::LogicalX2Apic(0x1_0008), false));
        assert!(!x2.answers(Destination::LogicalX2Apic(0x2_0004), false));
    }

    proptest! {
        #[test]
        fn an_encoded_message_decodes_to_itself(vector in any::<u8>(), id in 0u32..255, which in 0usize..2) {
            let message = [Message::Init, Message::Startup(vector)][which];
            for mode in [Mode::XApic, Mode::X2Apic] {
                let icr = Icr { message, destination: Destination::Physical(id) };
                prop_assert_eq!(Icr::decode(mode, icr.encode(), id), icr);
            }
            let others = Icr { message, destination: Destination::Others };
            prop_assert_eq!(decoded(others.encode(), id), others);
        }

        #[test]
        fn reserved_bits_are_refused(value in any::<u64>()) {
            let reserved = [12, 13, 16, 17].into_iter().chain(20..32).any(|bit| value >> bit & 1 == 1);
            prop_assert_eq!(Icr::decode_msr(value).is_none(), reserved);
        }

        #[test]
        fn shorthands_do_not_depend_on_the_address(id in any::<u32>(), logical in any::<u32>(), format in any::<u32>()) {
            let address = Address { id, logical, format };
            for sender in [false, true] {
                prop_assert!(address.answers(Destination::All, sender));
                prop_assert_eq!(address.answers(Destination::Itself, sender), sender);
                prop_assert_eq!(address.answers(Destination::Others, sender), !sender);
            }
        }
    }
}
