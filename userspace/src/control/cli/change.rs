//! Verbs that change what runs.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::edit::Edit as What;
use feedhandler_proto::v1::{
    ChangeRequest, ChangeResponse, DrainRequest, Edit, GetConfigRequest, LineName, RecoverRequest, ReloadRequest,
    RouteSpec,
};
use serde_json::Value;

use super::connect::Connection;
use super::fragment::edits;
use super::{EXIT_USAGE, Failure};
use crate::control::change::describe::sentence;

/// What to change.
#[derive(Debug, Subcommand)]
pub(super) enum ChangeVerb {
    /// Adds the feeds, channels and destinations of a file, written as in the configuration; a [[feed]] with nothing but its
    /// name and channels adds channels to it
    Add {
        /// The file
        #[arg(long)]
        file: PathBuf,
        /// Change nothing, say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Removes a feed, a channel (feed/channel), a line (feed/channel/A) or a destination
    Remove {
        /// What it is
        what: Kind,
        /// Its name
        name: String,
        /// Change nothing, say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Says what a destination takes from now on
    Route {
        /// Its name
        destination: String,
        /// Symbol; may be given again
        #[arg(long = "instrument")]
        instruments: Vec<String>,
        /// Kind of record; may be given again
        #[arg(long = "record")]
        records: Vec<String>,
        /// Everything
        #[arg(long, conflicts_with_all = ["instruments", "records"], required_unless_present_any = ["instruments", "records"])]
        all: bool,
        /// Change nothing, say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Reads the configuration file again and makes what runs as it says
    Reload {
        /// Change nothing, say what would change
        #[arg(long)]
        dry_run: bool,
    },
    /// Prints what runs, as a configuration file without passwords
    Config,
    /// Ends a channel's input: leaves its groups, and waits until what it holds was delivered or given up
    Drain {
        /// Channel, as feed/channel
        channel: String,
        /// How long to wait, milliseconds; 0 = its give_up_ms and a second
        #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=60_000))]
        timeout_ms: u32,
    },
    /// Asks a channel's retransmission servers for all that is missing now
    Recover {
        /// Channel, as feed/channel
        channel: String,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Kind {
    Feed,
    Channel,
    Line,
    Destination,
}

impl ChangeVerb {
    /// How long its answer may take.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(if matches!(self, Self::Drain { .. }) { 70 } else { 30 })
    }

    /// What it prints, as a table and as JSON.
    pub(super) async fn run(
        &self,
        client: &mut ControlClient<Connection>,
        refused: impl Fn(tonic::Status) -> Failure,
    ) -> Result<(String, serde_json::Result<Value>), Failure> {
        let (edits, dry_run) = match self {
            Self::Add { file, dry_run } => (read(file)?, *dry_run),
            Self::Remove { what, name, dry_run } => (vec![removal(*what, name)?], *dry_run),
            Self::Route { destination, instruments, records, all: _, dry_run } => {
                let (destination, instruments, records) = (destination.clone(), instruments.clone(), records.clone());
                (vec![What::SetRoute(RouteSpec { destination, instruments, records })], *dry_run)
            }
            Self::Reload { dry_run } => {
                let answer = client.reload(ReloadRequest { dry_run: *dry_run }).await.map_err(refused)?.into_inner();
                return Ok((table(&answer, *dry_run), serde_json::to_value(&answer)));
            }
            Self::Config => {
                let answer = client.get_config(GetConfigRequest {}).await.map_err(refused)?.into_inner();
                let changed = if answer.is_changed { "changed since it was read" } else { "as in the file" };
                let text = format!("# {}: {changed}; hash {}\n{}", answer.file, answer.config_hash, answer.toml);
                return Ok((text, serde_json::to_value(&answer)));
            }
            Self::Drain { channel, timeout_ms } => {
                let request = DrainRequest { channel: channel.clone(), timeout_ms: *timeout_ms };
                let answer = client.drain(request).await.map_err(refused)?.into_inner();
                let (lost, next) = (answer.messages_lost, answer.next_sequence);
                let text = format!("{channel}: drained, {lost} messages lost meanwhile, next sequence {next}\n");
                return Ok((text, serde_json::to_value(&answer)));
            }
            Self::Recover { channel } => {
                let request = RecoverRequest { channel: channel.clone() };
                let answer = client.recover(request).await.map_err(refused)?.into_inner();
                let text = format!("{channel}: {} missing messages asked for\n", answer.missing);
                return Ok((text, serde_json::to_value(answer)));
            }
        };
        let edits = edits.into_iter().map(|edit| Edit { edit: Some(edit) }).collect();
        let answer = client.change(ChangeRequest { edits, dry_run }).await.map_err(refused)?.into_inner();
        Ok((table(&answer, dry_run), serde_json::to_value(&answer)))
    }
}

fn table(answer: &ChangeResponse, dry_run: bool) -> String {
    let would = if dry_run { "would be " } else { "" };
    if answer.changes.is_empty() {
        return "nothing to change: all is so already\n".to_owned();
    }
    let lines = answer.changes.iter().map(|change| format!("{would}{}\n", sentence(change)));
    lines.collect::<String>() + &format!("configuration {}\n", answer.config_hash)
}

fn read(file: &Path) -> Result<Vec<What>, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| Failure(EXIT_USAGE, format!("{name}: {error}")))?;
    edits(&text).map_err(|error| Failure(EXIT_USAGE, format!("{name}: {error}")))
}

fn removal(what: Kind, name: &str) -> Result<What, Failure> {
    Ok(match what {
        Kind::Feed => What::RemoveFeed(name.to_owned()),
        Kind::Channel => What::RemoveChannel(name.to_owned()),
        Kind::Destination => What::RemoveDestination(name.to_owned()),
        Kind::Line => {
            let parts = name.rsplit_once('/').filter(|(channel, _)| channel.contains('/'));
            let (channel, line) = parts.ok_or_else(|| Failure(EXIT_USAGE, format!("{name}: write feed/channel/A")))?;
            What::RemoveLine(LineName { channel: channel.to_owned(), line: line.to_owned() })
        }
    })
}
