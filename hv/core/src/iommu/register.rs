//! The registers of a remapping unit, by their offsets, and what their bits mean. VT-d specification, 11.4 "Register
//! Descriptions".

/// Capability Register, of 64 bits.
pub const CAP: usize = 0x08;
/// Extended Capability Register, of 64 bits.
pub const ECAP: usize = 0x10;
/// Global Command Register.
pub const GCMD: usize = 0x18;
/// Global Status Register. Each command has the same bit in both.
pub const GSTS: usize = 0x1c;
/// Root Table Address Register, of 64 bits.
pub const RTADDR: usize = 0x20;
/// Context Command Register, of 64 bits.
pub const CCMD: usize = 0x28;
/// Fault Status Register.
pub const FSTS: usize = 0x34;
/// Fault Event Control Register, the first of four for the interrupt of faults.
pub const FECTL: usize = 0x38;
/// Fault Event Address Register.
pub const FEADDR: usize = 0x40;
/// Fault Event Upper Address Register.
pub const FEUADDR: usize = 0x44;
/// Protected Memory Enable Register.
pub const PMEN: usize = 0x64;
/// Invalidation Queue Head Register, of 64 bits.
pub const IQH: usize = 0x80;
/// Invalidation Queue Tail Register, of 64 bits.
pub const IQT: usize = 0x88;
/// Invalidation Queue Address Register, of 64 bits.
pub const IQA: usize = 0x90;
/// Invalidation Completion Status Register.
pub const ICS: usize = 0x9c;
/// Invalidation Event Control Register, the first of four for the interrupt of the queue.
pub const IECTL: usize = 0xa0;
/// Invalidation Event Address Register.
pub const IEADDR: usize = 0xa8;
/// Invalidation Event Upper Address Register.
pub const IEUADDR: usize = 0xac;
/// Interrupt Remapping Table Address Register, of 64 bits.
pub const IRTA: usize = 0xb8;

/// Command: translation is on.
pub const TRANSLATION: u32 = 1 << 31;
/// Command: use the root table at RTADDR.
pub const SET_ROOT: u32 = 1 << 30;
/// Command: write the write buffer back.
pub const FLUSH_BUFFER: u32 = 1 << 27;
/// Command: the invalidation queue is on.
pub const QUEUE: u32 = 1 << 26;
/// Command: interrupt remapping is on.
pub const REMAP_INTERRUPTS: u32 = 1 << 25;
/// Command: use the interrupt-remapping table at IRTA.
pub const SET_INTERRUPTS: u32 = 1 << 24;
/// Command: let interrupts of the compatibility format pass.
pub const COMPATIBILITY: u32 = 1 << 23;

/// RTADDR: the mode of the tables. Those of mode 0 have no PASIDs.
pub const TABLE_MODE: u32 = 3 << 10;
/// FSTS: an error of the queue, of an answer of a device's, or of its time (IQE, ICE and ITE). Writing the bits clears
/// them, and the unit fetches no descriptor before.
pub const QUEUE_ERRORS: u32 = 7 << 4;
/// FSTS: a fault was not recorded, because no record was free.
pub const OVERFLOW: u32 = 1 << 0;
/// FSTS: a record holds a fault.
pub const PENDING: u32 = 1 << 1;
/// The highest bit of a record of a fault, in its last 32 bits: it holds a fault. Writing the bit frees the record.
pub const RECORDED: u32 = 1 << 31;
/// PMEN: the protected ranges are on.
pub const PROTECTED: u32 = 1 << 31;
/// PMEN: the protected ranges are on in fact.
pub const PROTECTED_STATUS: u32 = 1 << 0;
/// The highest bit of CCMD and of IOTLB: an invalidation is wanted, or has not ended yet.
pub const INVALIDATE: u64 = 1 << 63;
/// CCMD: of all contexts.
pub const ALL_CONTEXTS: u64 = 1 << 61;
/// IOTLB: of all translations.
pub const ALL_TRANSLATIONS: u64 = 1 << 60;
/// IOTLB: after reads and writes under way have ended.
pub const DRAIN: u64 = 1 << 49 | 1 << 48;
