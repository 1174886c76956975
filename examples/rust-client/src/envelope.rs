//! The array around a body.

use rmpv::Value as Packed;

use crate::message::{bytes_of, read};
use crate::names;

const VERSION: u64 = 1;
const MAX_TTL_MS: u64 = 1 << 53;
const MAX_MARKS: usize = 64;
const MAX_DOUBTS: usize = 16;
const MAX_EXCLUDED: usize = 1000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Message = 0,
    Control = 1,
}

/// A write on one shard that comes before this message, by lane: where, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    pub shard: String,
    pub incarnation: String,
    pub inbox: Option<u64>,
    pub group: Option<u64>,
    pub doubts: Vec<(String, u64)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub kind: Kind,
    pub ttl_ms: u64,
    pub channel: Option<String>,
    pub marks: Vec<Mark>,
    pub body: Vec<u8>,
    pub exclude: Vec<String>,
    pub epoch: u64,
}

impl Envelope {
    pub fn new(kind: Kind, ttl_ms: u64, channel: Option<&str>, body: &[u8]) -> Envelope {
        Envelope {
            kind,
            ttl_ms,
            channel: channel.map(str::to_owned),
            marks: Vec::new(),
            body: body.to_vec(),
            exclude: Vec::new(),
            epoch: 0,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut fields = vec![
            Packed::from(VERSION),
            Packed::from(self.kind as u64),
            Packed::from(self.ttl_ms),
            self.channel.as_deref().map_or(Packed::Nil, Packed::from),
            packed_marks(&self.marks),
            Packed::Binary(self.body.clone()),
        ];
        if !self.exclude.is_empty() || self.epoch != 0 {
            let mut names: Vec<&str> = self.exclude.iter().map(String::as_str).collect();
            names.sort_unstable();
            let names: Vec<Packed> = names.into_iter().map(Packed::from).collect();
            fields.push(if names.is_empty() { Packed::Nil } else { Packed::Array(names) });
        }
        if self.epoch != 0 {
            fields.push(Packed::from(self.epoch));
        }
        bytes_of(&Packed::Array(fields))
    }

    /// None: it is malformed, and a reader drops and counts it.
    pub fn decode(bytes: &[u8]) -> Option<Envelope> {
        let Packed::Array(fields) = read(bytes)? else {
            return None;
        };
        if fields.len() < 6 || fields[0].as_u64()? != VERSION {
            return None;
        }
        let kind = match fields[1].as_u64()? {
            0 => Kind::Message,
            1 => Kind::Control,
            _ => return None,
        };
        let Packed::Binary(body) = &fields[5] else {
            return None;
        };
        Some(Envelope {
            kind,
            ttl_ms: fields[2].as_u64().filter(|ttl| *ttl <= MAX_TTL_MS)?,
            channel: unless_nil(&fields[3], address)?,
            marks: unless_nil(&fields[4], marks_in)?.unwrap_or_default(),
            body: body.clone(),
            exclude: match fields.get(6) {
                None => Vec::new(),
                Some(value) => unless_nil(value, excluded)?.unwrap_or_default(),
            },
            epoch: fields.get(7).map_or(Some(0), natural)?,
        })
    }
}

/// Some(None) for nil; None if it is malformed.
fn unless_nil<T>(value: &Packed, parse: fn(&Packed) -> Option<T>) -> Option<Option<T>> {
    if value.is_nil() { Some(None) } else { parse(value).map(Some) }
}

fn natural(value: &Packed) -> Option<u64> {
    value.as_u64().filter(|number| *number <= i64::MAX as u64)
}

fn address(value: &Packed) -> Option<String> {
    let name = value.as_str().filter(|name| names::is_channel(name))?;
    names::is_process_specific(name).then(|| name.to_owned())
}

fn excluded(value: &Packed) -> Option<Vec<String>> {
    let items = value.as_array().filter(|items| items.len() <= MAX_EXCLUDED)?;
    let name = |item: &Packed| item.as_str().filter(|n| names::is_channel(n)).map(str::to_owned);
    items.iter().map(name).collect()
}

fn marks_in(value: &Packed) -> Option<Vec<Mark>> {
    let pairs = value.as_map().filter(|pairs| pairs.len() <= MAX_MARKS)?;
    pairs.iter().map(|(shard, mark)| mark_in(shard, mark)).collect()
}

fn mark_in(shard: &Packed, value: &Packed) -> Option<Mark> {
    let fields = value.as_array().filter(|fields| matches!(fields.len(), 3 | 4))?;
    Some(Mark {
        shard: shard.as_str()?.to_owned(),
        incarnation: fields[0].as_str()?.to_owned(),
        inbox: unless_nil(&fields[1], natural)?,
        group: unless_nil(&fields[2], natural)?,
        doubts: match fields.get(3) {
            None => Vec::new(),
            Some(doubts) => doubts
                .as_array()
                .filter(|doubts| doubts.len() <= MAX_DOUBTS)?
                .iter()
                .map(doubt_in)
                .collect::<Option<_>>()?,
        },
    })
}

fn doubt_in(value: &Packed) -> Option<(String, u64)> {
    let fields = value.as_array().filter(|fields| fields.len() == 2)?;
    let lane = fields[0].as_str().filter(|lane| matches!(*lane, "inbox" | "group"))?;
    Some((lane.to_owned(), natural(&fields[1])?))
}

fn packed_marks(marks: &[Mark]) -> Packed {
    if marks.is_empty() {
        return Packed::Nil;
    }
    Packed::Map(marks.iter().map(|m| (Packed::from(m.shard.as_str()), packed_mark(m))).collect())
}

fn packed_mark(mark: &Mark) -> Packed {
    let position = |found: Option<u64>| found.map_or(Packed::Nil, Packed::from);
    let mut fields =
        vec![Packed::from(mark.incarnation.as_str()), position(mark.inbox), position(mark.group)];
    if !mark.doubts.is_empty() {
        let doubt = |(lane, print): &(String, u64)| {
            Packed::Array(vec![Packed::from(lane.as_str()), Packed::from(*print)])
        };
        fields.push(Packed::Array(mark.doubts.iter().map(doubt).collect()));
    }
    Packed::Array(fields)
}

/// The envelope of a control about a membership, by a writer that goes by this epoch.
pub fn control(op: &str, group: &str, channel: &str, epoch: u64) -> Vec<u8> {
    let epoch = epoch.to_string();
    let fields = [("op", op), ("group", group), ("channel", channel), ("epoch", &epoch)];
    let pairs = fields.map(|(key, value)| (Packed::from(key), Packed::from(value)));
    let body = bytes_of(&Packed::Map(pairs.to_vec()));
    Envelope::new(Kind::Control, 0, None, &body).encode()
}
