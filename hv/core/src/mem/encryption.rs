//! Memory encryption with address bits that select how memory is encrypted: the same memory answers with these bits set
//! and with them clear. Hidden memory must be hidden at all of these addresses.

use crate::x86::cpuid::Leaf;

/// The CPUID leaf of AMD's memory encryption.
pub const AMD_LEAF: u32 = 0x8000_001f;

/// What memory encryption does to the addresses of a CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encryption {
    /// The bits of a physical address that do not select other memory, but how it is encrypted.
    pub alias: u64,
    /// The number of bits by which physical addresses are narrower than CPUID reports.
    pub narrower: u32,
}

impl Encryption {
    /// Returns the encryption of an AMD CPU. `cpuid` returns its leaves, and `syscfg` is the MSR of that name.
    pub fn of_amd(cpuid: impl Fn(u32) -> Leaf, syscfg: u64) -> Self {
        let alias = alias_of_amd(&cpuid);
        Self { alias, narrower: narrower_on_amd(cpuid, syscfg) }
    }

    /// Returns the encryption of an Intel CPU. `activated` is the value of IA32_TME_ACTIVATE. Addresses are as wide as
    /// CPUID reports, since the bits of the key are bits of an address.
    pub fn of_intel(activated: u64, physical_address_bits: u32) -> Self {
        Self { alias: alias_of_intel(activated, physical_address_bits), narrower: 0 }
    }
}

/// Returns the address bit that selects encryption on an AMD CPU, the C-bit; 0 if the CPU has no memory encryption.
/// `cpuid` returns the CPU's leaves. AMD APM Vol. 2, 7.10.1 "Determining Support for Secure Memory Encryption".
fn alias_of_amd(cpuid: impl Fn(u32) -> Leaf) -> u64 {
    const SME_OR_SEV: u32 = 0b11;
    if cpuid(0x8000_0000).eax < AMD_LEAF {
        return 0;
    }
    let leaf = cpuid(AMD_LEAF);
    if leaf.eax & SME_OR_SEV == 0 { 0 } else { 1 << (leaf.ebx & 0x3f) }
}

/// Returns by how many bits the physical addresses of an AMD CPU are narrower than CPUID 8000_0008 says. While
/// `syscfg`, the MSR of that name, enables memory encryption, some CPUs reserve their highest address bits. `cpuid`
/// returns the CPU's leaves. AMD APM Vol. 2, 7.10.1 "Determining Support for Secure Memory Encryption".
fn narrower_on_amd(cpuid: impl Fn(u32) -> Leaf, syscfg: u64) -> u32 {
    const ENABLED: u64 = 1 << 23;
    if alias_of_amd(&cpuid) == 0 || syscfg & ENABLED == 0 { 0 } else { cpuid(AMD_LEAF).ebx >> 6 & 0x3f }
}

/// Returns the address bits that select a key on an Intel CPU, the highest bits of a physical address; 0 if encryption
/// is off. `activated` is the value of IA32_TME_ACTIVATE. Intel SDM Vol. 4, 2.1 "Architectural MSRs",
/// IA32_TME_ACTIVATE.
fn alias_of_intel(activated: u64, physical_address_bits: u32) -> u64 {
    const ENABLED: u64 = 1 << 1;
    let key_bits = (activated >> 32 & 0xf) as u32;
    if activated & ENABLED == 0 || key_bits >= physical_address_bits {
        return 0;
    }
    (1 << physical_address_bits) - (1 << (physical_address_bits - key_bits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(highest: u32, eax: u32, ebx: u32) -> impl Fn(u32) -> Leaf {
        move |leaf| match leaf {
            0x8000_0000 => Leaf { eax: highest, ..Leaf::default() },
            AMD_LEAF => Leaf { eax, ebx, ..Leaf::default() },
            _ => Leaf::default(),
        }
    }

    #[test]
    fn amd_addresses_are_narrower_while_encryption_is_enabled() {
        const ON: u64 = 1 << 23;
        assert_eq!(narrower_on_amd(cpu(0x8000_0020, 1, 0x16f), ON | 0xf << 18), 5);
        assert_eq!(narrower_on_amd(cpu(0x8000_0020, 1, 0x16f), !ON), 0, "not enabled");
        assert_eq!(narrower_on_amd(cpu(0x8000_0020, 0, 0x16f), ON), 0, "no encryption");
        assert_eq!(narrower_on_amd(cpu(0x8000_0008, 1, 0x16f), ON), 0, "no such leaf");
    }

    #[test]
    fn c_bit_is_the_one_that_cpuid_reports() {
        assert_eq!(alias_of_amd(cpu(0x8000_0020, 1, 0x16f)), 1 << 47);
        assert_eq!(alias_of_amd(cpu(0x8000_0021, 2, 51)), 1 << 51, "SEV alone");
        assert_eq!(alias_of_amd(cpu(0x8000_0021, 0, 51)), 0, "no encryption");
        assert_eq!(alias_of_amd(cpu(0x8000_0008, 1, 51)), 0, "no such leaf");
    }

    #[test]
    fn intel_key_bits_are_the_highest_address_bits() {
        assert_eq!(alias_of_intel(6 << 32 | 0b11, 46), 0x3f << 40);
        assert_eq!(alias_of_intel(6 << 32 | 0b01, 46), 0, "not enabled");
        assert_eq!(alias_of_intel(0b11, 46), 0, "one key");
        assert_eq!(alias_of_intel(15 << 32 | 0b11, 52), 0x7fff << 37);
    }
}
