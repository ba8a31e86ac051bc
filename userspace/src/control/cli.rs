//! The command line of `feedctl`, so that tests can use it as a person would.
#![forbid(unsafe_code)]

mod change;
mod connect;
mod fragment;
mod latency;
mod tls;
mod top;
mod watch;

use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::{
    GetLatencyRequest, GetStatusRequest, ListGroupsRequest, Selector, SubscribeRequest, UnsubscribeRequest,
};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{NewToken, Role, tables};
use connect::{Connection, Credentials, TIMEOUT, connect, refusal};

/// The handler refused the request, or failed to carry it out; with `ready`: it is not.
pub const EXIT_REFUSED: u8 = 1;
/// The arguments are wrong (clap's own status, too).
pub const EXIT_USAGE: u8 = 2;
/// No handler answers.
pub const EXIT_UNREACHABLE: u8 = 3;
/// The handler does not know us, or we may not do that.
pub const EXIT_DENIED: u8 = 4;

/// Time between two questions whether the handler is ready.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// Sees and changes what a running feed handler does.
///
/// Exit status: 0 done, 1 refused by the handler (`ready`: not ready), 2 wrong arguments, 3 no handler answers,
/// 4 not allowed (no or a wrong certificate or token, or not the role for it).
#[derive(Debug, Parser)]
#[command(name = "feedctl", version)]
pub struct Arguments {
    /// Where the handler listens: unix:/path or http://host:port (handler.grpc in its configuration), or
    /// https://host:port (handler.grpc_tls)
    #[arg(long, global = true, env = "FEEDCTL_ENDPOINT", default_value = "unix:/run/feedhandler/control.sock")]
    endpoint: String,
    #[command(flatten)]
    credentials: Credentials,
    /// Tables to read, or JSON for programs
    #[arg(long, global = true, value_enum, default_value = "table")]
    output: Output,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the configured groups: what is desired, what is in force, packets and age of the newest
    List(Lines),
    /// Shows channels, lines, destinations, drops, interfaces, workers and latency
    Status,
    /// Joins the groups of the selected lines and takes their packets
    Subscribe(Switch),
    /// Leaves the groups of the selected lines
    Unsubscribe(Switch),
    #[command(flatten)]
    Change(change::ChangeVerb),
    /// Shows rates, gaps, latencies and drops, live; q ends
    Top {
        /// Time between two looks, milliseconds
        #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(100..=60_000))]
        interval_ms: u64,
    },
    /// Shows latencies by stage: since the start, or with --watch of one interval after the other
    Latency {
        /// Go on until interrupted, an interval at a time
        #[arg(long)]
        watch: bool,
        /// Length of the intervals, seconds
        #[arg(long, value_name = "SECONDS", requires = "watch", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=3600))]
        interval: u32,
        /// End after so many intervals
        #[arg(long, requires = "watch")]
        count: Option<u64>,
    },
    /// Prints events as they happen (losses, channel states, faults, who switched what) until interrupted
    Watch {
        /// Only those of this channel, as feed/channel
        #[arg(long)]
        channel: Option<String>,
        /// End after so many events
        #[arg(long)]
        count: Option<u64>,
    },
    /// Says whether the handler is ready (exit status 0) and if not, why not (1; 3 if none answers)
    Ready {
        /// How long it may take to become so, seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=86_400))]
        wait: u32,
    },
    /// Makes a token: prints it, this once, and the line for the handler's tokens file; asks no handler
    Token {
        /// Whose it is, for the handler's log and events
        name: String,
        /// What it may do: viewers look, operators change things
        #[arg(long, value_enum)]
        role: Role,
    },
    /// Writes the completion for a shell, such as `feedctl completion bash > /etc/bash_completion.d/feedctl`
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Writes the man pages, one for each verb, into a folder
    Man {
        /// The folder, which must exist
        folder: std::path::PathBuf,
    },
}

impl Arguments {
    /// How long an answer may take.
    fn patience(&self) -> Duration {
        match &self.verb {
            Verb::Change(verb) => verb.patience(),
            _ => TIMEOUT,
        }
    }
}

/// Which lines, and whether in earnest.
#[derive(Args, Debug)]
struct Switch {
    #[command(flatten)]
    lines: Lines,
    /// Change nothing, say what would change
    #[arg(long)]
    dry_run: bool,
}

/// Which lines: those that match everything given.
#[derive(Args, Debug)]
struct Lines {
    /// Feed, with all its channels
    #[arg(long)]
    feed: Option<String>,
    /// Channel, as feed/channel
    #[arg(long)]
    channel: Option<String>,
    /// Line, A or B
    #[arg(long)]
    line: Option<String>,
    /// Group and port, as in 239.10.0.1:26400
    #[arg(long)]
    group: Option<String>,
    /// All lines
    #[arg(long, conflicts_with_all = ["feed", "channel", "line", "group"])]
    all: bool,
}

impl Lines {
    fn selector(&self) -> Selector {
        Selector {
            feed: self.feed.clone().unwrap_or_default(),
            channel: self.channel.clone().unwrap_or_default(),
            line: self.line.clone().unwrap_or_default(),
            group: self.group.clone().unwrap_or_default(),
            all: self.all,
        }
    }

    fn is_empty(&self) -> bool {
        self.selector() == Selector::default()
    }
}

/// A token for somebody.
fn token(arguments: &Arguments, name: &str, role: Role) -> Result<String, Failure> {
    let NewToken { token, line } =
        NewToken::make(name, role).map_err(|reason| Failure(EXIT_USAGE, format!("token {name}: {reason}")))?;
    Ok(match arguments.output {
        Output::Json => format!("{:#}\n", json!({ "token": token, "line": line })),
        Output::Table => format!(
            "token, shown only now, for a file of its owner (mode 0600; feedctl --token-file):\n{token}\n\
             line for the handler's handler.tokens_file:\n{line}\n"
        ),
    })
}

impl Arguments {
    /// How a failure is printed.
    #[must_use]
    pub fn report(&self, failure: &Failure) -> String {
        match self.output {
            Output::Table => format!("feedctl: {}", failure.1),
            Output::Json => format!("{:#}", failure.json()),
        }
    }
}

/// Exit status, and a line for a person; more lines where several fields of the request are wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure(pub u8, pub String);

/// Does what the arguments say and returns what to print.
///
/// # Errors
/// Exit status and reason.
pub async fn run(arguments: &Arguments) -> Result<String, Failure> {
    if let Verb::Subscribe(switch) | Verb::Unsubscribe(switch) = &arguments.verb
        && switch.lines.is_empty()
    {
        return Err(Failure(EXIT_USAGE, "say which lines: --channel, --line, --group, or --all".to_owned()));
    }
    match &arguments.verb {
        Verb::Watch { channel, count } => {
            let channel = channel.clone().unwrap_or_default();
            return watch::run(arguments, channel, count.unwrap_or(u64::MAX)).await.map(|()| String::new());
        }
        Verb::Latency { watch: true, interval, count } => {
            let count = count.unwrap_or(u64::MAX);
            return latency::watch(arguments, *interval, count).await.map(|()| String::new());
        }
        Verb::Top { interval_ms } => {
            return top::run(arguments, Duration::from_millis(*interval_ms)).await.map(|()| String::new());
        }
        Verb::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut Arguments::command(), "feedctl", &mut text);
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        Verb::Man { folder } => {
            let written = clap_mangen::generate_to(Arguments::command(), folder);
            let cannot = |error| Failure(EXIT_REFUSED, format!("cannot write into {}: {error}", folder.display()));
            return written.map(|()| String::new()).map_err(cannot);
        }
        Verb::Token { name, role } => return token(arguments, name, *role),
        _ => {}
    }
    let mut client = match arguments.verb {
        Verb::Ready { wait } => wait_until_ready(arguments, Duration::from_secs(wait.into())).await?,
        _ => ControlClient::new(connect(arguments).await?),
    };
    let refused = |status: tonic::Status| refusal(&arguments.endpoint, &status);
    let (table, json) = match &arguments.verb {
        Verb::Watch { .. } | Verb::Top { .. } | Verb::Token { .. } | Verb::Completion { .. } | Verb::Man { .. } => {
            unreachable!("done above")
        }
        Verb::Change(verb) => verb.run(&mut client, refused).await?,
        Verb::List(lines) => {
            let request = ListGroupsRequest { selector: Some(lines.selector()) };
            let answer = client.list_groups(request).await.map_err(refused)?.into_inner();
            (tables::list(&answer.groups), serde_json::to_value(&answer))
        }
        Verb::Latency { .. } => {
            let answer = client.get_latency(GetLatencyRequest {}).await.map_err(refused)?.into_inner();
            (latency::text(&answer), serde_json::to_value(&answer))
        }
        Verb::Status => {
            let answer = client.get_status(GetStatusRequest {}).await.map_err(refused)?.into_inner();
            (tables::status(&answer), serde_json::to_value(&answer))
        }
        // It was a moment ago; above.
        Verb::Ready { .. } => ("ready\n".to_owned(), Ok(json!({ "ready": true }))),
        Verb::Subscribe(Switch { lines, dry_run }) => {
            let request = SubscribeRequest { selector: Some(lines.selector()), dry_run: *dry_run };
            let answer = client.subscribe(request).await.map_err(refused)?.into_inner();
            (tables::changes("subscribe", &answer.changed, &answer.unchanged), serde_json::to_value(&answer))
        }
        Verb::Unsubscribe(Switch { lines, dry_run }) => {
            let request = UnsubscribeRequest { selector: Some(lines.selector()), dry_run: *dry_run };
            let answer = client.unsubscribe(request).await.map_err(refused)?.into_inner();
            (tables::changes("unsubscribe", &answer.changed, &answer.unchanged), serde_json::to_value(&answer))
        }
    };
    match arguments.output {
        Output::Table => Ok(table),
        Output::Json => {
            let json = json.unwrap_or_else(|error| Value::String(error.to_string()));
            Ok(format!("{json:#}\n"))
        }
    }
}

/// Writes, to standard output mostly; `false`: nobody reads any more (head, grep -q), which is no error.
///
/// # Errors
/// It cannot be written: a full disk.
pub fn put(mut out: impl std::io::Write, text: &str) -> Result<bool, Failure> {
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure(EXIT_REFUSED, format!("cannot write to standard output: {error}"))),
    }
}

/// Asks until the handler is ready or `patience` is over. A handler that does not answer may be starting.
async fn wait_until_ready(arguments: &Arguments, patience: Duration) -> Result<ControlClient<Connection>, Failure> {
    let deadline = Instant::now() + patience;
    loop {
        let why = match connect(arguments).await {
            // Time mends neither.
            Err(failure @ Failure(EXIT_USAGE | EXIT_DENIED, _)) => return Err(failure),
            Err(failure) => failure,
            Ok(channel) => {
                let mut client = ControlClient::new(channel);
                match client.get_status(GetStatusRequest {}).await {
                    Ok(answer) if answer.get_ref().ready => return Ok(client),
                    Ok(answer) => {
                        let reasons = answer.into_inner().not_ready_reasons.join("; ");
                        Failure(EXIT_REFUSED, format!("the handler is not ready: {reasons}"))
                    }
                    Err(status) => refusal(&arguments.endpoint, &status),
                }
            }
        };
        if why.0 == EXIT_DENIED || Instant::now() >= deadline {
            return Err(why);
        }
        tokio::time::sleep(READY_INTERVAL).await;
    }
}
