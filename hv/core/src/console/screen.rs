//! The screen: a teletype over a grid of cells.

/// Columns of a VGA text screen.
pub const COLUMNS: usize = 80;
/// Rows of a VGA text screen.
pub const ROWS: usize = 25;

/// Light grey on black.
const ATTRIBUTE: u16 = 0x0700;

/// A grid of character cells: VGA memory, or a framebuffer.
pub trait Grid {
    /// Cells in a row.
    fn columns(&self) -> usize;
    /// Rows.
    fn rows(&self) -> usize;
    /// Writes the cell at `index`, counted row by row.
    fn set(&mut self, index: usize, cell: u16);
    /// Reads the cell at `index`.
    fn get(&self, index: usize) -> u16;
}

/// Writes text onto a [`Grid`], wrapping and scrolling.
#[derive(Debug)]
pub struct Teletype<G> {
    grid: G,
    column: usize,
    row: usize,
}

impl<G: Grid> Teletype<G> {
    /// A teletype at the top of an unknown screen.
    pub const fn new(grid: G) -> Self {
        Self { grid, column: 0, row: 0 }
    }

    /// Empties the screen.
    pub fn clear(&mut self) {
        (0..self.grid.columns() * self.grid.rows())
            .for_each(|index| self.grid.set(index, ATTRIBUTE | u16::from(b' ')));
        (self.column, self.row) = (0, 0);
    }

    /// Column and row where the next character goes.
    pub fn cursor(&self) -> (u8, u8) {
        (self.column as u8, self.row as u8)
    }

    /// The grid.
    pub const fn grid(&mut self) -> &mut G {
        &mut self.grid
    }

    /// Writes bytes; those that are not printable ASCII show as `?`.
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
    fn wraps_and_scrolls() {
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
