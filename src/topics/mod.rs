//! Topics: names, ids, configs, and the catalog of them.

pub mod configs;
pub mod names;
pub mod settings;
pub mod store;
