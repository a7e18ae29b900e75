//! Parsed leaf types that everything else is made of. Knows nobody else in the crate.
