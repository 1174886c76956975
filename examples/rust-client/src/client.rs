//! What a program calls: send, group_send, receive, group_add, group_discard.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::Value as Reply;
use serde_json::Value;
use tokio::time::sleep;

use crate::envelope::{Envelope, Kind, control};
use crate::error::{Error, Result};
use crate::message;
use crate::names::{is_channel, is_process_specific, require_channel, require_group};
use crate::scripts;
use crate::shard::{Answer, Call, Keys, Shard};
use crate::topology::{Phase, Topology, require_cluster};

// Every redirection follows a newer topology.
const MAX_REDIRECTIONS: usize = 16;
const BLOCK: Duration = Duration::from_secs(1); // also how soon a newer topology is noticed
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
const AFTER_TROUBLE: Duration = Duration::from_millis(200);

/// As in the site's CONFIG.
#[derive(Debug, Clone)]
pub struct Settings {
    pub prefix: String,
    pub expiry: Duration,
    pub group_expiry: Duration,
    pub capacity: u32,
    pub timeout: Duration,
}

/// Where a message went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    pub shard: String,
    pub epoch: u64,
    /// How often a shard that served a newer topology refused, and the home was chosen again.
    pub redirections: usize,
}

/// What a group_send did for members that no subscriber serves: each by its own send.
pub type Members = Vec<(String, Result<Sent>)>;

/// What receiving dropped, by reason.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Lost {
    pub expired: u64,
    pub malformed: u64,
}

pub struct Client {
    settings: Settings,
    topology: Topology,
    shards: HashMap<String, Shard>, // by id: those that were used
    pub lost: Lost,
}

impl Client {
    pub fn new(topology: Topology, settings: Settings) -> Client {
        Client { settings, topology, shards: HashMap::new(), lost: Lost::default() }
    }

    /// Begin with the newest copy that these shards keep of the cluster's topology.
    pub async fn from_copies(urls: &[String], cluster: &str, settings: Settings) -> Result<Client> {
        require_cluster(cluster)?;
        let mut found: Option<Topology> = None;
        let mut troubles = Vec::new();
        for (number, url) in urls.iter().enumerate() {
            match copy_at(&format!("number {}", number + 1), url, cluster, &settings).await {
                Ok(copy) if found.as_ref().is_none_or(|best| best.epoch < copy.epoch) => {
                    found = Some(copy);
                }
                Ok(_) => {}
                Err(error) => troubles.push(error.to_string()),
            }
        }
        let topology = found.ok_or_else(|| Error::Refused(troubles.join("; ")))?;
        Ok(Client::new(topology, settings))
    }

    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Send to a channel of any kind. Refused: also if it is full.
    pub async fn send(&mut self, channel: &str, message: &Value) -> Result<Sent> {
        require_channel(channel)?;
        self.send_body(channel, &message::encode(message)?).await
    }

    /// Publish to a group, then send to the members that no subscriber serves.
    pub async fn group_send(
        &mut self,
        group: &str,
        message: &Value,
        exclude: &[String],
    ) -> Result<(Sent, Members)> {
        require_group(group)?;
        exclude.iter().try_for_each(|name| require_channel(name))?;
        if exclude.len() > 1000 {
            return Err(Error::Usage("at most 1,000 channels can be excluded".into()));
        }
        let body = message::encode(message)?;
        let mut envelope = Envelope::new(Kind::Message, self.expiry_ms(), None, &body);
        envelope.exclude = exclude.to_vec();
        let envelope = envelope.encode();
        let (sent, reply) = self
            .at_home(group, scripts::GROUP_SEND, |keys| Call {
                keys: vec![keys.members(group), keys.publications()],
                arguments: vec![keys.group(group).into_bytes(), envelope.clone()],
            })
            .await?;
        let mut members = Vec::new();
        for name in members_in(&reply).into_iter().filter(|name| !exclude.contains(name)) {
            // What becomes of one member is nothing to the others, and the group has it already.
            let outcome = self.send_body(&name, &body).await;
            members.push((name, outcome));
        }
        Ok((sent, members))
    }

    /// The next message of a normal channel; None: none came until then.
    pub async fn receive(
        &mut self,
        channel: &str,
        until: Option<Instant>,
    ) -> Result<Option<Value>> {
        require_channel(channel)?;
        if is_process_specific(channel) {
            let text = "belongs to one process, which alone reads it; receive a normal channel";
            return Err(Error::Usage(format!("{channel} {text}")));
        }
        loop {
            let mut homes = ids(self.topology.homes_of(channel));
            if self.topology.phase == Phase::Committed {
                homes.reverse(); // what waits at the old home is older
            }
            let left = until.map_or(BLOCK, |at| at.saturating_duration_since(Instant::now()));
            // Two homes are looked at in turn: who blocked at both could be given two messages.
            let block = if homes.len() == 1 { left.min(BLOCK) } else { Duration::ZERO };
            for shard in &homes {
                match self.take_at(shard, channel, block).await {
                    Ok(Some(message)) => return Ok(Some(message)),
                    Ok(None) => {}
                    Err(error) => {
                        eprintln!("receive: {error}");
                        self.shards.remove(shard);
                        self.look_for_newer().await;
                        sleep(AFTER_TROUBLE).await;
                    }
                }
            }
            if until.is_some_and(|at| at <= Instant::now()) {
                return Ok(None);
            }
            if block.is_zero() {
                sleep(BETWEEN_LOOKS).await;
            }
        }
    }

    /// Make a normal channel a member of a group: senders send to it one by one.
    pub async fn group_add(&mut self, group: &str, channel: &str) -> Result<()> {
        self.require_normal_member(group, channel)?;
        let expiry_ms = digits(self.settings.group_expiry.as_millis());
        self.at_all_homes(group, scripts::GROUP_STORE, |keys, topology, _| Call {
            keys: vec![keys.members(group), keys.publications(), keys.log()],
            arguments: vec![
                keys.group(group).into_bytes(),
                b"0".to_vec(),
                channel.as_bytes().to_vec(),
                expiry_ms.clone(),
                control("stored", group, channel, topology.epoch),
            ],
        })
        .await
    }

    /// End the membership of a normal channel, by whomever it was added.
    pub async fn group_discard(&mut self, group: &str, channel: &str) -> Result<()> {
        self.require_normal_member(group, channel)?;
        let expiry_ms = digits(self.settings.group_expiry.as_millis());
        self.at_all_homes(group, scripts::GROUP_LEAVE, |keys, topology, tombstone| Call {
            keys: vec![keys.members(group), keys.publications(), keys.log()],
            arguments: vec![
                channel.as_bytes().to_vec(),
                expiry_ms.clone(),
                keys.group(group).into_bytes(),
                control("leave", group, channel, topology.epoch),
                digits(u128::from(tombstone)),
            ],
        })
        .await
    }

    // -- internals

    fn expiry_ms(&self) -> u64 {
        self.settings.expiry.as_millis() as u64
    }

    fn require_normal_member(&self, group: &str, channel: &str) -> Result<()> {
        require_group(group)?;
        require_channel(channel)?;
        if is_process_specific(channel) {
            let text = "its process would have to be told, which this client does not";
            return Err(Error::Usage(format!("{channel} is process-specific: {text}")));
        }
        Ok(())
    }

    async fn send_body(&mut self, channel: &str, body: &[u8]) -> Result<Sent> {
        let specific = is_process_specific(channel);
        let address = specific.then_some(channel);
        let envelope = Envelope::new(Kind::Message, self.expiry_ms(), address, body).encode();
        let script = if specific { scripts::INBOX_APPEND } else { scripts::QUEUE_PUSH };
        let capacity = digits(u128::from(self.settings.capacity));
        let expiry_ms = digits(u128::from(self.expiry_ms()));
        let (sent, reply) = self
            .at_home(channel, script, |keys| Call {
                keys: if specific {
                    vec![keys.inbox(channel), keys.entries()]
                } else {
                    vec![keys.queue(channel)]
                },
                arguments: vec![capacity.clone(), expiry_ms.clone(), envelope.clone()],
            })
            .await?;
        match reply {
            Reply::Array(fields) if fields.first() == Some(&Reply::Int(0)) => {
                let waiting = fields.get(1);
                let waiting = waiting.map_or(String::new(), |depth| format!(" ({depth:?})"));
                Err(Error::Refused(format!("channel {channel} is full{waiting}")))
            }
            _ => Ok(sent),
        }
    }

    /// Run a script where a name is written to, and look for that place again as often as a shard
    /// says that there is a newer topology.
    async fn at_home(
        &mut self,
        name: &str,
        script: &'static str,
        build: impl Fn(&Keys) -> Call,
    ) -> Result<(Sent, Reply)> {
        for redirections in 0..MAX_REDIRECTIONS {
            let home = self.topology.home_of(name).id.clone();
            if let Some(reply) = self.run_at(&home, script, &build).await? {
                let sent = Sent { shard: home, epoch: self.topology.epoch, redirections };
                return Ok((sent, reply));
            }
        }
        Err(restless())
    }

    /// The same at both homes of a group whose slot moves; `build` is told where a tombstone must
    /// be left.
    async fn at_all_homes(
        &mut self,
        group: &str,
        script: &'static str,
        build: impl Fn(&Keys, &Topology, bool) -> Call,
    ) -> Result<()> {
        'newer: for _ in 0..MAX_REDIRECTIONS {
            let topology = self.topology.clone();
            for (done, home) in topology.homes_of(group).into_iter().enumerate() {
                let tombstone = topology.needs_tombstone(group, home);
                let call = |keys: &Keys| build(keys, &topology, tombstone);
                match self.run_at(&home.id, script, call).await {
                    Ok(Some(_)) => {}
                    Ok(None) => continue 'newer,
                    Err(Error::Refused(why)) if done > 0 => return Err(Error::Unknown(why)),
                    Err(error) => return Err(error),
                }
            }
            return Ok(());
        }
        Err(restless())
    }

    /// None: there is a newer topology by now, and nothing was executed.
    async fn run_at(
        &mut self,
        id: &str,
        script: &'static str,
        build: impl Fn(&Keys) -> Call,
    ) -> Result<Option<Reply>> {
        if let Err(error) = self.connect(id).await {
            // A shard that is away may have been replaced: the others know.
            return if self.look_for_newer().await { Ok(None) } else { Err(error) };
        }
        let mut answer = self.run_once(id, script, &build).await?;
        if matches!(answer, Answer::Ahead) {
            // The shard has begun anew, or nobody was here yet. What it is told must not be older
            // than what the others serve: we may have slept.
            if self.look_for_newer().await {
                return Ok(None);
            }
            let shard = self.shards.get_mut(id).expect("it is connected");
            shard.install(&self.topology).await?;
            answer = self.run_once(id, script, &build).await?;
        }
        match answer {
            Answer::Done(reply) => Ok(Some(reply)),
            Answer::Stale => {
                let shard = self.shards.get_mut(id).expect("it is connected");
                let newer = shard.copy(&self.topology.cluster).await?;
                if self.follow(newer) {
                    return Ok(None);
                }
                let text = "serves a newer topology and keeps no usable copy of it";
                Err(Error::Refused(format!("shard {id} {text}")))
            }
            Answer::Ahead => Err(Error::Refused(format!("shard {id} takes no topology"))),
        }
    }

    async fn run_once(
        &mut self,
        id: &str,
        script: &'static str,
        build: &impl Fn(&Keys) -> Call,
    ) -> Result<Answer> {
        let shard = self.shards.get_mut(id).expect("it is connected");
        let answer = shard.run(script, &self.settings.prefix, &self.topology, build).await;
        if answer.is_err() {
            self.shards.remove(id); // nobody knows what comes by that connection yet
        }
        answer
    }

    async fn take_at(&mut self, id: &str, channel: &str, block: Duration) -> Result<Option<Value>> {
        self.connect(id).await?;
        let cluster = self.topology.cluster.clone();
        let shard = self.shards.get_mut(id).expect("it is connected");
        let keys = shard.keys(&self.settings.prefix, &cluster);
        let taken = shard.take(&keys, channel, block).await?;
        let newer = match taken.served_epoch > self.topology.epoch {
            true => shard.copy(&cluster).await.unwrap_or(None), // what was taken must not be lost
            false => None,
        };
        self.follow(newer);
        let Some(item) = taken.item else {
            return Ok(None);
        };
        match opened(&item, taken.now_ms) {
            Ok(message) => return Ok(Some(message)),
            Err(Dropped::Expired) => self.lost.expired += 1,
            Err(Dropped::Malformed) => self.lost.malformed += 1,
        }
        Ok(None)
    }

    /// Refused: the shard can't be reached, or the topology has none of that id.
    async fn connect(&mut self, id: &str) -> Result<()> {
        if !self.shards.contains_key(id) {
            let found = self.topology.reachable().find(|shard| shard.id == id);
            let url = found.map(|shard| shard.url.clone());
            let url = url.ok_or_else(|| Error::Refused(format!("shard {id} is gone")))?;
            let opened = Shard::open(id, &url, self.settings.timeout).await?;
            self.shards.insert(id.to_owned(), opened);
        }
        Ok(())
    }

    /// Go by a topology if it is newer; whether it was.
    fn follow(&mut self, found: Option<Topology>) -> bool {
        let ours = &self.topology;
        let Some(newer) = found.filter(|t| t.cluster == ours.cluster && t.epoch > ours.epoch)
        else {
            return false;
        };
        self.topology = newer;
        let shards = &self.topology;
        self.shards.retain(|id, open| shards.reachable().any(|s| s.id == *id && s.url == open.url));
        true
    }

    /// Ask all shards for a newer topology; whether one of them had it.
    async fn look_for_newer(&mut self) -> bool {
        let cluster = self.topology.cluster.clone();
        let shards: Vec<_> = self.topology.reachable().cloned().collect();
        for shard in shards {
            if let Ok(copy) = copy_at(&shard.id, &shard.url, &cluster, &self.settings).await
                && self.follow(Some(copy))
            {
                return true;
            }
        }
        false
    }
}

enum Dropped {
    Expired,
    Malformed,
}

/// The message in an item of a queue: `{deadline}:{envelope}`.
fn opened(item: &[u8], now_ms: u64) -> std::result::Result<Value, Dropped> {
    let colon = item.iter().position(|byte| *byte == b':').ok_or(Dropped::Malformed)?;
    let deadline = std::str::from_utf8(&item[..colon]).ok().and_then(|text| text.parse().ok());
    if deadline.is_some_and(|at: u64| at <= now_ms) {
        return Err(Dropped::Expired);
    }
    let envelope = Envelope::decode(&item[colon + 1..]).ok_or(Dropped::Malformed)?;
    if deadline.is_none() || envelope.kind != Kind::Message {
        return Err(Dropped::Malformed);
    }
    message::decode(&envelope.body).ok_or(Dropped::Malformed)
}

async fn copy_at(id: &str, url: &str, cluster: &str, settings: &Settings) -> Result<Topology> {
    let copy = Shard::open(id, url, settings.timeout).await?.copy(cluster).await?;
    copy.ok_or_else(|| Error::Refused(format!("shard {id} keeps no topology of cluster {cluster}")))
}

fn members_in(reply: &Reply) -> Vec<String> {
    let Reply::Array(fields) = reply else {
        return Vec::new();
    };
    let names = fields.iter().skip(1).filter_map(|field| match field {
        Reply::BulkString(name) => String::from_utf8(name.clone()).ok(),
        _ => None,
    });
    names.filter(|name| is_channel(name)).collect()
}

fn ids(shards: Vec<&crate::topology::Shard>) -> Vec<String> {
    shards.into_iter().map(|shard| shard.id.clone()).collect()
}

fn digits(number: u128) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn restless() -> Error {
    Error::Refused(format!("the topology changed {MAX_REDIRECTIONS} times during one call"))
}
