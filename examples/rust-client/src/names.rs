//! Which names there are.

use crate::error::{Error, Result};

const MAX_BYTES: usize = 100;

fn is_word(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

pub fn is_group(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_BYTES && is_word(name)
}

pub fn is_channel(name: &str) -> bool {
    let (first, rest) = match name.find(['!', '?']) {
        Some(at) => (&name[..at], &name[at + 1..]),
        None => (name, ""),
    };
    !first.is_empty() && name.len() <= MAX_BYTES && is_word(first) && is_word(rest)
}

/// Whether a channel belongs to one process, which reads it from its inbox.
pub fn is_process_specific(channel: &str) -> bool {
    channel.contains('!')
}

pub fn require_channel(name: &str) -> Result<()> {
    if is_channel(name) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{name:?} is no channel: 1 to {MAX_BYTES} ASCII letters, digits, '.', '-', '_', among \
         them at most one '!' or '?', not at the beginning"
    )))
}

pub fn require_group(name: &str) -> Result<()> {
    if is_group(name) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{name:?} is no group: 1 to {MAX_BYTES} ASCII letters, digits, '.', '-' and '_'"
    )))
}
