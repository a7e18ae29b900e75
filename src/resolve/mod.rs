//! Objects to model. Pure: no IO, no clock, no randomness.
