//! Topics: names, ids, configs, and the catalog of them.
