//! Group membership as pure state machines: no I/O, no clock, no wire types.
