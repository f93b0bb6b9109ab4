//! What the fuzz targets run (`fuzz/`), and the tests that replay their corpora: each function takes any bytes, and panics
//! where a decoder is wrong. Not part of the broker.

mod records;
mod requests;
#[cfg(test)]
mod tests;

pub use records::{compressed, records};
pub use requests::request;

pub use crate::{
    groups::classic::subscription::fuzzed as subscription,
    net::fuzzing::frames,
    storage::redis::{
        catalog::fuzzing::catalog,
        connection::fuzzing::reply,
        fuzzing::{brokers, information, sentinels, topology},
        groups::fuzzing::group,
        log::fuzzing::{entries, state},
    },
};

/// A decoder's property: it panics where the bytes show that the decoder is wrong.
pub type Target = fn(&[u8]);

/// By the names of the folders of their corpora and of the programs in `fuzz/fuzz_targets`.
pub const TARGETS: &[(&str, Target)] = &[
    ("brokers", brokers),
    ("catalog", catalog),
    ("compressed", compressed),
    ("entries", entries),
    ("frames", frames),
    ("group", group),
    ("information", information),
    ("records", records),
    ("reply", reply),
    ("request", request),
    ("sentinels", sentinels),
    ("state", state),
    ("subscription", subscription),
    ("topology", topology),
];
