//! The programs that the tests in machines use.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use anyhow::Result;

use crate::{paths, probe_image};

/// The programs that the tests in machines use.
#[derive(Debug)]
pub struct Tools {
    /// The hypervisor's image.
    pub hypervisor: PathBuf,
    /// The guest's tool.
    pub vidarctl: PathBuf,
    /// The probe's image, which is built when a test first needs it.
    probe: OnceLock<Vec<u8>>,
}

impl Tools {
    /// Returns the tools at the paths where cargo puts them.
    pub fn new() -> Self {
        Self { hypervisor: paths::hypervisor(), vidarctl: paths::vidarctl(), probe: OnceLock::new() }
    }

    /// Returns the same tools with another hypervisor.
    pub fn with(hypervisor: PathBuf) -> Self {
        Self { hypervisor, ..Self::new() }
    }

    /// Returns the probe's image.
    pub fn probe(&self) -> Result<&[u8]> {
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        if self.probe.get().is_none() {
            let _ = self.probe.set(probe_image::build()?);
        }
        Ok(self.probe.get().expect("the probe has just been built"))
    }
}
