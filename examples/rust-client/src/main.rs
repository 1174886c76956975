//! `rust-client`: the library from a shell. Prints one JSON object for each thing done.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use cluster_layer_client::client::{Client, Sent, Settings};
use cluster_layer_client::error::{Error, Result};
use cluster_layer_client::slots::slot_of;
use cluster_layer_client::topology::Topology;
use serde_json::{Value, json};

const TIMED_OUT: u8 = 7;

/// Sends to and receives from a cluster-layer.
///
/// Exit codes: 0 done, 1 it provably did not happen, 2 wrong usage, 3 it may have happened, 7 the
/// time was over before there were enough messages.
#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    place: Place,
    /// Which cluster: `cluster` in the topology. Needed with --shard.
    #[arg(long, env = "CLUSTER", default_value = "")]
    cluster: String,
    /// The layer's prefix, as in its CONFIG.
    #[arg(long, default_value = "asgi")]
    prefix: String,
    /// Seconds that a shard may take to answer.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    shard_timeout: f64,
    #[command(subcommand)]
    verb: Verb,
}

/// Where the topology comes from: from the copy on a shard, or from a file.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Place {
    /// A shard's URL: the topology is read from its copy; several, separated by commas: the newest.
    #[arg(long, env = "SHARDS", value_delimiter = ',')]
    shard: Vec<String>,
    /// A topology's file, as a file store keeps it.
    #[arg(long)]
    topology: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Send a message to a channel; "-" for one of each line of the standard input.
    Send {
        channel: String,
        json: String,
        #[command(flatten)]
        terms: Terms,
    },
    /// Send a message to a group; "-" for one of each line of the standard input.
    GroupSend {
        group: String,
        json: String,
        /// A channel that must not get it.
        #[arg(long)]
        exclude: Vec<String>,
        #[command(flatten)]
        terms: Terms,
    },
    /// Take messages from a normal channel.
    Receive {
        channel: String,
        #[arg(long, default_value_t = 1)]
        count: u64,
        /// Seconds to wait; for ever, if nothing is said.
        #[arg(long, value_parser = seconds)]
        timeout: Option<f64>,
    },
    /// Make a normal channel a member of a group.
    GroupAdd { group: String, channel: String },
    /// End the membership of a normal channel.
    GroupDiscard { group: String, channel: String },
    /// Say where names live.
    Locate {
        #[arg(required = true)]
        names: Vec<String>,
    },
}

#[derive(Args)]
struct Terms {
    /// Seconds that the message may wait, as CONFIG expiry.
    #[arg(long, default_value_t = 60.0, value_parser = seconds)]
    expiry: f64,
    /// Messages that may wait in a channel, as CONFIG capacity.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    capacity: u32,
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    let found = text.parse::<f64>().ok().filter(|s| (0.001..=315_360_000.0).contains(s));
    found.ok_or_else(|| "a number of seconds from 0.001 to 315,360,000 is".into())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(arguments: Arguments) -> Result<u8> {
    let terms = match &arguments.verb {
        Verb::Send { terms, .. } | Verb::GroupSend { terms, .. } => (terms.expiry, terms.capacity),
        _ => (60.0, 100),
    };
    let settings = Settings {
        prefix: arguments.prefix,
        expiry: Duration::from_secs_f64(terms.0),
        group_expiry: Duration::from_secs(86_400),
        capacity: terms.1,
        timeout: Duration::from_secs_f64(arguments.shard_timeout),
    };
    let mut client = open(arguments.place, &arguments.cluster, settings).await?;
    match arguments.verb {
        Verb::Send { channel, json, .. } => {
            for message in messages(&json) {
                let sent = client.send(&channel, &message?).await?;
                println!("{}", as_json(&channel, &sent));
            }
        }
        Verb::GroupSend { group, json, exclude, .. } => {
            for message in messages(&json) {
                group_send(&mut client, &group, &message?, &exclude).await?;
            }
        }
        Verb::Receive { channel, count, timeout } => {
            let until = timeout.map(|s| Instant::now() + Duration::from_secs_f64(s));
            return receive(&mut client, &channel, count, until).await;
        }
        Verb::GroupAdd { group, channel } => client.group_add(&group, &channel).await?,
        Verb::GroupDiscard { group, channel } => client.group_discard(&group, &channel).await?,
        Verb::Locate { names } => {
            for name in names {
                println!("{}", place_of(client.topology(), &name));
            }
        }
    }
    Ok(0)
}

async fn open(place: Place, cluster: &str, settings: Settings) -> Result<Client> {
    let Some(file) = place.topology else {
        return Client::from_copies(&place.shard, cluster, settings).await;
    };
    let encoded = std::fs::read(&file)
        .map_err(|error| Error::Usage(format!("{}: {error}", file.display())))?;
    Ok(Client::new(Topology::decode(&encoded)?, settings))
}

/// One message, or those of the lines of the standard input as they come.
fn messages(json: &str) -> Box<dyn Iterator<Item = Result<Value>>> {
    if json != "-" {
        return Box::new(std::iter::once(parsed(json)));
    }
    let lines = std::io::stdin().lock().lines().map_while(std::result::Result::ok);
    Box::new(lines.filter(|line| !line.trim().is_empty()).map(|line| parsed(&line)))
}

fn parsed(json: &str) -> Result<Value> {
    serde_json::from_str(json).map_err(|error| Error::Usage(format!("this is no JSON: {error}")))
}

fn as_json(name: &str, sent: &Sent) -> Value {
    json!({
        "name": name,
        "shard": sent.shard,
        "epoch": sent.epoch,
        "redirections": sent.redirections,
    })
}

async fn group_send(
    client: &mut Client,
    group: &str,
    message: &Value,
    exclude: &[String],
) -> Result<()> {
    let (sent, members) = client.group_send(group, message, exclude).await?;
    let mut line = as_json(group, &sent);
    let mut reached = Vec::new();
    for (name, outcome) in members {
        match outcome {
            Ok(_) => reached.push(name),
            Err(error) => eprintln!("member {name}: {error}"),
        }
    }
    line["members"] = json!(reached);
    println!("{line}");
    Ok(())
}

async fn receive(
    client: &mut Client,
    channel: &str,
    count: u64,
    until: Option<Instant>,
) -> Result<u8> {
    let mut received = 0;
    while received < count {
        let Some(message) = client.receive(channel, until).await? else {
            break;
        };
        println!("{message}");
        received += 1;
    }
    if client.lost != Default::default() {
        eprintln!("dropped: {:?}", client.lost);
    }
    Ok(if received < count { TIMED_OUT } else { 0 })
}

fn place_of(topology: &Topology, name: &str) -> Value {
    json!({
        "name": name,
        "slot": slot_of(name),
        "shard": topology.home_of(name).id,
        "other": topology.other_home_of(name).map(|shard| &shard.id),
        "epoch": topology.epoch,
    })
}
