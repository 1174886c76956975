//! A client of cluster-layer, written from docs/wire-format.md alone: it shows that the page is
//! enough, and is a beginning for a client of yours. `client` is what a program calls; `slots`,
//! `names`, `topology`, `message` and `envelope` do no input or output.

pub mod client;
pub mod envelope;
pub mod error;
pub mod message;
pub mod names;
pub mod scripts;
pub mod secrets;
pub mod shard;
pub mod slots;
pub mod topology;
