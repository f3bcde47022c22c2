//! IA32_FEATURE_CONTROL: whether firmware lets VMX be used, and what it is locked with where firmware left it open.

/// The lock: until reset the MSR cannot be written again.
const LOCK: u64 = 1 << 0;
/// VMXON is allowed outside SMX operation.
const VMX_OUTSIDE_SMX: u64 = 1 << 2;
/// The hashes of the key for SGX's launch enclave may be written.
const SGX_LAUNCH_CONTROL: u64 = 1 << 17;
/// SGX is enabled.
const SGX: u64 = 1 << 18;

/// What to do before VMXON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is allowed and locked.
    Ready,
    /// Firmware left it open: write this value.
    Write(u64),
    /// Firmware has locked it off.
    LockedOff,
}

/// Features of the CPU that the MSR switches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// SGX.
    pub sgx: bool,
    /// SGX launch control.
    pub sgx_launch_control: bool,
}

/// Decides from the value of the MSR, or `None` where the CPU has none (some emulators), in which case VMXON asks
/// for nothing. Intel SDM Vol. 3C, 24.7 "Enabling and Entering VMX Operation".
///
/// An open MSR gets what Linux would lock it with on the bare machine (`init_ia32_feat_ctl`), since the guest can no longer
/// do so: VMX, SGX and its launch control. Whatever else firmware left in it is dropped there as well, such as local machine
/// checks, which Linux uses only where firmware has locked them on.
pub const fn decide(value: Option<u64>, features: Features) -> Decision {
    match value {
        None => Decision::Ready,
        Some(value) if value & LOCK == 0 => {
            let sgx = if features.sgx { SGX } else { 0 };
            let launch = if features.sgx && features.sgx_launch_control { SGX_LAUNCH_CONTROL } else { 0 };
            Decision::Write(LOCK | VMX_OUTSIDE_SMX | sgx | launch)
        }
        Some(value) if value & VMX_OUTSIDE_SMX == 0 => Decision::LockedOff,
        Some(_) => Decision::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Features = Features { sgx: false, sgx_launch_control: false };

    #[test]
    fn what_is_locked_stays() {
        for features in [NONE, Features { sgx: true, sgx_launch_control: true }] {
            assert_eq!(decide(Some(0b001), features), Decision::LockedOff);
            assert_eq!(decide(Some(0b011), features), Decision::LockedOff, "allowed inside SMX alone");
            assert_eq!(decide(Some(0b101), features), Decision::Ready);
            assert_eq!(decide(None, features), Decision::Ready);
        }
    }

    #[test]
    fn what_is_open_is_locked_as_linux_would() {
        for (sgx, sgx_launch_control, value) in [
            (false, false, 0b101),
            (true, false, 1 << 18 | 0b101),
            (true, true, 1 << 18 | 1 << 17 | 0b101),
            (false, true, 0b101),
        ] {
            let features = Features { sgx, sgx_launch_control };
            assert_eq!(decide(Some(0), features), Decision::Write(value));
            // Local machine checks and VMX inside SMX.
            assert_eq!(
                decide(Some(1 << 20 | 0b010), features),
                Decision::Write(value),
                "firmware's own is dropped"
            );
        }
    }
}
