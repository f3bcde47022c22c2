//! What Vidar says of its memory and the machine's devices.

use core::fmt;

macro_rules! states {
    ($($(#[$doc:meta])* $state:ident = $sentence:literal,)*) => {
        /// The answer to the question whether devices can reach Vidar's memory. The number of a state never changes. It
        /// is displayed as a sentence without its full stop.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u64)]
        pub enum DmaState { $($(#[$doc])* $state,)* }

        impl DmaState {
            /// All states, by number.
            pub const ALL: &[Self] = &[$(Self::$state,)*];
        }

        impl fmt::Display for DmaState {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$state => $sentence,)* })
            }
        }
    };
}

states! {
    /// The IOMMUs keep all devices away.
    Guarded = "guarded, by VT-d",
    /// As [`DmaState::Guarded`], but an IOMMU can post interrupts, which the guest's kernel can have it write to any
    /// memory.
    GuardedFromDevices = "guarded from devices, by VT-d; the kernel could still use posted interrupts to write",
    /// The boot option `dma=guard` is not given, on a machine with VT-d.
    NotAsked = "not guarded: the boot option dma=guard is not given",
    /// The machine has no IOMMU, or its firmware has switched it off.
    NoIommu = "not guarded: this machine has no IOMMU, or its firmware has switched it off",
    /// The machine has AMD's IOMMU.
    Amd = "not guarded: this machine has AMD-Vi, which Vidar does not drive",
    /// Something is in the way, which the log names.
    Failed = "not guarded: the IOMMU cannot be used, and Vidar's log says why",
}

impl DmaState {
    /// Returns the state with the number `raw`, if there is one.
    pub fn from_raw(raw: u64) -> Option<Self> {
        usize::try_from(raw).ok().and_then(|index| Self::ALL.get(index).copied())
    }

    /// Returns true if the IOMMUs keep devices away from Vidar's memory.
    pub const fn is_guarded(self) -> bool {
        matches!(self, Self::Guarded | Self::GuardedFromDevices)
    }
}

/// An access by a device that an IOMMU has refused. It is displayed for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DmaFault {
    /// Who tried: the number of the bus, from bit 8 on, of the device, from bit 3 on, and of its function.
    pub requester: u16,
    /// True for a write, and false for a read.
    pub write: bool,
    /// The address of the page.
    pub address: u64,
    /// Why it was refused, by the table "Fault Reason Encodings" of the VT-d specification.
    pub reason: u8,
}

impl DmaFault {
    /// Returns the fault as the two words of [`Call::Dma`](crate::Call::Dma). The first is never 0.
    pub const fn to_words(self) -> [u64; 2] {
        let flags = 1 << 32 | (self.write as u64) << 24;
        [flags | (self.reason as u64) << 16 | self.requester as u64, self.address]
    }

    /// Returns the fault that the words hold, or `None` if they hold none.
    pub const fn from_words([first, address]: [u64; 2]) -> Option<Self> {
        if first >> 32 != 1 {
            return None;
        }
        let (requester, reason) = (first as u16, (first >> 16) as u8);
        Some(Self { requester, write: first >> 24 & 1 != 0, address, reason })
    }

    /// Returns the bus, the device and the function of the requester.
    pub const fn place(self) -> (u16, u16, u16) {
        (self.requester >> 8, self.requester >> 3 & 31, self.requester & 7)
    }
}

impl fmt::Display for DmaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (bus, device, function) = self.place();
        let access = if self.write { "write to" } else { "read from" };
        write!(f, "{bus:02x}:{device:02x}.{function} tried to {access} the page at {:#x}", self.address)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::string::ToString;

    use super::*;

    #[test]
    fn states_and_faults_come_back_from_their_words() {
        for state in DmaState::ALL {
            assert_eq!(DmaState::from_raw(*state as u64), Some(*state));
        }
        assert_eq!(DmaState::from_raw(DmaState::ALL.len() as u64), None);
        for write in [false, true] {
            let fault = DmaFault { requester: 0x1afe, write, address: 0x1_0020_0000, reason: 5 };
            assert_eq!(DmaFault::from_words(fault.to_words()), Some(fault));
        }
        assert_eq!(DmaFault::from_words([0, 0]), None);
    }

    #[test]
    fn a_fault_names_the_device_and_what_it_tried() {
        let fault = DmaFault { requester: 0x20, write: true, address: 0x20_0000, reason: 6 };
        assert_eq!(fault.to_string(), "00:04.0 tried to write to the page at 0x200000");
        let fault = DmaFault { requester: 0x1afe, write: false, ..fault };
        assert_eq!(fault.to_string(), "1a:1f.6 tried to read from the page at 0x200000");
    }
}
