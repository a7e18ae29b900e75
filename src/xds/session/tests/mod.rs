//! The protocol's rules as scripts, and as properties of random histories.

mod client;
mod properties;
mod scripts;
