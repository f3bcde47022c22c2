//! `vidarctl dma`: says whether devices can reach Vidar's memory.

use vidar_abi::{DmaFault, DmaState};

use crate::json::string;
use crate::numbers::grouped;

/// What Vidar says of DMA.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dma {
    /// What is known of devices and Vidar's memory. `None` is a state that is newer than this program.
    pub state: Option<DmaState>,
    /// The number of IOMMUs.
    pub units: u64,
    /// The number of accesses that were refused.
    pub count: u64,
    /// The last of them, the oldest first.
    pub faults: Vec<DmaFault>,
}

impl Dma {
    /// Returns true if devices are kept away from Vidar's memory.
    pub fn is_guarded(&self) -> bool {
        self.state.is_some_and(DmaState::is_guarded)
    }

    /// Returns the state as a sentence without a full stop.
    pub fn state_text(&self) -> String {
        self.state.map_or_else(
            || "in a state that this vidarctl does not know".to_owned(),
            |state| state.to_string(),
        )
    }

    /// Formats the answer for people.
    pub fn text(&self) -> String {
        let (units, count) = (self.units, grouped(self.count));
        let mut text = format!("DMA      {}\nIOMMUs   {units}\n", self.state_text());
        if self.is_guarded() {
            text += &format!("refused  {count}\n");
        }
        text + &self.faults.iter().map(|fault| format!("         {fault}\n")).collect::<String>()
    }

    /// Formats the answer as JSON.
    pub fn json(&self) -> String {
        let fault = |fault: &DmaFault| {
            let (bus, device, function) = fault.place();
            format!(
                "{{\"device\":\"{bus:02x}:{device:02x}.{function}\",\"write\":{},\"address\":{},\"reason\":{}}}",
                fault.write, fault.address, fault.reason
            )
        };
        format!(
            "{{\"guarded\":{},\"state\":{},\"iommus\":{},\"refused\":{},\"last\":[{}]}}\n",
            self.is_guarded(),
            string(&self.state_text()),
            self.units,
            self.count,
            self.faults.iter().map(fault).collect::<Vec<_>>().join(","),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULT: DmaFault = DmaFault { requester: 0x20, write: true, address: 0x20_0000, reason: 5 };

    #[test]
    fn refused_accesses_name_the_device() {
        let dma = Dma { state: Some(DmaState::Guarded), units: 2, count: 1234, faults: vec![FAULT] };
        assert_eq!(
            dma.text(),
            "DMA      guarded, by VT-d\nIOMMUs   2\nrefused  1,234\n         00:04.0 tried to write to the page at 0x200000\n"
        );
        assert_eq!(
            dma.json(),
            "{\"guarded\":true,\"state\":\"guarded, by VT-d\",\"iommus\":2,\"refused\":1234,\"last\":[{\"device\":\"00:04.0\",\
             \"write\":true,\"address\":2097152,\"reason\":5}]}\n"
        );
    }

    #[test]
    fn a_machine_that_is_not_guarded_says_why() {
        let dma = Dma { state: Some(DmaState::NoIommu), units: 0, count: 0, faults: Vec::new() };
        let text = "DMA      not guarded: this machine has no IOMMU, or its firmware has switched it off\nIOMMUs   0\n";
        assert_eq!(dma.text(), text);
        assert!(dma.json().starts_with("{\"guarded\":false,"));
        assert!(Dma { state: None, ..dma }.text().contains("does not know"));
    }
}
