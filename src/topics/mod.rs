//! Topics: names, ids, configs, and the catalog of them.

mod catalog;
pub mod configs;
pub mod names;
pub mod settings;
mod snapshot;
pub mod store;

pub use catalog::{AlterError, Catalog, CatalogEvent, ChangeError, CreateError, NewTopic, Options};
pub use snapshot::{Snapshot, Topic};
