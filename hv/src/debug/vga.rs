//! VGA's text memory as a grid of cells.

#![expect(unsafe_code, reason = "VGA memory is written here")]

use vidar_core::console::screen::{COLUMNS, Grid, ROWS};
use vidar_core::mem::addr::Hva;
use x86_64::instructions::port::Port;

/// The text memory of the VGA, and its cursor.
#[derive(Debug)]
pub struct Vga {
    cells: Hva,
}

impl Vga {
    /// Returns the text memory that is mapped at `cells`: [`COLUMNS`] times [`ROWS`] cells.
    ///
    /// # Safety
    /// The cells are mapped, writable, for as long as the value lives, and nothing else in Vidar writes to them.
    pub const unsafe fn at(cells: Hva) -> Self {
        Self { cells }
    }

    /// Returns the address of the cell at `index`.
    fn cell(&self, index: usize) -> *mut u16 {
        assert!(index < COLUMNS * ROWS);
        (self.cells.0 as *mut u16).wrapping_add(index)
    }
}

impl Grid for Vga {
    fn columns(&self) -> usize {
        COLUMNS
    }

    fn rows(&self) -> usize {
        ROWS
    }

    fn set(&mut self, index: usize, value: u16) {
        // SAFETY: the caller of `at` has promised that the cells are mapped and that nothing else writes to them.
        unsafe { self.cell(index).write_volatile(value) }
    }

    fn get(&self, index: usize) -> u16 {
        // SAFETY: the caller of `at` has promised that the cells are mapped.
        unsafe { self.cell(index).read_volatile() }
    }
}

impl Vga {
    /// Moves the blinking cursor, by the CRT controller's cursor location registers 0Eh and 0Fh.
    pub fn set_cursor((column, row): (u8, u8)) {
        let position = u16::from(row) * COLUMNS as u16 + u16::from(column);
        // SAFETY: these registers of the CRT controller only move the cursor.
        unsafe {
            let (mut index, mut data) = (Port::<u8>::new(0x3d4), Port::<u8>::new(0x3d5));
            for (register, value) in [(0x0e, (position >> 8) as u8), (0x0f, position as u8)] {
                index.write(register);
                data.write(value);
            }
        }
    }
}
