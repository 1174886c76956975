//! Name -> slot.

use std::io::Cursor;

/// The slots of every topology; a power of two.
pub const SLOTS: usize = 4096;

/// What of a name is hashed: of a process-specific channel only the part up to and including `!`.
pub fn hashed_part(name: &str) -> &str {
    match name.find('!') {
        Some(at) => &name[..=at],
        None => name,
    }
}

/// murmur3_x86_32 with seed 0.
pub fn hash(text: &str) -> u32 {
    murmur3::murmur3_32(&mut Cursor::new(text), 0).expect("memory can be read")
}

pub fn slot_of(name: &str) -> usize {
    hash(hashed_part(name)) as usize & (SLOTS - 1)
}
