//! `feedhandler.control.v1.Control` over a [`Desk`].
#![forbid(unsafe_code)]

use std::sync::Arc;
use std::time::Duration;

use feedhandler_proto::v1::{
    ChangeRequest, ChangeResponse, DrainRequest, DrainResponse, GetConfigRequest, GetConfigResponse, GetLatencyRequest,
    GetLatencyResponse, GetStatusRequest, GetStatusResponse, ListGroupsRequest, ListGroupsResponse, RecoverRequest,
    RecoverResponse, ReloadRequest, Selector as WireSelector, SubscribeRequest, SubscribeResponse, UnsubscribeRequest,
    UnsubscribeResponse, WatchEventsRequest, WatchLatencyRequest, WatchStatusRequest, control_server::Control,
};
use tonic::{Request, Response, Status};

use super::access::Identity;
use super::access::gate::Held;
use super::access::places::Door;
use super::stream::{self, Latencies, Statuses};
use super::watch::Events;
use super::{Changes, Desk, Selector, refusal};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ControlService {
    desk: Arc<Desk>,
}

impl ControlService {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    /// Runs `work` where it may block: joins and map updates are system calls, and the desk has locks. It has the call's place
    /// until it is done, whether anybody still waits for it or not.
    async fn at_desk<T: Send + 'static>(
        &self,
        call: &Call,
        work: impl FnOnce(&Desk, &str) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let (desk, Call { by, held }) = (Arc::clone(&self.desk), call.clone());
        let working = tokio::task::spawn_blocking(move || {
            let result = work(&desk, &by);
            drop(held);
            result
        });
        let result = working.await;
        result.map_err(|error| Status::internal(format!("the control desk failed: {error}")))?.map(Response::new)
    }

    async fn switch(
        &self,
        selector: Option<WireSelector>,
        subscribed: bool,
        dry_run: bool,
        call: &Call,
    ) -> Result<Changes, Status> {
        let selector = self::selector(selector);
        let changes = self.at_desk(call, move |desk, by| {
            if dry_run {
                let lines = desk.select(&selector).map_err(|error| refusal::select(&error))?;
                return Ok(desk.would_change(&lines, subscribed));
            }
            Ok(desk.switch(&selector, subscribed, by)?)
        });
        changes.await.map(Response::into_inner)
    }
}

/// What the gate knows of a call.
#[derive(Clone, Debug)]
struct Call {
    /// Who calls, for log and events.
    by: String,
    held: Option<Held>,
}

impl Call {
    fn of<T>(request: &Request<T>) -> Self {
        let extensions = request.extensions();
        let by = extensions.get::<Identity>().map_or_else(|| "unknown".to_owned(), |identity| identity.by.clone());
        Self { by, held: extensions.get::<Held>().cloned() }
    }

    /// Where it came in.
    fn door(&self) -> Door {
        self.held.as_ref().map_or(Door::Local, Held::door)
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    type WatchEventsStream = Events;
    type WatchStatusStream = Statuses;
    type WatchLatencyStream = Latencies;

    async fn watch_status(&self, request: Request<WatchStatusRequest>) -> Result<Response<Statuses>, Status> {
        stream::statuses(&self.desk, Call::of(&request).door(), request.into_inner()).map(Response::new)
    }

    async fn get_latency(&self, request: Request<GetLatencyRequest>) -> Result<Response<GetLatencyResponse>, Status> {
        self.at_desk(&Call::of(&request), |desk, _| Ok(desk.latency_answer())).await
    }

    async fn watch_latency(&self, request: Request<WatchLatencyRequest>) -> Result<Response<Latencies>, Status> {
        stream::latencies(&self.desk, Call::of(&request).door(), request.into_inner()).map(Response::new)
    }

    async fn change(&self, request: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        let call = Call::of(&request);
        let request = request.into_inner();
        self.at_desk(&call, move |desk, by| Ok(desk.change(&request, by)?)).await
    }

    async fn reload(&self, request: Request<ReloadRequest>) -> Result<Response<ChangeResponse>, Status> {
        let call = Call::of(&request);
        let ReloadRequest { dry_run } = request.into_inner();
        self.at_desk(&call, move |desk, by| Ok(desk.reload(dry_run, by)?)).await
    }

    async fn get_config(&self, request: Request<GetConfigRequest>) -> Result<Response<GetConfigResponse>, Status> {
        self.at_desk(&Call::of(&request), |desk, _| Ok(desk.config()?)).await
    }

    async fn recover(&self, request: Request<RecoverRequest>) -> Result<Response<RecoverResponse>, Status> {
        let call = Call::of(&request);
        let RecoverRequest { channel } = request.into_inner();
        self.at_desk(&call, move |desk, by| {
            let missing = desk.recover(&channel, by).map_err(|error| refusal::recover(&error))?;
            Ok(RecoverResponse { missing })
        })
        .await
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        let call = Call::of(&request);
        let DrainRequest { channel, timeout_ms } = request.into_inner();
        let patience = (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.into()));
        if patience.is_some_and(|patience| patience > super::drain::MOST_WAIT) {
            let most = super::drain::MOST_WAIT.as_millis();
            return Err(refusal::violations([("timeout_ms", format!("timeout_ms = {timeout_ms}: at most {most}"))]));
        }
        if channel.is_empty() {
            return Err(refusal::violations([("channel", "channel: must be given, as feed/channel")]));
        }
        // Apart from the call: what was begun goes on when the caller leaves, and has its place until then.
        let desk = Arc::clone(&self.desk);
        let Call { by, held } = call;
        let draining = tokio::spawn(async move {
            let result = desk.drain(&channel, patience, &by).await;
            drop(held);
            result
        });
        let result = draining.await.map_err(|error| Status::internal(format!("the control desk failed: {error}")))?;
        Ok(Response::new(result?))
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<SubscribeResponse>, Status> {
        let call = Call::of(&request);
        let SubscribeRequest { selector, dry_run } = request.into_inner();
        let Changes { changed, unchanged } = self.switch(selector, true, dry_run, &call).await?;
        self.at_desk(&call, move |desk, _| {
            Ok(SubscribeResponse { changed: desk.groups(&changed), unchanged: desk.groups(&unchanged) })
        })
        .await
    }

    async fn unsubscribe(&self, request: Request<UnsubscribeRequest>) -> Result<Response<UnsubscribeResponse>, Status> {
        let call = Call::of(&request);
        let UnsubscribeRequest { selector, dry_run } = request.into_inner();
        let Changes { changed, unchanged } = self.switch(selector, false, dry_run, &call).await?;
        self.at_desk(&call, move |desk, _| {
            Ok(UnsubscribeResponse { changed: desk.groups(&changed), unchanged: desk.groups(&unchanged) })
        })
        .await
    }

    async fn watch_events(&self, request: Request<WatchEventsRequest>) -> Result<Response<Events>, Status> {
        let door = Call::of(&request).door();
        let channel = request.into_inner().channel;
        if !channel.is_empty() {
            let selector = Selector { channel: Some(channel.clone()), ..Selector::default() };
            self.desk.select(&selector).map_err(|error| refusal::select(&error))?;
        }
        self.desk.watch.watch(door, channel).map(Response::new)
    }

    async fn list_groups(&self, request: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        let call = Call::of(&request);
        let mut selector = selector(request.into_inner().selector);
        // Looking harms nothing: here, nothing said means everything.
        selector.all |= selector == Selector::default();
        self.at_desk(&call, move |desk, _| {
            let lines = desk.select(&selector).map_err(|error| refusal::select(&error))?;
            Ok(ListGroupsResponse { groups: desk.groups(&lines) })
        })
        .await
    }

    async fn get_status(&self, request: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.at_desk(&Call::of(&request), |desk, _| Ok(desk.status())).await
    }
}

fn selector(wire: Option<WireSelector>) -> Selector {
    let WireSelector { channel, line, group, all, feed } = wire.unwrap_or_default();
    let given = |text: String| (!text.is_empty()).then_some(text);
    Selector { feed: given(feed), channel: given(channel), line: given(line), group: given(group), all }
}
