//! Firmware: the width of UEFI, and Secure Boot.

use super::finding::Finding;
use super::machine::{Machine, Unreadable, text};

/// The folder that Linux has where firmware is UEFI.
pub const EFI: &str = "/sys/firmware/efi";
/// 32 or 64: the width of UEFI's code.
const WIDTH: &str = "/sys/firmware/efi/fw_platform_size";
/// Firmware's variable of Secure Boot: four bytes of attributes, and the value.
const SECURE_BOOT: &str = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// What the boot loader has given to Linux.
pub const BOOT_PARAMS: &str = "/sys/kernel/boot_params/data";
/// The offset of `secure_boot` in boot_params. The EFI stub of Linux writes 2 there if Secure Boot is off, and 3 if it
/// is on. Linux, include/linux/efi.h, `enum efi_secureboot_mode`.
const IN_BOOT_PARAMS: usize = 0x1ec;

/// Returns true if firmware is UEFI.
pub fn is_uefi(machine: &dyn Machine) -> bool {
    machine.names(EFI).is_ok()
}

/// Checks that UEFI has 64 bits.
pub fn width(machine: &dyn Machine) -> Finding {
    if !is_uefi(machine) {
        return Finding::ok("firmware has started Linux by a BIOS");
    }
    match text(machine, WIDTH).as_deref() {
        Ok("32") => Finding::problem(
            "the UEFI firmware has 32 bits",
            "start from BIOS, if the firmware's setup offers it (\"CSM\" or \"Legacy\")",
        ),
        // Linux names the width since 4.4, and a 64-bit Linux before that had a UEFI of 64 bits.
        _ => Finding::ok("the UEFI firmware has 64 bits"),
    }
}

/// Checks that Secure Boot is off.
pub fn secure_boot(machine: &dyn Machine) -> Finding {
    if !is_uefi(machine) {
        return Finding::ok("there is no Secure Boot, since firmware has started Linux by a BIOS");
    }
    let value = machine.file(SECURE_BOOT);
    // The variable does not tell whether the user has had shim stop checking, and the EFI stub of Linux asks for that
    // too.
    let on = match machine.file(BOOT_PARAMS).ok().and_then(|bytes| bytes.get(IN_BOOT_PARAMS).copied()) {
        Some(2) => Some(false),
        Some(3) => Some(true),
        _ => match value.as_deref() {
            Ok([_, _, _, _, value]) => Some(*value == 1),
            // Firmware without the variable has no Secure Boot, if the others are there.
            Err(Unreadable::Absent)
                if machine.names("/sys/firmware/efi/efivars").is_ok_and(|names| !names.is_empty()) =>
            {
                Some(false)
            }
            _ => None,
        },
    };
    match on {
        Some(false) => Finding::ok("Secure Boot is off"),
        Some(true) => Finding::problem(
            "Secure Boot is on, and nobody has signed Vidar",
            "switch \"Secure Boot\" off in the firmware's setup",
        ),
        None => Finding::unknown(
            "it is not known whether Secure Boot is on, since the firmware's variables cannot be read",
            "run `mount -t efivarfs efivarfs /sys/firmware/efi/efivars` and then `vidarctl doctor`, both as root",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::Fake;
    use super::super::finding::State;
    use super::*;

    fn uefi() -> Fake {
        Fake::default().with(WIDTH, "64\n")
    }

    #[test]
    fn uefi_needs_64_bits() {
        assert_eq!(width(&Fake::default()).state, State::Ok);
        assert_eq!(width(&uefi()).state, State::Ok);
        assert_eq!(width(&uefi().with(WIDTH, "32\n")).state, State::Problem);
    }

    #[test]
    fn secure_boot_has_to_be_off() {
        assert_eq!(secure_boot(&Fake::default()).state, State::Ok);
        assert_eq!(secure_boot(&uefi().with(SECURE_BOOT, [6, 0, 0, 0, 0])).state, State::Ok);
        let on = secure_boot(&uefi().with(SECURE_BOOT, [6, 0, 0, 0, 1]));
        assert_eq!(on.state, State::Problem);
        assert!(on.advice.is_some_and(|advice| advice.contains("firmware's setup")));
        assert_eq!(secure_boot(&uefi().with("/sys/firmware/efi/efivars/Boot0000", "")).state, State::Ok);
    }

    #[test]
    fn without_variables_the_boot_loader_knows() {
        let given = |value| {
            let mut page = vec![0; 4096];
            page[IN_BOOT_PARAMS] = value;
            secure_boot(&uefi().with(BOOT_PARAMS, page)).state
        };
        assert_eq!([0, 1, 2, 3].map(given), [State::Unknown, State::Unknown, State::Ok, State::Problem]);
        assert_eq!(secure_boot(&uefi()).state, State::Unknown);
        assert_eq!(secure_boot(&uefi().with(SECURE_BOOT, [1])).state, State::Unknown);
        // The user has had shim stop checking: the variable stays, and Linux was told that nothing is checked.
        let mut page = vec![0; 4096];
        page[IN_BOOT_PARAMS] = 2;
        let machine = uefi().with(SECURE_BOOT, [6, 0, 0, 0, 1]).with(BOOT_PARAMS, page);
        assert_eq!(secure_boot(&machine).state, State::Ok);
    }
}
