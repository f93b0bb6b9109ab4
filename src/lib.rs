//! Weir: a Kafka-wire-protocol broker whose log is Redis Streams.
//!
//! The modules in reading order; `docs/ARCHITECTURE.md` is the map.

pub mod broker;
pub mod cluster;
pub mod config;
pub mod coordinator;
#[cfg(feature = "planted-faults")]
pub mod faults;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
pub mod groups;
pub mod handlers;
pub mod jobs;
pub mod log;
pub mod net;
pub mod protocol;
pub mod storage;
pub mod telemetry;
pub mod topics;

pub mod clock;
pub mod model;
pub mod tasks;
