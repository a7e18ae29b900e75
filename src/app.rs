//! The only place that spawns tasks and joins them at shutdown.
