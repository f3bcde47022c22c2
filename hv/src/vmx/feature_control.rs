//! IA32_FEATURE_CONTROL: whether firmware lets VMX be used.

/// The lock: until reset the MSR cannot be written again.
const LOCK: u64 = 1 << 0;
/// VMXON is allowed outside SMX operation.
const VMX_OUTSIDE_SMX: u64 = 1 << 2;

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

/// Decides from the value of the MSR, or `None` where the CPU has none (some emulators), in which case VMXON asks
/// for nothing. Intel SDM Vol. 3C, 24.7 "Enabling and Entering VMX Operation".
pub const fn decide(value: Option<u64>) -> Decision {
    match value {
        None => Decision::Ready,
        Some(value) if value & LOCK == 0 => Decision::Write(value | LOCK | VMX_OUTSIDE_SMX),
        Some(value) if value & VMX_OUTSIDE_SMX == 0 => Decision::LockedOff,
        Some(_) => Decision::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions() {
        assert_eq!(decide(Some(0)), Decision::Write(0b101));
        assert_eq!(
            decide(Some(1 << 20)),
            Decision::Write(1 << 20 | 0b101),
            "other switches stay as they are"
        );
        assert_eq!(decide(Some(0b001)), Decision::LockedOff);
        assert_eq!(decide(Some(0b011)), Decision::LockedOff, "allowed inside SMX alone");
        assert_eq!(decide(Some(0b101)), Decision::Ready);
        assert_eq!(decide(None), Decision::Ready);
    }
}
