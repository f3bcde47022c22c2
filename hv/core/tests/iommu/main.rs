//! The guard of Vidar's memory against devices: the tables, against a walk of the test's own, and a unit, against a
//! model of its registers.

mod model;
mod tables;
mod unit;
