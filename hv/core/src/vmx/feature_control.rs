//! IA32_FEATURE_CONTROL: decides if VMX can be used, and the value to lock the MSR with if firmware has not locked it.

/// The lock bit: until the next reset, writes to the MSR raise #GP.
const LOCK: u64 = 1 << 0;
/// VMXON is allowed outside SMX operation.
const VMX_OUTSIDE_SMX: u64 = 1 << 2;
/// SGX launch control: the MSRs with the hash of the launch enclave's key can be written.
const SGX_LAUNCH_CONTROL: u64 = 1 << 17;
/// SGX is enabled.
const SGX: u64 = 1 << 18;

/// What to do before VMXON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: VMXON is allowed.
    Ready,
    /// Write this value to the MSR, which firmware has not locked.
    Write(u64),
    /// Refuse to start: firmware has locked the MSR with VMX disabled.
    LockedOff,
}

/// The CPU's features, besides VMX, that the MSR enables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Features {
    /// The CPU has SGX.
    pub sgx: bool,
    /// The CPU has SGX launch control.
    pub sgx_launch_control: bool,
}

/// Decides what to do before VMXON from the value of the MSR. `value` is `None` if the MSR does not exist, as in some
/// emulators, where VMXON does not depend on it. Intel SDM Vol. 3C, 24.7 "Enabling and Entering VMX Operation".
///
/// If the MSR is not locked, the value to write is that with which Linux locks it on a bare machine
/// (`init_ia32_feat_ctl`), since the guest can no longer do so. It enables VMX, SGX and SGX launch control. Like Linux,
/// it drops all other bits that firmware has set, such as that of local machine checks, which Linux uses only if
/// firmware has locked the MSR.
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
    fn a_locked_msr_is_not_written() {
        for features in [NONE, Features { sgx: true, sgx_launch_control: true }] {
            assert_eq!(decide(Some(0b001), features), Decision::LockedOff);
            assert_eq!(
                decide(Some(0b011), features),
                Decision::LockedOff,
                "VMXON is allowed inside SMX alone"
            );
            assert_eq!(decide(Some(0b101), features), Decision::Ready);
            assert_eq!(decide(None, features), Decision::Ready);
        }
    }

    #[test]
    fn an_unlocked_msr_is_locked_with_the_value_that_linux_writes() {
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
                "bits that firmware has set are dropped"
            );
        }
    }
}
