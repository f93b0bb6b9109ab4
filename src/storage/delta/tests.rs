//! The archive in a folder.

mod content;
mod damage;
mod log;
mod upkeep;
mod world;
mod writers;
