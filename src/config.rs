//! File, environment and flags made into one checked configuration.
