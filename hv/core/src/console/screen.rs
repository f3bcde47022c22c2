//! Text output on a grid of character cells.

/// Number of columns of a VGA text screen.
pub const COLUMNS: usize = 80;
/// Number of rows of a VGA text screen.
pub const ROWS: usize = 25;

/// The attribute byte of a cell: light grey on black.
const ATTRIBUTE: u16 = 0x0700;

/// A grid of character cells: VGA text memory, or a framebuffer.
pub trait Grid {
    /// Returns the number of columns.
    fn columns(&self) -> usize;
    /// Returns the number of rows.
    fn rows(&self) -> usize;
    /// Writes the cell at `index`, which counts row by row. The low byte of `cell` is the character, the high byte its
    /// attribute.
    fn set(&mut self, index: usize, cell: u16);
    /// Returns the character of the cell at `index`, with its attribute if the grid keeps that.
    fn get(&self, index: usize) -> u16;
}

/// Writes text to a [`Grid`], and wraps and scrolls it.
#[derive(Debug)]
pub struct Teletype<G> {
    grid: G,
    column: usize,
    row: usize,
}

impl<G: Grid> Teletype<G> {
    /// Returns a teletype whose cursor is at the top left. The screen keeps its contents until [`Teletype::clear`].
    pub const fn new(grid: G) -> Self {
        Self { grid, column: 0, row: 0 }
    }

    /// Clears the screen and moves the cursor to the top left.
    pub fn clear(&mut self) {
        (0..self.grid.columns() * self.grid.rows())
            .for_each(|index| self.grid.set(index, ATTRIBUTE | u16::from(b' ')));
        (self.column, self.row) = (0, 0);
    }

    /// Returns the column and the row of the cursor.
    pub fn cursor(&self) -> (u8, u8) {
        (self.column as u8, self.row as u8)
    }

    /// Returns the grid.
    pub const fn grid(&mut self) -> &mut G {
        &mut self.grid
    }

    /// Writes ASCII text. Line feeds and carriage returns move the cursor, and other bytes that cannot be printed show
    /// as `?`.
    pub fn write(&mut self, text: &[u8]) {
        for &byte in text {
            match byte {
                b'\n' => self.new_line(),
                b'\r' => self.column = 0,
                _ => {
                    let shown = if (0x20..0x7f).contains(&byte) { byte } else { b'?' };
                    let at = self.row * self.grid.columns() + self.column;
                    self.grid.set(at, ATTRIBUTE | u16::from(shown));
                    self.column += 1;
                    if self.column == self.grid.columns() {
                        self.new_line();
                    }
                }
            }
        }
    }

    fn new_line(&mut self) {
        self.column = 0;
        let (columns, rows) = (self.grid.columns(), self.grid.rows());
        if self.row + 1 < rows {
            self.row += 1;
            return;
        }
        for index in 0..columns * (rows - 1) {
            let below = self.grid.get(index + columns);
            self.grid.set(index, below);
        }
        for index in columns * (rows - 1)..columns * rows {
            self.grid.set(index, ATTRIBUTE | u16::from(b' '));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Grid for Vec<u16> {
        fn columns(&self) -> usize {
            COLUMNS
        }
        fn rows(&self) -> usize {
            ROWS
        }
        fn set(&mut self, index: usize, cell: u16) {
            self[index] = cell;
        }
        fn get(&self, index: usize) -> u16 {
            self[index]
        }
    }

    fn row(screen: &Teletype<Vec<u16>>, row: usize) -> String {
        let cells = &screen.grid[row * COLUMNS..(row + 1) * COLUMNS];
        cells.iter().map(|cell| *cell as u8 as char).collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn long_lines_wrap_and_full_screens_scroll() {
        let mut screen = Teletype::new(vec![0; COLUMNS * ROWS]);
        screen.clear();
        for line in 0..30 {
            screen.write(format!("line {line}\n").as_bytes());
        }
        assert_eq!(row(&screen, 0), "line 6");
        assert_eq!(row(&screen, ROWS - 2), "line 29");
        assert_eq!(screen.cursor(), (0, 24));
        screen.write("x".repeat(COLUMNS + 1).as_bytes());
        assert_eq!(row(&screen, ROWS - 1), "x");
        assert_eq!(screen.cursor(), (1, 24));
    }
}
