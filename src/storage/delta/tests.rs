//! The archive in a folder.

mod content;
mod damage;
mod upkeep;
mod world;
mod writers;
