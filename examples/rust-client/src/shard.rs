//! One shard: a connection, the incarnation behind it, its clock, and how a script is run there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, Pipeline, RedisError, Value};
use tokio::time::{sleep_until, timeout};

use crate::error::{Error, Result};
use crate::scripts::TOPOLOGY_INSTALL;
use crate::secrets;
use crate::topology::Topology;

// The scripts, the clock, the connection: each once, and one more.
const MAX_REMEDIES: usize = 4;

/// The names of what a layer keeps on one life of one shard.
pub struct Keys {
    base: String,
    cluster: String,
    db: i64,
}

impl Keys {
    pub fn inbox(&self, channel: &str) -> String {
        format!("{}i:{}", self.base, crate::slots::hashed_part(channel))
    }
    pub fn queue(&self, channel: &str) -> String {
        format!("{}q:{channel}", self.base)
    }
    pub fn members(&self, group: &str) -> String {
        format!("{}m:{group}", self.base)
    }
    pub fn group(&self, group: &str) -> String {
        format!("{}g{}:{group}", self.base, self.db)
    }
    pub fn entries(&self) -> String {
        format!("{}e", self.base)
    }
    pub fn publications(&self) -> String {
        format!("{}s", self.base)
    }
    pub fn log(&self) -> String {
        format!("{}l", self.base)
    }
    pub fn epoch(&self) -> String {
        format!("{}e", self.cluster)
    }
    pub fn topology(&self) -> String {
        format!("{}t", self.cluster)
    }
    pub fn announcements(&self) -> String {
        format!("{}a{}", self.cluster, self.db)
    }
}

/// What a script is called with, beside what `fence.lua` wants.
#[derive(Default)]
pub struct Call {
    pub keys: Vec<String>,
    pub arguments: Vec<Vec<u8>>,
}

pub enum Answer {
    Done(Value),
    /// The shard serves a newer topology; nothing was executed.
    Stale,
    /// The shard serves an older topology, or none; nothing was executed.
    Ahead,
}

/// An item of a queue that was taken, if there was one, and what came with it.
pub struct Taken {
    pub item: Option<Vec<u8>>,
    pub now_ms: u64,
    pub served_epoch: u64,
}

pub struct Shard {
    pub id: String,
    pub url: String,
    timeout: Duration,
    client: Client,
    connection: MultiplexedConnection,
    incarnation: String,
    replication_id: String,
    clock: (u64, Instant), // the shard's time, in ms, at a moment of ours
    loaded: HashMap<&'static str, String>, // script -> its digest
}

impl Shard {
    /// Refused: it can't be reached, or is no primary.
    pub async fn open(id: &str, url: &str, timeout: Duration) -> Result<Shard> {
        let filled = secrets::filled_in(url)?;
        let client = Client::open(filled).map_err(|error| refused(id, &error))?;
        let connection = connect(id, &client, timeout).await?;
        let mut shard = Shard {
            id: id.to_owned(),
            url: url.to_owned(),
            timeout,
            client,
            connection,
            incarnation: String::new(),
            replication_id: String::new(),
            clock: (0, Instant::now()),
            loaded: HashMap::new(),
        };
        shard.identify().await?;
        Ok(shard)
    }

    pub fn keys(&self, prefix: &str, cluster: &str) -> Keys {
        let life = &self.incarnation;
        Keys {
            base: format!("{prefix}:{life}:"),
            cluster: format!("cluster-layer:{cluster}:{life}:"),
            db: self.client.get_connection_info().redis_settings().db(),
        }
    }

    /// The topology that this shard serves, if it keeps a copy.
    pub async fn copy(&mut self, cluster: &str) -> Result<Option<Topology>> {
        let key = self.keys("", cluster).topology();
        let encoded: Option<Vec<u8>> = self.ask(redis::cmd("GET").arg(key)).await?;
        encoded.map(|bytes| Topology::decode(&bytes)).transpose()
    }

    /// Run a script that begins with `fence.lua`, on the shard that this topology names.
    ///
    /// Refused: it was not executed. Unknown: it may have been, and it never will be if it was not
    /// until now.
    pub async fn run(
        &mut self,
        script: &'static str,
        prefix: &str,
        topology: &Topology,
        build: impl Fn(&Keys) -> Call,
    ) -> Result<Answer> {
        let mut reason = String::new();
        for _ in 0..MAX_REMEDIES {
            let deadline = Instant::now() + self.timeout;
            let command = self.command(script, prefix, topology, deadline, &build).await?;
            let error = match timeout(self.timeout, command.query_async(&mut self.connection)).await
            {
                Ok(Ok(reply)) => return Ok(Answer::Done(reply)),
                Ok(Err(error)) if error.code().is_some() => error,
                Ok(Err(error)) => return Err(self.settled(deadline, &error.to_string()).await),
                Err(_) => return Err(self.settled(deadline, "no answer in time").await),
            };
            reason = error.to_string();
            match error.code().unwrap_or_default() {
                "STALE" => return Ok(Answer::Stale),
                "NOSCRIPT" => self.loaded.clear(),
                "AHEAD" => return Ok(Answer::Ahead),
                "LATE" => self.identify().await?,
                "READONLY" | "LOADING" | "MASTERDOWN" => self.reconnect().await?,
                _ => break,
            }
        }
        Err(Error::Refused(format!("shard {}: {reason}", self.id)))
    }

    /// Take the oldest item of a queue; block for so long if there is none. Refused: the shard did
    /// not answer, or has begun another life; an item that was on its way is lost then.
    pub async fn take(&mut self, keys: &Keys, channel: &str, block: Duration) -> Result<Taken> {
        let mut pipeline = Pipeline::new();
        if block.is_zero() {
            pipeline.cmd("LPOP").arg(keys.queue(channel));
        } else {
            pipeline.cmd("BLPOP").arg(keys.queue(channel)).arg(block.as_secs_f64());
        }
        pipeline.cmd("TIME").cmd("INFO").arg("replication").cmd("GET").arg(keys.epoch());
        let limit = block + self.timeout;
        let asked = timeout(limit, pipeline.query_async(&mut self.connection)).await;
        let (item, time, replication, epoch): (Value, (u64, u64), String, Option<u64>) =
            asked.map_err(|_| self.silent())?.map_err(|error| refused(&self.id, &error))?;
        // Who followed another server for a moment has that one's old items under our keys.
        if field(&replication, "master_replid") != Some(&self.replication_id) {
            return Err(Error::Refused(format!("shard {} has begun another life", self.id)));
        }
        let item = match item {
            Value::Nil => None,
            Value::Array(mut pair) if pair.len() == 2 => pair.pop(),
            other => Some(other),
        };
        Ok(Taken {
            item: item.map(bytes_of).transpose()?,
            now_ms: milliseconds(time),
            served_epoch: epoch.unwrap_or(0),
        })
    }

    /// Bring a topology to this shard.
    pub async fn install(&mut self, topology: &Topology) -> Result<()> {
        let digest = self.load(TOPOLOGY_INSTALL).await?;
        let keys = self.keys("", &topology.cluster);
        let mut command = redis::cmd("EVALSHA");
        command.arg(digest).arg(2).arg(keys.epoch()).arg(keys.topology());
        command.arg(topology.epoch).arg(&topology.encoded).arg(keys.announcements());
        self.ask::<Value>(&command).await.map(drop)
    }

    // -- internals

    async fn command(
        &mut self,
        script: &'static str,
        prefix: &str,
        topology: &Topology,
        deadline: Instant,
        build: &impl Fn(&Keys) -> Call,
    ) -> Result<Cmd> {
        let digest = self.load(script).await?;
        let keys = self.keys(prefix, &topology.cluster);
        let call = build(&keys);
        let mut command = redis::cmd("EVALSHA");
        command.arg(digest).arg(call.keys.len() + 1).arg(keys.epoch()).arg(call.keys);
        command.arg(self.shard_time_ms(deadline)).arg(topology.epoch).arg(call.arguments);
        Ok(command)
    }

    /// The shard's time at a moment: early by at most one round trip, so a fence errs on the
    /// strict side.
    fn shard_time_ms(&self, at: Instant) -> u64 {
        let (shard_ms, ours) = self.clock;
        shard_ms + at.saturating_duration_since(ours).as_millis() as u64
    }

    /// The error of a command that was not answered, once its fence has passed.
    async fn settled(&self, deadline: Instant, reason: &str) -> Error {
        sleep_until(deadline.into()).await;
        Error::Unknown(format!("shard {}: {reason}", self.id))
    }

    async fn load(&mut self, script: &'static str) -> Result<String> {
        if let Some(digest) = self.loaded.get(script) {
            return Ok(digest.clone());
        }
        let digest: String = self.ask(redis::cmd("SCRIPT").arg("LOAD").arg(script)).await?;
        self.loaded.insert(script, digest.clone());
        Ok(digest)
    }

    async fn identify(&mut self) -> Result<()> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("TIME").cmd("INFO").arg("server").cmd("INFO").arg("replication");
        let asked = timeout(self.timeout, pipeline.query_async(&mut self.connection)).await;
        let (time, server, replication): ((u64, u64), String, String) =
            asked.map_err(|_| self.silent())?.map_err(|error| refused(&self.id, &error))?;
        self.clock = (milliseconds(time), Instant::now());
        if field(&replication, "role") != Some("master") {
            return Err(Error::Refused(format!("shard {} is a replica", self.id)));
        }
        let told = |text, name| field(text, name).filter(|id| id.len() >= 8 && id.is_ascii());
        let (Some(run), Some(replicated)) =
            (told(&server, "run_id"), told(&replication, "master_replid"))
        else {
            return Err(Error::Refused(format!("shard {} does not tell its run_id", self.id)));
        };
        self.incarnation = format!("{}{}", &run[..8], &replicated[..8]);
        self.replication_id = replicated.to_owned();
        Ok(())
    }

    async fn reconnect(&mut self) -> Result<()> {
        self.connection = connect(&self.id, &self.client, self.timeout).await?;
        self.loaded.clear();
        self.identify().await
    }

    /// Ask what may be asked twice.
    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T> {
        match timeout(self.timeout, command.query_async(&mut self.connection)).await {
            Ok(answer) => answer.map_err(|error| refused(&self.id, &error)),
            Err(_) => Err(self.silent()),
        }
    }

    fn silent(&self) -> Error {
        Error::Refused(format!("shard {}: no answer within {:?}", self.id, self.timeout))
    }
}

async fn connect(id: &str, client: &Client, limit: Duration) -> Result<MultiplexedConnection> {
    // Each call has its own limit; the library repeats nothing.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(None);
    let opened = client.get_multiplexed_async_connection_with_config(&config).await;
    opened.map_err(|error| refused(id, &error))
}

fn refused(id: &str, error: &RedisError) -> Error {
    Error::Refused(format!("shard {id}: {error}"))
}

fn milliseconds((seconds, microseconds): (u64, u64)) -> u64 {
    seconds * 1000 + microseconds / 1000
}

/// The value of one line of INFO.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim_end)
}

fn bytes_of(value: Value) -> Result<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(Error::Refused(format!("the shard answered {other:?}"))),
    }
}
