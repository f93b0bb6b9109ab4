//! Work that runs by the clock, one file per job.

pub mod archive;
pub mod retention;
