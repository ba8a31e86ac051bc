//! `feedhandler.control.v1.Control` over a [`Desk`].
#![forbid(unsafe_code)]

use std::sync::Arc;

use feedhandler_proto::v1::{
    GetStatusRequest, GetStatusResponse, ListGroupsRequest, ListGroupsResponse, Selector as WireSelector,
    SubscribeRequest, SubscribeResponse, UnsubscribeRequest, UnsubscribeResponse, control_server::Control,
};
use tonic::{Request, Response, Status};

use super::{Changes, ControlError, Desk, SelectError, Selector};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct ControlService {
    desk: Arc<Desk>,
}

impl ControlService {
    pub(super) fn new(desk: Arc<Desk>) -> Self {
        Self { desk }
    }

    /// Runs `work` where it may block: joins and map updates are system calls, and the desk has locks.
    async fn at_desk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Desk) -> Result<T, Status> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        let desk = Arc::clone(&self.desk);
        let result = tokio::task::spawn_blocking(move || work(&desk)).await;
        result.map_err(|error| Status::internal(format!("the control desk failed: {error}")))?.map(Response::new)
    }
}

#[tonic::async_trait]
impl Control for ControlService {
    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<SubscribeResponse>, Status> {
        let selector = selector(request.into_inner().selector);
        self.at_desk(move |desk| {
            let lines = desk.select(&selector).map_err(select_status)?;
            let Changes { changed, unchanged } = desk.subscribe(&lines).map_err(control_status)?;
            Ok(SubscribeResponse { changed: desk.groups(&changed), unchanged: desk.groups(&unchanged) })
        })
        .await
    }

    async fn unsubscribe(&self, request: Request<UnsubscribeRequest>) -> Result<Response<UnsubscribeResponse>, Status> {
        let selector = selector(request.into_inner().selector);
        self.at_desk(move |desk| {
            let lines = desk.select(&selector).map_err(select_status)?;
            let Changes { changed, unchanged } = desk.unsubscribe(&lines).map_err(control_status)?;
            Ok(UnsubscribeResponse { changed: desk.groups(&changed), unchanged: desk.groups(&unchanged) })
        })
        .await
    }

    async fn list_groups(&self, request: Request<ListGroupsRequest>) -> Result<Response<ListGroupsResponse>, Status> {
        let mut selector = selector(request.into_inner().selector);
        // Looking harms nothing: here, nothing said means everything.
        selector.all |= selector == Selector::default();
        self.at_desk(move |desk| {
            let lines = desk.select(&selector).map_err(select_status)?;
            Ok(ListGroupsResponse { groups: desk.groups(&lines) })
        })
        .await
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        self.at_desk(|desk| Ok(desk.status())).await
    }
}

fn selector(wire: Option<WireSelector>) -> Selector {
    let WireSelector { channel, line, group, all } = wire.unwrap_or_default();
    let given = |text: String| (!text.is_empty()).then_some(text);
    Selector { channel: given(channel), line: given(line), group: given(group), all }
}

fn select_status(error: SelectError) -> Status {
    if error.is_malformed() {
        Status::invalid_argument(error.to_string())
    } else {
        Status::not_found(error.to_string())
    }
}

fn control_status(error: ControlError) -> Status {
    let message = match &error {
        // Says itself what is in force now.
        ControlError::NotUndone { .. } => error.to_string(),
        _ => format!("{error}; nothing was changed"),
    };
    match error.cause() {
        ControlError::Kernel { .. } | ControlError::Refused { .. } => Status::failed_precondition(message),
        _ => Status::unavailable(message),
    }
}
