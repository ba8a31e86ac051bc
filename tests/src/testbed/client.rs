//! The control service's client, for code that is not asynchronous.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use feedhandler_proto::v1::control_client::ControlClient;
use feedhandler_proto::v1::{GetStatusRequest, GetStatusResponse, Selector, SubscribeRequest, UnsubscribeRequest};
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};

use super::config::LineAddress;
use super::handler::Handler;
use super::signal;

/// How long the handler may take to be ready.
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// Deadline of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the handler's control socket.
pub(crate) struct Client {
    runtime: Runtime,
    control: ControlClient<Channel>,
}

impl Client {
    /// Waits until the handler answers and says that it is ready.
    pub(crate) fn connect(socket: &Path, handler: &mut Handler) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("runtime")?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?.timeout(CALL_TIMEOUT);
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        let mut client = Self { runtime, control: ControlClient::new(channel) };
        let deadline = Instant::now() + READY_TIMEOUT;
        loop {
            handler.check()?;
            let answer = client.status();
            if answer.as_ref().is_ok_and(|status| status.ready) {
                return Ok(client);
            }
            let why = || match &answer {
                Ok(status) => status.not_ready_reasons.join("; "),
                Err(error) => format!("{error:#}"),
            };
            ensure!(!signal::is_stopping(), "interrupted");
            let is_late = Instant::now() > deadline;
            ensure!(!is_late, "the handler is not ready: {}\nits last words:\n{}", why(), handler.last_words());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn status(&mut self) -> Result<GetStatusResponse> {
        let answer = self.runtime.block_on(self.control.get_status(GetStatusRequest {}));
        Ok(answer.context("GetStatus")?.into_inner())
    }

    /// Switches a line on or off; fails if that did not change anything.
    pub(crate) fn switch(&mut self, line: &LineAddress, on: bool) -> Result<()> {
        let selector = Selector { channel: line.channel.clone(), line: line.name.clone(), ..Default::default() };
        let selector = Some(selector);
        let (verb, changed) = if on {
            let answer = self.runtime.block_on(self.control.subscribe(SubscribeRequest { selector, dry_run: false }));
            ("Subscribe", answer.context("Subscribe")?.into_inner().changed)
        } else {
            let answer =
                self.runtime.block_on(self.control.unsubscribe(UnsubscribeRequest { selector, dry_run: false }));
            ("Unsubscribe", answer.context("Unsubscribe")?.into_inner().changed)
        };
        ensure!(changed.len() == 1, "{verb} of line {} changed {} lines", line.name, changed.len());
        ensure!(changed[0].in_force == on, "{verb} of line {} answers in_force = {}", line.name, changed[0].in_force);
        Ok(())
    }
}
