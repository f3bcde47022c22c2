//! The state of Vidar as a whole: `vidarctl status`.

use vidar_abi::{Commit, Release, Vendor, Version};

use crate::dma::Dma;
use crate::guard::{self, Guarded};
use crate::json::string;
use crate::numbers::{grouped, memory};

/// The state of Vidar as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Vidar's major, minor and patch version.
    pub version: [u32; 3],
    /// The commit that Vidar was built from, if it is known.
    pub commit: Option<Commit>,
    /// The version of the hypercall ABI that Vidar speaks.
    pub abi: Version,
    /// The virtualisation extension that Vidar uses.
    pub vendor: Vendor,
    /// The number of CPUs that run under Vidar.
    pub cpus: u64,
    /// The number of exits of all kinds so far.
    pub exits: u64,
    /// The memory that Vidar occupies.
    pub memory: Vec<Piece>,
    /// The protections that Vidar guards.
    pub guarded: Guarded,
    /// The answer to the question whether devices can reach that memory, if Vidar gives one.
    pub dma: Option<Dma>,
}

/// A piece of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The physical address of its first byte.
    pub base: u64,
    /// The size of the piece in bytes.
    pub size: u64,
}

impl Piece {
    /// Returns the physical address of its last byte.
    fn end(self) -> u64 {
        self.base.saturating_add(self.size.saturating_sub(1))
    }
}

impl Status {
    /// Formats the status for people.
    pub fn text(&self) -> String {
        let Self { vendor, cpus, .. } = self;
        let plural = if *cpus == 1 { "" } else { "s" };
        format!(
            "Vidar    {}, hypercall ABI {}\nruns on  {}, {cpus} CPU{plural}\nexits    {}\n\
             memory   {}\nguarded  {}\n{}",
            Release(self.version_text(), self.commit),
            self.abi_text(),
            vendor.name(),
            grouped(self.exits),
            self.memory_text(),
            self.guarded_text(),
            self.dma.as_ref().map_or_else(String::new, |dma| format!("DMA      {}\n", dma.state_text())),
        )
    }

    /// Returns the size and the places of Vidar's memory.
    pub fn memory_text(&self) -> String {
        let size = self.size();
        let pieces = self.memory.iter().map(|piece| format!("{:#x}-{:#x}", piece.base, piece.end()));
        let pieces = pieces.collect::<Vec<_>>().join(", ");
        format!("{} ({size} bytes) at {pieces}", memory(size))
    }

    /// Returns what is guarded and what is not.
    fn guarded_text(&self) -> String {
        guard::summary(&self.guarded, self.cpus, self.dma.as_ref().map(Dma::is_guarded))
    }

    /// Returns the version and the extension, for a sentence.
    pub fn version_and_vendor(&self) -> String {
        format!("{} on {}", Release(self.version_text(), self.commit), self.vendor.name())
    }

    /// Formats the status as JSON.
    pub fn json(&self) -> String {
        let Self { cpus, exits, .. } = self;
        let piece = |Piece { base, size }: &Piece| format!("{{\"base\":{base},\"bytes\":{size}}}");
        let pieces = self.memory.iter().map(piece).collect::<Vec<_>>().join(",");
        format!(
            "{{\"version\":{},\"commit\":{},\"abi\":{},\"vendor\":{},\"cpus\":{cpus},\"exits\":{exits},\"memory_bytes\":{},\
             \"memory\":[{pieces}],\"guarded\":{},\"dma\":{}}}\n",
            string(&self.version_text()),
            self.commit.map_or_else(|| "null".to_owned(), |commit| string(&commit.to_string())),
            string(&self.abi_text()),
            string(self.vendor.name()),
            self.size(),
            string(&self.guarded_text()),
            self.dma.as_ref().map_or_else(|| "null".to_owned(), |dma| string(&dma.state_text())),
        )
    }

    fn size(&self) -> u64 {
        self.memory.iter().map(|piece| piece.size).sum()
    }

    fn version_text(&self) -> String {
        let [major, minor, patch] = self.version;
        format!("{major}.{minor}.{patch}")
    }

    fn abi_text(&self) -> String {
        format!("{}.{}", self.abi.major, self.abi.minor)
    }
}

#[cfg(test)]
mod tests {
    use vidar_abi::DmaState;

    use super::*;

    fn status(memory: &[Piece]) -> Status {
        Status { memory: memory.to_vec(), ..STATUS }
    }

    const REGION: Piece = Piece { base: 0x3fc0_0000, size: 4 << 20 };
    const STATUS: Status = Status {
        version: [0, 1, 0],
        commit: None,
        abi: Version { major: 1, minor: 0 },
        vendor: Vendor::Vmx,
        cpus: 1,
        exits: 12_345,
        memory: Vec::new(),
        guarded: Guarded::Nothing,
        dma: None,
    };

    #[test]
    fn the_text_has_a_line_for_each_subject() {
        assert_eq!(
            status(&[REGION]).text(),
            "Vidar    0.1.0, hypercall ABI 1.0\n\
             runs on  Intel VT-x, 1 CPU\n\
             exits    12,345\n\
             memory   4 MiB (4194304 bytes) at 0x3fc00000-0x3fffffff\n\
             guarded  nothing (not the CPU's protections, the kernel's read-only data)\n"
        );
        assert!(Status { cpus: 4, ..STATUS }.text().contains("4 CPUs\n"));
        let two = status(&[REGION, Piece { base: 0x9_e000, size: 0x1000 }]).text();
        assert!(
            two.contains("(4198400 bytes) at 0x3fc00000-0x3fffffff, 0x9e000-0x9efff\nguarded  nothing (not "),
            "{two}"
        );
    }

    #[test]
    fn the_last_line_says_whether_devices_reach_the_memory() {
        let dma = Dma { state: Some(DmaState::Guarded), units: 1, count: 0, faults: Vec::new() };
        let status = Status { dma: Some(dma), ..status(&[REGION]) };
        let text = "guarded  Vidar's memory from devices (not the CPU's protections, the kernel's read-only data)\n\
                    DMA      guarded, by VT-d\n";
        assert!(status.text().ends_with(text), "{}", status.text());
        assert!(status.json().ends_with(",\"dma\":\"guarded, by VT-d\"}\n"));
    }

    #[test]
    fn the_json_is_one_object() {
        assert_eq!(
            status(&[REGION]).json(),
            "{\"version\":\"0.1.0\",\"commit\":null,\"abi\":\"1.0\",\"vendor\":\"Intel VT-x\",\"cpus\":1,\"exits\":12345,\
             \"memory_bytes\":4194304,\"memory\":[{\"base\":1069547520,\"bytes\":4194304}],\"guarded\":\"nothing (not the CPU's protections, the kernel's read-only data)\",\"dma\":null}\n"
        );
    }
    #[test]
    fn the_commit_follows_the_version() {
        let status = Status { commit: Commit::parse("0123456789ab+"), ..status(&[REGION]) };
        assert!(status.text().starts_with("Vidar    0.1.0 (0123456789ab+), hypercall ABI 1.0\n"));
        assert!(status.json().starts_with("{\"version\":\"0.1.0\",\"commit\":\"0123456789ab+\",\"abi\":"));
    }
}
