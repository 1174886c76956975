//! Secrets that a shard's URL names instead of holding: `{env:NAME}` and `{file:/path}`.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::error::{Error, Result};

/// The URL with its secrets. Usage: one can't be had; the error says which, and holds none.
pub fn filled_in(url: &str) -> Result<String> {
    let mut filled = String::new();
    let mut rest = url;
    while let Some((before, reference, after)) = next_reference(rest) {
        filled.push_str(before);
        filled.extend(utf8_percent_encode(&secret(reference)?, NON_ALPHANUMERIC));
        rest = after;
    }
    Ok(filled + rest)
}

/// What is before a reference, what is in its braces, and what follows.
fn next_reference(text: &str) -> Option<(&str, &str, &str)> {
    let begin = ["{env:", "{file:"].iter().filter_map(|opening| text.find(opening)).min()?;
    let end = begin + text[begin..].find('}')?;
    Some((&text[..begin], &text[begin + 1..end], &text[end + 1..]))
}

fn secret(reference: &str) -> Result<String> {
    let found = match reference.split_once(':') {
        Some(("env", name)) => std::env::var(name).ok(),
        Some((_, path)) => std::fs::read_to_string(path).ok(),
        None => None,
    };
    let found = found.map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    found.filter(|text| !text.is_empty()).ok_or_else(|| {
        Error::Usage(format!("a shard's URL refers to {{{reference}}}, which is not there"))
    })
}
