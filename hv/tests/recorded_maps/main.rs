//! What Vidar makes of the memory of real machines.

mod efi;
mod model;
mod placing;
mod recorded;
mod second_stage;
mod tables;
mod told;
