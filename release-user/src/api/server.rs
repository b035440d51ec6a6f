//! Puts an implementation of [`Api`] on a Unix socket.

mod registration;
mod releases;

pub use super::socket::bind;
use super::types::{
    Api, ApiError, DrainRequest, ErrorCode, EventLine, ExplainQuery, FlowQuery, ReceiptQuery,
    RetireRequest, SCHEMA, ShiftRequest, TargetQuery,
};
use super::{ErrorBody, EventsQuery, StatusQuery, VersionInfo};
use anyhow::Context as _;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use axum::{Json, Router};
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, watch};

/// How long requests in progress may take to end once the server is to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Serves the API until `shutdown` completes; then lets requests in progress end, for 10 s at
/// most. Only root and the user whom this process runs as are answered.
///
/// What changes something runs to its end even if the client goes away meanwhile.
///
/// # Errors
/// When the listener fails for good.
pub async fn serve<A: Api>(
    listener: UnixListener,
    api: Arc<A>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> anyhow::Result<()> {
    let own = nix::unistd::geteuid().as_raw();
    serve_users(listener, api, shutdown, vec![0, own]).await
}

/// [`serve`], with the users who are answered.
pub(super) async fn serve_users<A: Api>(
    listener: UnixListener,
    api: Arc<A>,
    shutdown: impl Future<Output = ()> + Send + 'static,
    users: Vec<u32>,
) -> anyhow::Result<()> {
    let (stop, stopped) = watch::channel(false);
    let (alive, mut all_done) = mpsc::channel(1);
    let app = router(Shared { api, stopped: stopped.clone(), alive }, users.into());
    let mut hurry = stopped;
    let graceful = async move {
        shutdown.await;
        stop.send_replace(true);
    };
    let service = app.into_make_service_with_connect_info::<Peer>();
    let server = axum::serve(listener, service).with_graceful_shutdown(graceful).into_future();
    tokio::select! {
        ended = server => ended.context("API server")?,
        () = async { let _ = hurry.wait_for(|stop| *stop).await; tokio::time::sleep(GRACE).await } => {
            log::warn!("API server: clients still connected {GRACE:?} after the end");
        }
    }
    // Changes whose client has gone are no longer among the server's connections.
    if tokio::time::timeout(GRACE, all_done.recv()).await.is_err() {
        log::warn!("API server: a request is still being carried out");
    }
    Ok(())
}

/// What every handler gets.
struct Shared<A> {
    api: Arc<A>,
    /// True once the server is to stop.
    stopped: watch::Receiver<bool>,
    /// Dropped by the last one who is at work.
    alive: mpsc::Sender<Infallible>,
}

impl<A> Clone for Shared<A> {
    fn clone(&self) -> Self {
        Self {
            api: Arc::clone(&self.api),
            stopped: self.stopped.clone(),
            alive: self.alive.clone(),
        }
    }
}

impl<A: Api> Shared<A> {
    /// Carries out a change to its end: a handler is dropped midway when its client goes away.
    async fn change<T, F>(self, work: impl FnOnce(Arc<A>) -> F + Send + 'static) -> Answer<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, ApiError>> + Send,
    {
        let task = tokio::spawn(async move {
            let _alive = self.alive;
            work(self.api).await
        });
        match task.await {
            Ok(result) => Ok(Json(result?)),
            Err(error) => {
                log::error!("API server: {error}");
                Err(ApiError::new(ErrorCode::Internal, "daemon: the request failed half-way")
                    .hint("the daemon's log has details; report a bug")
                    .into())
            }
        }
    }
}

fn router<A: Api>(shared: Shared<A>, users: Arc<[u32]>) -> Router {
    let v1 = registration::routes()
        .merge(releases::routes())
        .route(
            "/status",
            get(|State(s): On<A>, Params(q): Params<StatusQuery>| async move {
                answer(s.api.status(q.service).await)
            }),
        )
        .route(
            "/flows",
            get(|State(s): On<A>, Params(q): Params<FlowQuery>| async move {
                answer(s.api.flows(q).await)
            }),
        )
        .route("/instances", get(|State(s): On<A>| async move { answer(s.api.instances().await) }))
        .route(
            "/idle",
            get(|State(s): On<A>, Params(q): Params<TargetQuery>| async move {
                answer(s.api.idle(q).await)
            }),
        )
        .route(
            "/receipts",
            get(|State(s): On<A>, Params(q): Params<ReceiptQuery>| async move {
                answer(s.api.receipts(q).await)
            }),
        )
        .route(
            "/explain",
            get(|State(s): On<A>, Params(q): Params<ExplainQuery>| async move {
                answer(s.api.explain(q).await)
            }),
        )
        .route("/events", get(events::<A>))
        .route("/version", get(version))
        .route(
            "/shift",
            post(|State(s): On<A>, Parsed(b): Parsed<ShiftRequest>| {
                s.change(|api| async move { api.shift(b).await })
            }),
        )
        .route(
            "/drain",
            post(|State(s): On<A>, Parsed(b): Parsed<DrainRequest>| {
                s.change(|api| async move { api.drain(b).await })
            }),
        )
        .route(
            "/undrain",
            post(|State(s): On<A>, Parsed(b): Parsed<DrainRequest>| {
                s.change(|api| async move { api.undrain(b).await })
            }),
        )
        .route(
            "/receipt",
            post(|State(s): On<A>, Parsed(b): Parsed<TargetQuery>| {
                s.change(|api| async move { api.receipt(b).await })
            }),
        )
        .route(
            "/retire",
            post(|State(s): On<A>, Parsed(b): Parsed<RetireRequest>| {
                s.change(|api| async move { api.retire(b).await })
            }),
        )
        .route("/reload", post(|State(s): On<A>| s.change(|api| async move { api.reload().await })))
        .route(
            "/detach",
            post(|State(s): On<A>| {
                s.change(|api| async move { api.detach().await.map(|()| serde_json::json!({})) })
            }),
        );
    Router::new()
        .nest("/v1", v1)
        .fallback(no_such_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(users, only_known_users))
        .with_state(shared)
}

type On<A> = State<Shared<A>>;
type Answer<T> = Result<Json<T>, Failure>;

fn answer<T>(result: Result<T, ApiError>) -> Answer<T> {
    Ok(Json(result?))
}

async fn version() -> Json<VersionInfo> {
    Json(VersionInfo { schema: SCHEMA, version: env!("CARGO_PKG_VERSION").to_owned() })
}

/// The events known, then, if asked for, those to come until the server stops; one a line.
async fn events<A: Api>(State(s): On<A>, Params(query): Params<EventsQuery>) -> Response {
    let (known, live) = s.api.events();
    let feed = Feed {
        last: None,
        known: known.into(),
        live: query.follow.then_some(live),
        stopped: s.stopped,
    };
    let lines = stream::unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok::<_, Infallible>(line(&event)), feed))
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], Body::from_stream(lines)).into_response()
}

/// One client's view of the events.
struct Feed {
    last: Option<u64>,
    known: VecDeque<EventLine>,
    live: Option<broadcast::Receiver<EventLine>>,
    stopped: watch::Receiver<bool>,
}

impl Feed {
    async fn next(&mut self) -> Option<EventLine> {
        loop {
            let event = match self.known.pop_front() {
                Some(event) => event,
                None => self.receive().await?,
            };
            // One event can be both among the known and in the channel.
            if self.last.is_none_or(|last| event.seq > last) {
                self.last = Some(event.seq);
                return Some(event);
            }
        }
    }

    async fn receive(&mut self) -> Option<EventLine> {
        let live = self.live.as_mut()?;
        loop {
            let received = tokio::select! {
                received = live.recv() => received,
                _ = self.stopped.wait_for(|stopped| *stopped) => return None,
            };
            match received {
                Ok(event) => return Some(event),
                // The client sees it by the numbers.
                Err(RecvError::Lagged(missed)) => log::debug!("events: a client missed {missed}"),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn line(value: &impl Serialize) -> Bytes {
    // These types have string keys only, so there is nothing that JSON cannot say.
    let mut line = serde_json::to_vec(value).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// Who is at the other end.
#[derive(Clone, Copy)]
struct Peer(Option<u32>);

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|peer| peer.uid()))
    }
}

async fn only_known_users(
    State(users): State<Arc<[u32]>>,
    ConnectInfo(Peer(user)): ConnectInfo<Peer>,
    request: Request,
    next: Next,
) -> Response {
    if user.is_some_and(|user| users.contains(&user)) {
        return next.run(request).await;
    }
    let who = user.map_or("a user unknown".to_owned(), |user| format!("user {user}"));
    let error = ApiError::new(ErrorCode::Internal, format!("daemon: {who} is not allowed here"))
        .hint("only root and the daemon's own user are");
    log::warn!("{error}");
    Failure { status: StatusCode::FORBIDDEN, error }.into_response()
}

async fn no_such_path(request: Request) -> Failure {
    let error = ApiError::new(ErrorCode::Usage, format!("{}: no such path", request.uri().path()));
    Failure {
        status: StatusCode::NOT_FOUND,
        error: error.hint("releasectl and the daemon may be of different versions"),
    }
}

async fn wrong_method(request: Request) -> Failure {
    let message = format!("{}: not with {}", request.uri().path(), request.method());
    Failure {
        status: StatusCode::METHOD_NOT_ALLOWED,
        error: ApiError::new(ErrorCode::Usage, message).hint("GET reads, POST changes"),
    }
}

/// A failure with its HTTP status.
struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = match error.code {
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Usage => StatusCode::BAD_REQUEST,
            ErrorCode::Busy | ErrorCode::Unknown | ErrorCode::Conflict => StatusCode::CONFLICT,
            ErrorCode::Timeout => StatusCode::GATEWAY_TIMEOUT,
        };
        Self { status, error }
    }
}

impl From<QueryRejection> for Failure {
    fn from(rejection: QueryRejection) -> Self {
        let message = format!("request: {}", rejection.body_text());
        Self { status: rejection.status(), error: ApiError::new(ErrorCode::Usage, message) }
    }
}

impl From<JsonRejection> for Failure {
    fn from(rejection: JsonRejection) -> Self {
        let message = format!("request: {}", rejection.body_text());
        Self { status: rejection.status(), error: ApiError::new(ErrorCode::Usage, message) }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(ErrorBody { error: self.error })).into_response()
    }
}

/// Query parameters; what is wrong with them becomes a [`Failure`].
struct Params<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Query(value) = Query::from_request_parts(parts, state).await?;
        Ok(Self(value))
    }
}

/// A JSON body; what is wrong with it becomes a [`Failure`].
struct Parsed<T>(T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Parsed<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let Json(value) = Json::from_request(request, state).await?;
        Ok(Self(value))
    }
}
