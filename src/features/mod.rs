//! One policy, one file: its annotations, its value, its rules and what it does to a route.
