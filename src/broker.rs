//! Builds every part once, starts it, drains it; the only place that knows them all.
