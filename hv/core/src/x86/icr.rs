//! The interrupt command register of the local APIC: which message goes to whom.
//!
//! Intel SDM Vol. 3A, 11.6.1 "Interrupt Command Register (ICR)" and 11.12.9 "ICR Operation in x2APIC Mode".

/// How the local APIC is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Through its page.
    XApic,
    /// Through MSRs.
    X2Apic,
}

impl Mode {
    /// Returns true if a message can be for the CPU with this ID alone. The register of xAPIC mode has 8 bits for it, and all ones mean
    /// all CPUs.
    pub const fn reaches(self, id: u32) -> bool {
        match self {
            Self::XApic => id < 0xff,
            Self::X2Apic => id < u32::MAX,
        }
    }
}

/// Offsets in the page of xAPIC mode.
pub mod register {
    /// Local APIC ID.
    pub const ID: u16 = 0x20;
    /// Logical destination register.
    pub const LOGICAL_DESTINATION: u16 = 0xd0;
    /// Destination format register.
    pub const DESTINATION_FORMAT: u16 = 0xe0;
    /// Interrupt command register, bits 31:0: a write sends.
    pub const ICR_LOW: u16 = 0x300;
    /// Interrupt command register, bits 63:32.
    pub const ICR_HIGH: u16 = 0x310;
}

/// What matters of the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// INIT.
    Init,
    /// INIT level de-assert, which nothing since the Pentium takes for more than a word about arbitration.
    Deassert,
    /// A start-up IPI with this vector.
    Startup(u8),
    /// Anything else: an interrupt, an NMI, an SMI.
    Other,
}

/// For whom it is.
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
    /// The CPUs whose logical IDs match.
    Logical(u32),
}

/// The register's content, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Icr {
    /// What is sent.
    pub message: Message,
    /// To whom.
    pub destination: Destination,
}

/// Delivery modes, bits 10:8.
const INIT: u32 = 5;
const STARTUP: u32 = 6;
/// Destination mode: logical.
const LOGICAL: u32 = 1 << 11;
/// Delivery status, in the register of xAPIC mode: the last message is still on its way.
pub const PENDING: u32 = 1 << 12;
/// Level: assert.
const ASSERT: u32 = 1 << 14;
/// Trigger mode: level.
const LEVEL: u32 = 1 << 15;
/// Bits that must be 0 in x2APIC mode.
const RESERVED: u64 = 0xfff3_3000;

impl Icr {
    /// Decodes bits 31:0 and the destination field behind them.
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
            _ if low & LOGICAL != 0 => Destination::Logical(destination),
            _ => Destination::Physical(destination),
        };
        let message = match low >> 8 & 7 {
            INIT if low & (LEVEL | ASSERT) == LEVEL => Message::Deassert,
            INIT => Message::Init,
            STARTUP => Message::Startup(low as u8),
            _ => Message::Other,
        };
        Self { message, destination }
    }

    /// Decodes the MSR of x2APIC mode; `None` where a reserved bit is set, which is #GP.
    pub const fn decode_msr(value: u64) -> Option<Self> {
        if value & RESERVED != 0 {
            return None;
        }
        Some(Self::decode(Mode::X2Apic, value as u32, (value >> 32) as u32))
    }

    /// Bits 31:0 of a message to a physical destination, or to all others.
    pub const fn encode(self) -> u32 {
        let message = match self.message {
            Message::Init => INIT << 8 | ASSERT,
            Message::Startup(vector) => STARTUP << 8 | ASSERT | vector as u32,
            Message::Deassert | Message::Other => LEVEL | INIT << 8,
        };
        let shorthand = match self.destination {
            Destination::Itself => 1,
            Destination::All => 2,
            Destination::Others => 3,
            Destination::Physical(_) | Destination::Logical(_) => 0,
        };
        message | shorthand << 18
    }
}

/// What a local APIC answers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Its ID.
    pub id: u32,
    /// Logical destination register, as in xAPIC mode.
    pub logical: u32,
    /// Destination format register.
    pub format: u32,
}

impl Address {
    /// Logical destination and destination format after INIT.
    pub const RESET: (u32, u32) = (0, u32::MAX);

    /// Returns true if a message to `destination`, sent in `mode`, is for this one; `sender` says that it is the sender.
    /// Intel SDM Vol. 3A, 11.6.2 "Determining IPI Destination".
    pub const fn answers(&self, destination: Destination, mode: Mode, sender: bool) -> bool {
        match (destination, mode) {
            (Destination::Itself, _) => sender,
            (Destination::All, _) => true,
            (Destination::Others, _) => !sender,
            (Destination::Physical(id), _) => id == self.id,
            (Destination::Logical(to), Mode::X2Apic) => {
                to >> 16 == self.id >> 4 && to & 1 << (self.id & 0xf) != 0
            }
            (Destination::Logical(to), Mode::XApic) => {
                let own = self.logical >> 24;
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
    fn as_linux_starts_a_cpu() {
        let to = Destination::Physical(3);
        assert_eq!(decoded(0xc500, 3), Icr { message: Message::Init, destination: to });
        assert_eq!(decoded(0x8500, 3), Icr { message: Message::Deassert, destination: to });
        assert_eq!(decoded(0x069a, 3), Icr { message: Message::Startup(0x9a), destination: to });
    }

    #[test]
    fn destinations() {
        for (low, to, expected) in [
            (0x4_0500, 3, Destination::Itself),
            (0x8_0500, 3, Destination::All),
            (0xc_0500, 3, Destination::Others),
            (0x0500, 0xff, Destination::All),
            (0x0d00, 0x03, Destination::Logical(3)),
        ] {
            assert_eq!(decoded(low, to).destination, expected, "{low:#x}");
        }
        assert_eq!(
            Icr::decode(Mode::X2Apic, 0x4500, 0xff).destination,
            Destination::Physical(0xff),
            "no broadcast with 32 bits"
        );
    }

    #[test]
    fn an_id_that_does_not_fit_is_not_reached() {
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
    fn logical_ids() {
        let flat = Address { id: 2, logical: 0x0400_0000, format: u32::MAX };
        assert!(flat.answers(Destination::Logical(0x06), Mode::XApic, false));
        assert!(!flat.answers(Destination::Logical(0x03), Mode::XApic, false));
        let cluster = Address { id: 2, logical: 0x2400_0000, format: 0x0fff_ffff };
        assert!(cluster.answers(Destination::Logical(0x26), Mode::XApic, false));
        assert!(!cluster.answers(Destination::Logical(0x16), Mode::XApic, false));
        let x2 = Address { id: 0x23, logical: 0, format: 0 };
        assert!(x2.answers(Destination::Logical(0x2_0008), Mode::X2Apic, false));
        assert!(!x2.answers(Destination::Logical(0x1_0008), Mode::X2Apic, false));
        assert!(!x2.answers(Destination::Logical(0x2_0004), Mode::X2Apic, false));
    }

    proptest! {
        #[test]
        fn what_is_sent_reads_back(vector in any::<u8>(), id in 0u32..255, which in 0usize..2) {
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
        fn a_shorthand_needs_no_address(id in any::<u32>(), logical in any::<u32>(), format in any::<u32>()) {
            let address = Address { id, logical, format };
            for mode in [Mode::XApic, Mode::X2Apic] {
                for sender in [false, true] {
                    prop_assert!(address.answers(Destination::All, mode, sender));
                    prop_assert_eq!(address.answers(Destination::Itself, mode, sender), sender);
                    prop_assert_eq!(address.answers(Destination::Others, mode, sender), !sender);
                }
            }
        }
    }
}
