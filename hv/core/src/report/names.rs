//! The part of a crash report that is read from the guest's running kernel: the functions that each CPU was in, and the
//! last lines of the kernel's log.

use core::fmt::{self, Write};
use core::ops::Range;

use crate::console::wrap::Wrapped;
use crate::kernel::Kernel;
use crate::kernel::chain::{End, Frame, Left};
use crate::kernel::name::SHOWN;
use crate::mem::walk::ReadGuest;
use crate::vmm::cpu_state::CpuState;

/// The most lines of the kernel's log that a serial line gets. What Linux prints in a panic has 60 to 80.
const LINES: usize = 96;
/// The most rows of a screen that are filled with functions and lines of the kernel's log.
const FILLED_ROWS: usize = 48;
/// The rows of a screen that a report needs besides functions and lines of the kernel's log: for three headings, the
/// end of the call chain, what happens next, the reason, and the cursor.
const OTHER_ROWS: usize = 7;

/// Where a report goes.
pub trait Sink {
    /// Writes a record.
    fn write(&mut self, record: fmt::Arguments<'_>);

    /// Decides if the screen shows the records that follow. A serial line and the log get all of them.
    fn show(&mut self, on_screen: bool);

    /// Notes that the records that follow are the main part of the report, which the next start shows after a reset.
    fn begin_main(&mut self);
}

/// The number of functions of the crashed CPU, and of rows with the end of the kernel's log, that a screen has room
/// for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    functions: usize,
    rows: usize,
}

impl Room {
    /// Returns the room on a screen with this number of rows.
    pub fn on(rows: usize) -> Self {
        let free = rows.saturating_sub(OTHER_ROWS).min(FILLED_ROWS);
        let functions = free * 3 / 5;
        Self { functions, rows: free - functions }
    }
}

/// A guest whose kernel has been found.
pub struct Names<'a> {
    /// The kernel.
    pub kernel: &'a Kernel,
    /// The guest's memory.
    pub memory: &'a dyn ReadGuest,
}

impl Names<'_> {
    /// Writes the functions that the CPUs were in, first those of the `others`, and the end of the kernel's log. The
    /// screen shows the last lines of that log and the functions of `this` CPU, as far as there is `room`.
    #[cold]
    pub fn write<'c>(
        &self,
        sink: &mut impl Sink,
        this: (u32, &CpuState),
        others: impl Iterator<Item = (u32, &'c CpuState)>,
        room: Room,
    ) {
        let release = self.kernel.release();
        sink.show(false);
        for (cpu, state) in others {
            let chain = self.chain(state, 0..usize::MAX);
            sink.write(format_args!("functions of CPU {cpu}, the innermost first:{chain}"));
        }
        let (count, shown) = self.count_lines(room.rows);
        let first = count - shown;
        if first > 0 {
            sink.write(format_args!("the log of Linux {release}:{}", self.lines(0..first)));
        }
        sink.show(true);
        if shown > 0 {
            sink.write(format_args!(
                "the last lines of the log of Linux {release}:{}",
                self.lines(first..count)
            ));
        }
        sink.begin_main();
        let (cpu, state) = this;
        let chain = self.chain(state, 0..room.functions);
        sink.write(format_args!("functions of CPU {cpu}, the innermost first:{chain}"));
        let rest = self.chain(state, room.functions..usize::MAX);
        if rest.is_needed() {
            sink.show(false);
            sink.write(format_args!("further functions of CPU {cpu}:{rest}"));
            sink.show(true);
        }
    }

    /// Returns `address` as text, with the function that it is in if that is known.
    pub fn place(&self, address: u64) -> impl fmt::Display {
        let symbol = self.kernel.symbol(self.memory, address);
        fmt::from_fn(move |f| match &symbol {
            Some((name, distance)) => write!(f, "{name:.SHOWN$}+{distance:#x}"),
            None => write!(f, "{address:#x}"),
        })
    }

    fn chain<'b>(&'b self, state: &'b CpuState, part: Range<usize>) -> Chain<'b> {
        Chain { names: self, state, part }
    }

    fn lines(&self, part: Range<usize>) -> impl fmt::Display {
        fmt::from_fn(move |f| {
            let (mut index, mut result) = (0, Ok(()));
            self.kernel.log(self.memory, LINES, &mut |line| {
                if result.is_ok() && part.contains(&index) {
                    result = write!(f, "\n{}", line_of_log(line));
                }
                index += 1;
            });
            result
        })
    }

    /// Returns how many lines of the kernel's log there are, [`LINES`] at most, and how many of the last of them fit
    /// into `rows` rows.
    fn count_lines(&self, rows: usize) -> (usize, usize) {
        let (mut count, mut heights) = (0, [0; LINES]);
        self.kernel.log(self.memory, LINES, &mut |line| {
            if let Some(height) = heights.get_mut(count) {
                let mut rows = Wrapped::new(Rows(0));
                // Counting cannot fail.
                let _ = writeln!(rows, "{}", line_of_log(line));
                *height = rows.into_inner().0;
                count += 1;
            }
        });
        let mut free = rows;
        let fits = |height: &&usize| match free.checked_sub(**height) {
            Some(rest) => {
                free = rest;
                true
            }
            None => false,
        };
        (count, heights[..count].iter().rev().take_while(fits).count())
    }
}

/// Counts the rows of text that is written to it.
struct Rows(usize);

impl Write for Rows {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0 += text.matches('\n').count();
        Ok(())
    }
}

/// Returns a line of the kernel's log as text: the guest decides what is in it, so only ASCII reaches a terminal.
fn line_of_log(line: &[u8]) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        f.write_str("  ")?;
        line.iter().try_for_each(|byte| match byte {
            b'\t' => f.write_char(' '),
            b' '..=b'~' => f.write_char(char::from(*byte)),
            _ => f.write_char('?'),
        })
    })
}

/// A part of a call chain. As text, each function has a line of its own, and the reason why the chain ends is in the
/// last.
struct Chain<'a> {
    names: &'a Names<'a>,
    state: &'a CpuState,
    part: Range<usize>,
}

impl Chain<'_> {
    fn walk(&self, each: &mut dyn FnMut(Frame)) -> End {
        self.names.kernel.chain(self.names.memory, self.state, each)
    }

    /// Returns true if the chain has a function in this part.
    fn is_needed(&self) -> bool {
        let mut count = 0;
        self.walk(&mut |_| count += 1);
        count > self.part.start
    }
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Names { kernel, memory } = self.names;
        let (mut index, mut result) = (0, Ok(()));
        let end = self.walk(&mut |frame| {
            if result.is_ok() && self.part.contains(&index) {
                result = write!(f, "\n  {:016x}", frame.address);
                if let Some((name, distance)) = kernel.function(*memory, frame) {
                    result = result.and_then(|()| write!(f, " {name:.SHOWN$}+{distance:#x}"));
                }
                if frame.left == Left::Interrupted {
                    result = result.and_then(|()| f.write_str(" (interrupted)"));
                }
            }
            index += 1;
        });
        result?;
        match index.checked_sub(self.part.end) {
            None | Some(0) => write!(f, "\n  ({end})"),
            Some(more) => write!(f, "\n  (and {more} more on the serial line and in the log)"),
        }
    }
}
