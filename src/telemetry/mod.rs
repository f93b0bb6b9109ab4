//! Metric names, logging, and the HTTP port.
