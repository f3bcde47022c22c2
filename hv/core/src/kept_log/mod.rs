//! The log in memory that a warm reset leaves as it is, so that the next start finds it.
//!
//! RAM keeps what it holds over a warm reset, unless firmware clears it. The log lies in a part of Vidar's region that
//! a loader does not write to, at the same distance from the region's start in each build. The next start finds the log
//! there if the loader puts the image to the same place, as GRUB does on the same machine. It believes nothing of what
//! it finds unless a CRC fits.
//!
//! | file | what it is for |
//! |---|---|
//! | [`area`] | The memory that is kept: the logs of two starts, in turns. |
//! | [`log`] | The log of one start, with its number and the place of a crash report. |
//! | [`ring`] | Holds the last bytes of the log, which `vidarctl log` reads. |
//! | [`crc`] | The CRC that follows the ring byte by byte. |
//! | [`summary`] | The main lines of a report, for the next start. |
//! | [`ramoops`] | The record that Linux shows in `/sys/fs/pstore`. |

pub mod area;
pub mod crc;
pub mod log;
pub mod ramoops;
pub mod ring;
pub mod summary;
