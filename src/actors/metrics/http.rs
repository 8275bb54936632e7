//! The HTTP side: three paths, answered by messages to the actor.
//!
//! | path | answer |
//! | --- | --- |
//! | `/metrics` | `OpenMetrics` text; the older format for who accepts `text/plain` and not this |
//! | `/healthz` | 200 while the process can answer. An essential concern that is lost for good ends the process, so there is no "unhealthy": who gets no answer knows |
//! | `/readyz` | 200 `ready`, or 503 with one sentence per line of what is missing; notes (`note: ...`) follow, which do not count: settings that wait for a restart, a file that was refused, a missing folder for state |
//!
//! Bounds: 32 connections at a time (further ones wait in the listener's backlog), one request each, 10 seconds from the
//! first to the last byte; heads of at most 100 headers and some 400 KiB (hyper's), bodies are not read.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix::{Message, Recipient};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::map_response;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use slog::{Logger, warn};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::{ListProblems, Readiness, Scrape, classic};

/// The content type of `OpenMetrics` 1.0 text.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The content type of the older text format.
const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What may be asked, for whoever asks for something else.
const HINT: &str = "there is /metrics, /healthz and /readyz\n";

/// How long an answer of the actor may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait when the kernel gives no connection (too many open files, for one).
const AFTER_AN_ERROR: Duration = Duration::from_secs(1);

/// What one client, or all of them, may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at a time.
    pub(super) connections: usize,
    /// From the accept to the last byte.
    pub(super) lifetime: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: 32, lifetime: Duration::from_secs(10) }
    }
}

/// Who answers.
#[derive(Debug, Clone)]
pub(super) struct Answers {
    pub(super) scrape: Recipient<Scrape>,
    pub(super) list_problems: Recipient<ListProblems>,
}

/// Serves until the runtime ends. As soon as `is_current` says no, no connection is taken any more: they belong to the
/// successor, who listens on the same socket.
pub(super) async fn serve(
    listener: TcpListener,
    answers: Answers,
    bounds: Bounds,
    log: Logger,
    is_current: impl Fn() -> bool + Send + Sync + 'static,
) {
    let paths = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .fallback(async || (StatusCode::NOT_FOUND, HINT))
        .layer(map_response(last_on_its_connection))
        .with_state(answers);
    let seats = Arc::new(Semaphore::new(bounds.connections));
    let door = Door { listener, is_current, seats, lifetime: bounds.lifetime, log };
    // It never ends: an error of one connection is that connection's.
    let _ = axum::serve(door, paths).await;
}

/// A connection that waited for a second request would keep its seat from others.
async fn last_on_its_connection(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn metrics(State(answers): State<Answers>, head: HeaderMap) -> Response {
    match ask(&answers.scrape, Scrape).await {
        Ok(text) if wants_classic(&head) => {
            ([(header::CONTENT_TYPE, CLASSIC)], classic::from_open_metrics(&text)).into_response()
        }
        Ok(text) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(response) => response,
    }
}

/// Whether the client accepts plain text and does not name `OpenMetrics`. Who accepts everything gets `OpenMetrics`.
fn wants_classic(head: &HeaderMap) -> bool {
    let accepted: Vec<_> =
        head.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let names = |kind: &str| accepted.iter().any(|value| value.contains(kind));
    names("text/plain") && !names("application/openmetrics-text")
}

async fn readyz(State(answers): State<Answers>) -> Response {
    match ask(&answers.list_problems, ListProblems).await {
        Ok(Readiness { problems, notes }) if problems.is_empty() => lines("ready", &notes).into_response(),
        Ok(Readiness { problems, notes }) => {
            (StatusCode::SERVICE_UNAVAILABLE, lines(&problems.join("\n"), &notes)).into_response()
        }
        Err(response) => response,
    }
}

/// What is to be said first, and the notes.
fn lines(first: &str, notes: &[String]) -> String {
    notes.iter().fold(format!("{first}\n"), |text, note| text + "note: " + note + "\n")
}

/// The actor's answer, or the response that says why there is none.
async fn ask<M>(actor: &Recipient<M>, question: M) -> Result<M::Result, Response>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    let unavailable = |why: &'static str| (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    match timeout(PATIENCE, actor.send(question)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) => Err(unavailable("metrics is being restarted\n")),
        Err(_) => Err(unavailable("metrics did not answer in time\n")),
    }
}

/// Lets in as many connections as there are seats.
struct Door<F> {
    listener: TcpListener,
    is_current: F,
    seats: Arc<Semaphore>,
    lifetime: Duration,
    log: Logger,
}

impl<F: Fn() -> bool + Send + Sync + 'static> Listener for Door<F> {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            let Ok(seat) = Arc::clone(&self.seats).acquire_owned().await else { pending().await };
            // Asked at each poll, right before the accept: a zombie that wakes up must not take one.
            let next =
                poll_fn(|cx| if (self.is_current)() { self.listener.poll_accept(cx) } else { Poll::Pending });
            match next.await {
                Ok((stream, from)) => return (Connection::new(stream, seat, self.lifetime), from),
                Err(error) => {
                    warn!(self.log, "no connection can be taken just now"; "because" => %error);
                    sleep(AFTER_AN_ERROR).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests;
