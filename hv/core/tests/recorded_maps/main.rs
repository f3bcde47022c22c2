//! Tests with the memory maps of real machines.

#[path = "../boot_information/mod.rs"]
mod boot_information;
mod counting;
mod efi;
mod heap;
mod model;
mod placing;
mod recorded;
mod second_stage;
mod tables;
mod told;
