//! The topology: which shard owns which slot.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::slots::{SLOTS, slot_of};

const MAX_BYTES: usize = 512 * 1024;
const MAX_SHARDS: usize = 1024;
const MAX_EPOCH: u64 = (1 << 53) - 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Steady,
    Prepared,
    Committed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Up,
    Draining,
    Down,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Shard {
    pub id: String,
    pub url: String,
    pub state: State,
}

type Table = Vec<usize>; // for each slot, the index of a shard

/// A topology that keeps all rules of the page; `encoded` are the bytes that it was read from, for
/// shards that have none yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    pub cluster: String,
    pub epoch: u64,
    pub phase: Phase,
    pub shards: Vec<Shard>,
    pub encoded: Vec<u8>,
    table: Table,
    other: Option<Table>, // `pending` or `previous`
}

impl Topology {
    pub fn decode(encoded: &[u8]) -> Result<Topology> {
        if encoded.len() > MAX_BYTES {
            return Err(wrong("it is larger than 512 KiB"));
        }
        let document: Value =
            serde_json::from_slice(encoded).map_err(|_| wrong("it is no JSON"))?;
        let fields = document.as_object().ok_or_else(|| wrong("it is no object"))?;
        if fields.get("version") != Some(&Value::from(1)) {
            return Err(wrong("its version is not 1"));
        }
        let shards = shards_in(fields)?;
        let phase = match text(fields, "phase")? {
            "steady" => Phase::Steady,
            "prepared" => Phase::Prepared,
            "committed" => Phase::Committed,
            other => return Err(wrong(&format!("phase {other:?}"))),
        };
        let table = table_in(fields, "table", &shards)?.ok_or_else(|| wrong("it has no table"))?;
        let is_down = |index: &usize| shards[*index].state == State::Down;
        if table.iter().any(is_down) {
            return Err(wrong("its table names a shard that is down"));
        }
        let pending = table_in(fields, "pending", &shards)?;
        let previous = table_in(fields, "previous", &shards)?;
        if pending.is_some() != (phase == Phase::Prepared)
            || previous.is_some() != (phase == Phase::Committed)
        {
            return Err(wrong("its tables do not fit its phase"));
        }
        if pending.iter().flatten().any(is_down) {
            return Err(wrong("its pending table names a shard that is down"));
        }
        Ok(Topology {
            cluster: cluster_in(fields)?,
            epoch: epoch_in(fields)?,
            phase,
            shards,
            encoded: encoded.to_vec(),
            table,
            other: pending.or(previous),
        })
    }

    /// Where a name is written to.
    pub fn home_of(&self, name: &str) -> &Shard {
        &self.shards[self.table[slot_of(name)]]
    }

    /// Where it is served as well, while its slot moves.
    pub fn other_home_of(&self, name: &str) -> Option<&Shard> {
        let slot = slot_of(name);
        let index = self.other.as_ref()?[slot];
        let shard = &self.shards[index];
        (index != self.table[slot] && shard.state != State::Down).then_some(shard)
    }

    /// Both homes, the one that is written to first.
    pub fn homes_of(&self, name: &str) -> Vec<&Shard> {
        let mut homes = vec![self.home_of(name)];
        homes.extend(self.other_home_of(name));
        homes
    }

    /// Whether memberships of a group may yet be copied to this shard: who leaves must leave a
    /// tombstone there.
    pub fn needs_tombstone(&self, group: &str, shard: &Shard) -> bool {
        self.phase == Phase::Prepared && self.home_of(group).id != shard.id
    }

    /// All that are not down.
    pub fn reachable(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter().filter(|shard| shard.state != State::Down)
    }
}

fn wrong(what: &str) -> Error {
    Error::Usage(format!("this is no topology: {what}"))
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Result<&'a str> {
    let found = fields.get(name).and_then(Value::as_str);
    found.ok_or_else(|| wrong(&format!("{name} is no text")))
}

fn cluster_in(fields: &Map<String, Value>) -> Result<String> {
    let cluster = text(fields, "cluster")?;
    require_cluster(cluster)?;
    Ok(cluster.to_owned())
}

/// Usage: this is no id of a cluster.
pub fn require_cluster(id: &str) -> Result<()> {
    if id.len() == 16 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Error::Usage(format!("{id:?} is no cluster: 16 lower-case hexadecimal digits are")))
}

fn epoch_in(fields: &Map<String, Value>) -> Result<u64> {
    let epoch = fields.get("epoch").and_then(Value::as_u64);
    epoch.filter(|e| (1..=MAX_EPOCH).contains(e)).ok_or_else(|| wrong("epoch is no such number"))
}

fn shards_in(fields: &Map<String, Value>) -> Result<Vec<Shard>> {
    let entries = fields.get("shards").and_then(Value::as_array);
    let entries = entries.ok_or_else(|| wrong("shards is no array"))?;
    if entries.is_empty() || entries.len() > MAX_SHARDS {
        return Err(wrong("1 to 1,024 shards are allowed"));
    }
    let mut shards: Vec<Shard> = Vec::with_capacity(entries.len());
    for entry in entries {
        let shard = shard_in(entry)?;
        if shards.iter().any(|other| other.id == shard.id || other.url == shard.url) {
            return Err(wrong("two shards have one id, or one URL"));
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn shard_in(entry: &Value) -> Result<Shard> {
    let fields = entry.as_object().ok_or_else(|| wrong("a shard is no object"))?;
    if !fields.get("weight").is_some_and(Value::is_number) {
        return Err(wrong("a shard's weight is no number"));
    }
    Ok(Shard {
        id: text(fields, "id")?.to_owned(),
        url: text(fields, "url")?.to_owned(),
        state: match text(fields, "state")? {
            "up" => State::Up,
            "draining" => State::Draining,
            "down" => State::Down,
            other => return Err(wrong(&format!("a shard's state is {other:?}"))),
        },
    })
}

fn table_in(fields: &Map<String, Value>, name: &str, shards: &[Shard]) -> Result<Option<Table>> {
    let digits = match fields.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_str().ok_or_else(|| wrong(&format!("{name} is no text")))?,
    };
    let width = if shards.len() <= 256 { 2 } else { 3 };
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if digits.len() != width * SLOTS || !digits.bytes().all(is_digit) {
        return Err(wrong(&format!("{name} has not {} digits", width * SLOTS)));
    }
    let owner = |slot: usize| {
        let index = usize::from_str_radix(&digits[slot * width..(slot + 1) * width], 16).ok()?;
        (index < shards.len()).then_some(index)
    };
    let table: Option<Table> = (0..SLOTS).map(owner).collect();
    table.map(Some).ok_or_else(|| wrong(&format!("{name} names no shard")))
}
