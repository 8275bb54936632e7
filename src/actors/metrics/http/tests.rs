//! Requests over loopback, answered by an actor that stands in for `metrics`.

use std::sync::atomic::{AtomicBool, Ordering};

use actix::{Actor, Context, Handler, MessageResult};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;

struct StandIn {
    problems: Vec<String>,
    notes: Vec<String>,
}

impl StandIn {
    /// What begins with "note: " is a note.
    fn saying(sentences: &[&str]) -> Self {
        let note = |sentence: &&str| sentence.strip_prefix("note: ").map(str::to_owned);
        let notes = sentences.iter().filter_map(note).collect();
        let problems =
            sentences.iter().filter(|sentence| note(sentence).is_none()).map(ToString::to_string).collect();
        Self { problems, notes }
    }
}

impl Actor for StandIn {
    type Context = Context<Self>;
}

impl Handler<Scrape> for StandIn {
    type Result = MessageResult<Scrape>;
    fn handle(&mut self, _: Scrape, _: &mut Self::Context) -> Self::Result {
        MessageResult("# EOF\n".to_owned())
    }
}

impl Handler<ListProblems> for StandIn {
    type Result = Readiness;
    fn handle(&mut self, _: ListProblems, _: &mut Self::Context) -> Readiness {
        Readiness { problems: self.problems.clone(), notes: self.notes.clone() }
    }
}

async fn start(problems: &[&str], bounds: Bounds, is_current: Arc<AtomicBool>) -> SocketAddr {
    let actor = StandIn::saying(problems).start();
    let answers = Answers { scrape: actor.clone().recipient(), list_problems: actor.recipient() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let log = Logger::root(slog::Discard, slog::o!());
    actix_rt::spawn(serve(listener, answers, bounds, log, move || is_current.load(Ordering::SeqCst)));
    address
}

async fn serving(problems: &[&str], bounds: Bounds) -> SocketAddr {
    start(problems, bounds, Arc::new(AtomicBool::new(true))).await
}

async fn request(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head} HTTP/1.1\r\nHost: router\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(Duration::from_secs(20), stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

#[actix::test]
async fn metrics_are_open_metrics_text_and_the_connection_ends_with_the_answer() {
    let address = serving(&[], Bounds::default()).await;
    let answer = request(address, "GET /metrics").await.to_ascii_lowercase();
    assert!(answer.starts_with("http/1.1 200 ok\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"),
        "{answer}"
    );
    assert!(answer.contains("connection: close\r\n") && answer.ends_with("\r\n\r\n# eof\n"), "{answer}");
}

#[actix::test]
async fn who_accepts_plain_text_only_gets_the_older_format() {
    let address = serving(&[], Bounds::default()).await;
    let mut answers = Vec::new();
    for accept in ["text/plain", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "*/*"] {
        answers
            .push(request(address, &format!("GET /metrics HTTP/1.1\r\nAccept: {accept}\r\nX: as in")).await);
    }
    assert!(
        answers[0].contains("text/plain; version=0.0.4") && answers[0].ends_with("\r\n\r\n"),
        "{}",
        answers[0]
    );
    assert!(
        answers[1..].iter().all(|answer| answer.contains("openmetrics-text") && answer.ends_with("# EOF\n"))
    );
}

#[actix::test]
async fn readiness_is_a_word_or_the_list_of_what_is_missing() {
    let ready = request(serving(&[], Bounds::default()).await, "GET /readyz").await;
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.ends_with("\r\n\r\nready\n"), "{ready}");
    let address = serving(&["tun is starting", "the link is down"], Bounds::default()).await;
    let not_ready = request(address, "GET /readyz").await;
    assert!(not_ready.starts_with("HTTP/1.1 503 "), "{not_ready}");
    assert!(not_ready.ends_with("\r\n\r\ntun is starting\nthe link is down\n"), "{not_ready}");
    // Notes are told, and are no problems.
    let noted = request(serving(&["note: mtu waits"], Bounds::default()).await, "GET /readyz").await;
    assert!(
        noted.starts_with("HTTP/1.1 200 ") && noted.ends_with("\r\n\r\nready\nnote: mtu waits\n"),
        "{noted}"
    );
    let health = request(address, "GET /healthz").await;
    assert!(
        health.starts_with("HTTP/1.1 200 ") && health.ends_with("\r\n\r\nok\n"),
        "not ready is not sick: {health}"
    );
}

#[actix::test]
async fn other_paths_and_methods_are_refused_and_paths_are_named() {
    let address = serving(&[], Bounds::default()).await;
    let unknown = request(address, "GET /metric").await;
    assert!(unknown.starts_with("HTTP/1.1 404 ") && unknown.ends_with(HINT), "{unknown}");
    assert!(request(address, "DELETE /metrics").await.starts_with("HTTP/1.1 405 "));
}

#[actix::test]
async fn a_client_that_says_nothing_is_sent_away_and_its_seat_is_given_to_the_next() {
    let bounds = Bounds { connections: 1, lifetime: Duration::from_millis(200) };
    let address = serving(&[], bounds).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    silent.write_all(b"GET /metr").await.unwrap();
    let served = request(address, "GET /healthz").await;
    assert!(served.ends_with("ok\n"), "{served}");
    let mut rest = Vec::new();
    let _ = timeout(Duration::from_secs(20), silent.read_to_end(&mut rest))
        .await
        .expect("the silent one was closed");
}

#[actix::test]
async fn one_that_has_been_replaced_takes_no_connection() {
    let current = Arc::new(AtomicBool::new(false));
    let address = start(&[], Bounds::default(), Arc::clone(&current)).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: router\r\n\r\n").await.unwrap();
    let answer = timeout(Duration::from_millis(300), stream.read_u8()).await;
    assert!(answer.is_err(), "the connection must wait in the backlog for the successor: {answer:?}");
}
