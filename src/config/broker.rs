//! Kafka's broker settings, as far as the configuration has to know them.

/// Names of Kafka's that Weir spells otherwise, with what to use.
const ELSEWHERE: &[(&str, &str)] = &[
    ("listeners", "use `listen` (--listen)"),
    ("advertised.listeners", "use `advertise` (--advertise)"),
    ("broker.id", "use `node.id` (--node-id)"),
    ("log.dir", "use `data.dir` (--data-dir)"),
    ("log.dirs", "use `data.dir` (--data-dir)"),
];

/// Every broker setting that can be given.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    [].into_iter()
}

pub(super) fn is_known(_name: &str) -> bool {
    true
}

/// What to use instead of a name of Kafka's that Weir spells otherwise.
pub(super) fn instead_of(name: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours)
}
