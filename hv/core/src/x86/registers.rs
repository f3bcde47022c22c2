//! The guest's general-purpose registers, as the entry assembly saves and loads them.

/// The general-purpose registers, with their numbers in instruction encodings and exit qualifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Register {
    /// RAX.
    Rax = 0,
    /// RCX.
    Rcx = 1,
    /// RDX.
    Rdx = 2,
    /// RBX.
    Rbx = 3,
    /// RSP. The entry assembly does not use its slot, since the VMCS or VMCB holds the value.
    Rsp = 4,
    /// RBP.
    Rbp = 5,
    /// RSI.
    Rsi = 6,
    /// RDI.
    Rdi = 7,
    /// R8.
    R8 = 8,
    /// R9.
    R9 = 9,
    /// R10.
    R10 = 10,
    /// R11.
    R11 = 11,
    /// R12.
    R12 = 12,
    /// R13.
    R13 = 13,
    /// R14.
    R14 = 14,
    /// R15.
    R15 = 15,
}

impl Register {
    /// All registers, in the order of their numbers.
    pub const ALL: [Self; 16] = [
        Self::Rax,
        Self::Rcx,
        Self::Rdx,
        Self::Rbx,
        Self::Rsp,
        Self::Rbp,
        Self::Rsi,
        Self::Rdi,
        Self::R8,
        Self::R9,
        Self::R10,
        Self::R11,
        Self::R12,
        Self::R13,
        Self::R14,
        Self::R15,
    ];

    /// Returns the register whose number is in bits 3:0 of `number`. The other bits are ignored.
    pub const fn from_number(number: u64) -> Self {
        Self::ALL[(number & 15) as usize]
    }

    /// The registers from R8 on, in which hypercalls return more than a few words.
    pub const UPPER: [Self; 8] =
        [Self::R8, Self::R9, Self::R10, Self::R11, Self::R12, Self::R13, Self::R14, Self::R15];

    /// Returns the offset in bytes of the register in [`Registers`], for assembly.
    pub const fn offset(self) -> usize {
        self as usize * 8
    }
}

/// The values of the registers, each at its [`Register::offset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Registers([u64; 16]);

impl Registers {
    /// Returns all 64 bits of `register`.
    pub const fn get(&self, register: Register) -> u64 {
        self.0[register as usize]
    }

    /// Sets all 64 bits of `register`.
    pub const fn set(&mut self, register: Register, value: u64) {
        self.0[register as usize] = value;
    }

    /// Returns the low 32 bits of `register`, as instructions such as CPUID and RDMSR read it.
    pub const fn low(&self, register: Register) -> u32 {
        self.get(register) as u32
    }

    /// Returns EDX:EAX, as WRMSR and XSETBV read it.
    pub const fn edx_eax(&self) -> u64 {
        (self.low(Register::Rdx) as u64) << 32 | self.low(Register::Rax) as u64
    }

    /// Sets EDX:EAX to `value`, and clears the high halves of RDX and RAX, as RDMSR does.
    pub const fn set_edx_eax(&mut self, value: u64) {
        self.set(Register::Rax, value & 0xffff_ffff);
        self.set(Register::Rdx, value >> 32);
    }
}
