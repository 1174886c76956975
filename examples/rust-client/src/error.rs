//! What can become of an operation that failed.

use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Wrong input: a name, a message, a topology, an option. Nothing happened.
    Usage(String),
    /// It provably did not happen; trying again is safe.
    Refused(String),
    /// It may have happened, and if not by now it never will. Trying again may do it twice.
    Unknown(String),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The exit code, as that of `cluster-layer`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Refused(_) => 1,
            Error::Usage(_) => 2,
            Error::Unknown(_) => 3,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Usage(text) => to.write_str(text),
            Error::Refused(text) => write!(to, "nothing was executed: {text}"),
            Error::Unknown(text) => write!(to, "it may have been executed: {text}"),
        }
    }
}

impl std::error::Error for Error {}
