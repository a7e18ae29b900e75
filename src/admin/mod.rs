//! Health, metrics and the debug endpoint.
