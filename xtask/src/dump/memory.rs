//! The memory of a stopped guest, read over the line to a debugger. Each page is read once, and what has been read is
//! what the dump has.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use anyhow::Result;
use vidar_core::mem::addr::{Gpa, Hpa, PAGE_SIZE};
use vidar_core::mem::walk::ReadGuest;

use crate::remote::Remote;

/// A page that has been read.
pub type Page = [u8; PAGE_SIZE as usize];

/// The memory, by guest-physical addresses.
pub struct Memory<'a> {
    remote: RefCell<&'a mut Remote>,
    /// Where the guest's kernel maps all of physical memory.
    direct: u64,
    pages: RefCell<BTreeMap<u64, Option<Box<Page>>>>,
    /// The error that has ended the reading.
    failure: RefCell<Option<anyhow::Error>>,
    /// The number of pages that the user has been told of.
    told: Cell<usize>,
}

impl<'a> Memory<'a> {
    /// Returns the memory of the guest at the other end of the line, whose kernel maps physical memory at `direct`.
    pub fn new(remote: &'a mut Remote, direct: u64) -> Self {
        let (pages, failure) = (RefCell::default(), RefCell::default());
        Self { remote: RefCell::new(remote), direct, pages, failure, told: Cell::new(0) }
    }

    /// Reads the page at this address. Returns false if there is no memory, or if the line has failed.
    pub fn read(&self, address: Gpa) -> bool {
        let start = address.align_down(PAGE_SIZE).0;
        if self.failure.borrow().is_some() {
            return false;
        }
        if let Some(page) = self.pages.borrow().get(&start) {
            return page.is_some();
        }
        let Some(linear) = self.direct.checked_add(start) else { return false };
        let read = self.remote.borrow_mut().memory(linear, PAGE_SIZE as usize);
        let page = match read {
            Ok(bytes) => <Box<Page>>::try_from(bytes.into_boxed_slice()).ok(),
            Err(failure) => {
                self.failure.replace(Some(failure));
                return false;
            }
        };
        let found = page.is_some();
        self.pages.borrow_mut().insert(start, page);
        self.tell();
        found
    }

    /// Tells a user at a terminal how much has been read.
    fn tell(&self) {
        let count = self.pages.borrow().len();
        if count >= self.told.get() + 64 && std::io::stderr().is_terminal() {
            self.told.set(count);
            eprint!("\r{} KiB read ", count * 4);
            let _ = std::io::stderr().flush();
        }
    }

    /// Returns the addresses of all pages that have been read.
    pub fn addresses(&self) -> Vec<u64> {
        let pages = self.pages.borrow();
        pages.iter().filter(|(_, page)| page.is_some()).map(|(address, _)| *address).collect()
    }

    /// Returns all pages that have been read, by their addresses.
    pub fn into_pages(self) -> Result<BTreeMap<u64, Box<Page>>> {
        if self.told.get() > 0 {
            eprintln!();
        }
        match self.failure.into_inner() {
            Some(failure) => Err(failure),
            None => {
                let pages = self.pages.into_inner().into_iter();
                Ok(pages.filter_map(|(address, page)| Some((address, page?))).collect())
            }
        }
    }
}

impl ReadGuest for Memory<'_> {
    fn word(&self, address: Gpa) -> Option<u64> {
        if !self.read(address) {
            return None;
        }
        let pages = self.pages.borrow();
        let page = pages.get(&address.align_down(PAGE_SIZE).0)?.as_ref()?;
        let at = (address.0 % PAGE_SIZE) as usize;
        Some(u64::from_le_bytes(*page.get(at..)?.first_chunk()?))
    }

    fn page(&self, _: Gpa) -> Option<Hpa> {
        None
    }
}
