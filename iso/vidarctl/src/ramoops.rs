//! The record that Linux' module ramoops can read: `vidarctl log --ramoops`.

/// The memory of the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ramoops {
    /// The address of the memory.
    pub base: u64,
    /// The size of the memory in bytes.
    pub size: u64,
}

impl Ramoops {
    /// Returns the parameters of the module, on one line: the memory is one record, and none of it is for anything
    /// else.
    pub fn text(&self) -> String {
        let Self { base, size } = self;
        format!(
            "mem_address={base:#x} mem_size={size:#x} record_size={size:#x} console_size=0 ftrace_size=0 pmsg_size=0\n"
        )
    }

    /// Formats the memory as JSON.
    pub fn json(&self) -> String {
        format!("{{\"base\":{},\"size\":{}}}\n", self.base, self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_on_one_line() {
        let record = Ramoops { base: 0x1000, size: 0x8000 };
        assert!(record.text().starts_with("mem_address=0x1000 mem_size=0x8000 record_size=0x8000 "));
        assert_eq!(record.text().lines().count(), 1);
        assert_eq!(record.json(), "{\"base\":4096,\"size\":32768}\n");
    }
}
