//! Texts that are made by the ten thousand.

use std::fmt::{self, Write as _};

/// Room for most names, so that one grows at most once.
const ROOM: usize = 96;

/// What [`std::format!`] makes, with room from the start: it grows a text by doubling, piece after piece.
pub(crate) fn of(arguments: fmt::Arguments<'_>) -> String {
    let mut text = String::with_capacity(ROOM);
    // A String takes whatever is written.
    let _ = text.write_fmt(arguments);
    text
}
