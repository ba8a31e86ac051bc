//! In front of every service: who calls, whether it may, how many there are already, and when the call must be over.
#![forbid(unsafe_code)]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};

use super::places::{Door, Place};
use super::{Access, Identity, Kind, needs};
use crate::control::Desk;
use crate::control::listen::connection::{Caller, OpenCall};
use crate::control::refusal::Reason;

/// How long a client may take to read an answer, beyond the call's time.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// Puts a [`Gate`] in front of a service.
#[derive(Clone, Debug)]
pub(in crate::control) struct GateLayer(pub(in crate::control) Arc<Desk>);

impl<S> Layer<S> for GateLayer {
    type Service = Gate<S>;

    fn layer(&self, inner: S) -> Gate<S> {
        Gate { inner, desk: Arc::clone(&self.0) }
    }
}

/// Lets calls through, or refuses them.
#[derive(Clone, Debug)]
pub(in crate::control) struct Gate<S> {
    inner: S,
    desk: Arc<Desk>,
}

impl<S> Service<Request<Body>> for Gate<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready; the copy is for the next call.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let access = &self.desk.access;
        let pass = match admit(access, &request) {
            Ok(pass) => pass,
            Err((reason, by, status)) => {
                access.counts.refused(reason);
                if access.may_log() {
                    let (method, why) = (request.uri().path(), status.message());
                    tracing::warn!(by, method, why, "call refused");
                }
                return Box::pin(async { Ok(status.into_http()) });
            }
        };
        let Pass { identity, is_stream, deadlines, held, open } = pass;
        request.extensions_mut().insert(identity);
        request.extensions_mut().insert(held.clone());
        let desk = Arc::clone(&self.desk);
        Box::pin(async move {
            let Ok(answer) = timeout_at(deadlines.answer, inner.call(request)).await else {
                desk.access.counts.refused(Reason::TooLate);
                return Ok(too_late().into_http());
            };
            let timer = deadlines.whole.map(|at| Box::pin(sleep_until(at)));
            // Health and reflection would go on until they are cut.
            let end = is_stream.then(|| {
                let mut over = desk.watch.over();
                Box::pin(async move { over.wait().await }) as End
            });
            answer.map(|answer| {
                answer.map(|body| Body::new(Answer { body, timer, end, is_over: false, _held: (held, open) }))
            })
        })
    }
}

/// A call that may go on.
struct Pass {
    identity: Identity,
    is_stream: bool,
    deadlines: Deadlines,
    held: Held,
    open: OpenCall,
}

/// A call's place, which is taken for as long as anybody has this: the answer, and whatever works for it. Work on another
/// thread does not end when its caller leaves, and a place that was free by then would limit nothing.
#[derive(Clone, Debug)]
pub(in crate::control) struct Held(Arc<Place>);

impl Held {
    /// Where the call came in.
    pub(in crate::control) fn door(&self) -> Door {
        self.0.door()
    }
}

/// When a call must be over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Deadlines {
    /// When the answer must have begun.
    answer: Instant,
    /// When all of it must have been taken; a stream has that only if its caller says so.
    whole: Option<Instant>,
}

/// Looks at everything but the message.
fn admit(access: &Access, request: &Request<Body>) -> Result<Pass, (Reason, String, Status)> {
    let refused = |reason: Reason, by: &str, why: &str| (reason, by.to_owned(), reason.says(why));
    let Some(caller) = request.extensions().get::<Arc<Caller>>() else {
        return Err(refused(Reason::Unauthenticated, "unknown", "the connection is not known"));
    };
    if caller.is_surplus {
        let why = "too many connections are open already, to this address or from yours; close some";
        return Err(refused(Reason::TooManyConnections, "", why));
    }
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes());
    let identity = access.credentials().identify(&caller.origin, authorization).map_err(|status| {
        let reason =
            if status.code() == Code::PermissionDenied { Reason::RoleRequired } else { Reason::Unauthenticated };
        (reason, format!("{:?}", caller.origin), status)
    })?;
    let path = request.uri().path();
    let (role, kind) = needs(path);
    if identity.role < role {
        let method = path.rsplit('/').next().unwrap_or_default();
        let why = format!("{method} is for operators; {} is a viewer", identity.by);
        return Err(refused(Reason::RoleRequired, &identity.by, &why));
    }
    let Some(place) = access.places.call(caller.door, kind == Kind::Stream) else {
        let why = "too many calls are under way already, in all or from your address; end some";
        return Err(refused(Reason::TooManyCalls, &identity.by, why));
    };
    let deadlines = deadlines(kind, client_timeout(request.headers()), Instant::now());
    let taken = deadlines.whole.map(|at| at + READ_PATIENCE);
    let is_stream = kind == Kind::Stream;
    Ok(Pass { identity, is_stream, deadlines, held: Held(Arc::new(place)), open: caller.call(taken) })
}

fn deadlines(kind: Kind, client: Option<Duration>, now: Instant) -> Deadlines {
    let client = client.map(|timeout| now + timeout);
    let ours = now + kind.limit();
    let answer = client.map_or(ours, |at| at.min(ours));
    Deadlines { answer, whole: if kind == Kind::Stream { client } else { Some(answer) } }
}

fn too_late() -> Status {
    Reason::TooLate.says("the call's time is over (grpc-timeout, or this handler's own limit); a change that was begun goes on, and is logged")
}

/// The client's `grpc-timeout`: at most eight digits and a unit. A wrong one counts as none.
fn client_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// Completes when the handler stops.
type End = Pin<Box<dyn Future<Output = ()> + Send>>;

/// An answer that ends when its time is over or the handler stops, and holds the call's place until then.
struct Answer {
    body: Body,
    timer: Option<Pin<Box<Sleep>>>,
    /// Of a stream.
    end: Option<End>,
    is_over: bool,
    _held: (Held, OpenCall),
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if self.timer.as_mut().is_none_or(|timer| timer.as_mut().poll(cx).is_pending()) {
            let frame = Pin::new(&mut self.body).poll_frame(cx);
            // What is there to be read is given first.
            if frame.is_ready() || self.end.as_mut().is_none_or(|end| end.as_mut().poll(cx).is_pending()) {
                return frame;
            }
            return self.ended_with(&Reason::Stopping.says("the handler stops"));
        }
        self.ended_with(&too_late())
    }

    fn is_end_stream(&self) -> bool {
        self.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // A stream with a timer may end before.
        if self.timer.is_some() || self.end.is_some() { SizeHint::default() } else { self.body.size_hint() }
    }
}

impl Answer {
    fn ended_with(&mut self, status: &Status) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        Poll::Ready(match status.add_header(&mut trailers) {
            Ok(()) => Some(Ok(Frame::trailers(trailers))),
            Err(status) => Some(Err(status)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_s_timeout_is_read_as_grpc_writes_it() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            client_timeout(&headers)
        };
        assert_eq!(read("100m"), Some(Duration::from_millis(100)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for wrong in ["", "S", "1", "123456789S", "-1S", "1x", "1 S", "+1S"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_stream_has_a_deadline_only_if_its_caller_says_so() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        let of = |kind, client: Option<u64>| deadlines(kind, client.map(Duration::from_secs), now);
        assert_eq!(of(Kind::Stream, None), Deadlines { answer: after(10), whole: None });
        assert_eq!(of(Kind::Stream, Some(60)), Deadlines { answer: after(10), whole: Some(after(60)) });
        assert_eq!(of(Kind::Look, Some(60)), Deadlines { answer: after(10), whole: Some(after(10)) });
        assert_eq!(of(Kind::Change, Some(1)), Deadlines { answer: after(1), whole: Some(after(1)) });
    }
}
