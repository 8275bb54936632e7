//! `protomask demo`: an IPv6-only client reaches an IPv4-only server through this router, on any Linux machine.
//!
//! Client, router and server live in network namespaces that have no name and go with this process, so the network of
//! the machine is not touched and nothing is left behind, whichever way it ends. The router is this same program,
//! started as a child that the kernel ends with its parent.

mod router;
mod scrape;

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use netlab::{Direction, PingOptions, PingOutcome, Server, Topology, bulk_transfer, http_get, ping};
use rfc6052::Prefix;

use router::Router;
use scrape::Totals;

use crate::exit::Exit;

/// The prefix for local use (RFC 8215): under the well-known one, documentation addresses are refused (RFC 6052 §3.1).
const PREFIX: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 96);
const POOL: Ipv4Net = Topology::POOL;

const PAGE: &str = "hello from the IPv4-only server";

/// How much is transferred, in bytes.
const BULK: u64 = 100_000_000;

/// How long one ping or one page may take; both take milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the transfer may take: a machine that manages less than 1 MB a second has another problem.
const BULK_PATIENCE: Duration = Duration::from_mins(2);

/// Why the demonstration failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// Only root may make network namespaces.
    #[error("the demonstration makes network namespaces, which only root may: try `sudo protomask demo`")]
    NotRoot,
    /// No TUN device can be made.
    #[error(
        "the demonstration needs /dev/net/tun (`modprobe tun`; in a container: --device /dev/net/tun): {0}"
    )]
    NoTun(io::Error),
    /// A step failed.
    #[error("failed at {step}: {why}{}", quoted(.log))]
    Failed {
        /// The step.
        step: &'static str,
        /// What went wrong.
        why: String,
        /// The last lines that the router logged, oldest first; empty if it was not running yet.
        log: Vec<String>,
    },
}

fn quoted(log: &[String]) -> String {
    if log.is_empty() {
        return String::new();
    }
    format!("\nThe last lines of the router's log:\n    {}", log.join("\n    "))
}

/// Runs the demonstration and prints what happens. [`Exit::Done`] only if all of it worked.
///
/// It starts a child that ends with the calling thread, so call it from the main thread.
pub fn run() -> Exit {
    let Err(error) = perform() else { return Exit::Done };
    // Without a stderr, the exit code still tells.
    let _ = writeln!(io::stderr(), "protomask demo: {error}");
    match error {
        DemoError::NotRoot | DemoError::NoTun(_) => Exit::Privilege,
        DemoError::Failed { .. } => Exit::Failed,
    }
}

fn perform() -> Result<(), DemoError> {
    check_requirements()?;
    say(
        "An IPv6-only client and an IPv4-only server, with protomask between them, in three network namespaces",
    );
    say("of their own. This machine's own network is not touched, and nothing of this is left behind.");
    say("");
    let (lab, page, sink) =
        build().map_err(|error| failure("building the network", error.to_string(), None))?;
    say(&format!("    client  {}", Topology::CLIENT_V6));
    say("      |");
    say(&format!("    router  {} and {}", Topology::ROUTER_V6, Topology::ROUTER_V4));
    say("      |");
    say(&format!("    server  {}", Topology::SERVER_V4));
    say("");

    let mut router = Router::start(&lab.router).map_err(|why| failure("starting the router", why, None))?;
    let steps = Steps { lab: &lab, router: &router };
    steps.ready()?;
    steps.ping()?;
    steps.http(&page)?;
    steps.transfer(&sink)?;
    steps.counters()?;
    let ended = router.stop().map_err(|why| failure("stopping the router", why, Some(&router)))?;
    say(&format!("6. The router was told to end, and did so after {} ms.", ended.as_millis()));
    say("");
    say("All of it worked.");
    Ok(())
}

/// The namespaces, and what listens in the server's.
fn build() -> netlab::Result<(Topology, Server, Server)> {
    let lab = Topology::new()?;
    let page = Server::http(&lab.server, (Topology::SERVER_V4, 80), PAGE)?;
    let sink = Server::bulk(&lab.server, (Topology::SERVER_V4, 9000))?;
    Ok((lab, page, sink))
}

/// The steps that need a running router.
struct Steps<'a> {
    lab: &'a Topology,
    router: &'a Router,
}

impl Steps<'_> {
    fn ready(&self) -> Result<(), DemoError> {
        let fail = self.failure("waiting for the router");
        say(&format!(
            "1. The router (process {}) translates between {PREFIX} and the pool {POOL}.",
            self.router.id()
        ));
        let took = self.router.wait_until_ready().map_err(fail)?;
        say(&format!("   ready after {} ms", took.as_millis()));
        Ok(())
    }

    fn ping(&self) -> Result<(), DemoError> {
        let fail = self.failure("the ping");
        let target = through(Topology::SERVER_V4);
        say(&format!("2. The client pings {target}, which stands for {}.", Topology::SERVER_V4));
        let options = PingOptions { timeout: PATIENCE, ..PingOptions::default() };
        match ping(self.lab.client(), target, &options).map_err(|error| fail(error.to_string()))? {
            PingOutcome::Reply { rtt, payload, .. } if payload == options.payload => {
                say(&format!("   answered after {:.2} ms", rtt.as_secs_f64() * 1000.0));
                Ok(())
            }
            PingOutcome::Reply { .. } => {
                Err(fail("the reply does not carry what the request did".to_owned()))
            }
            PingOutcome::Error { from, icmp_type, code, .. } => {
                Err(fail(format!("{from} answered with ICMPv6 type {icmp_type} code {code}")))
            }
            PingOutcome::Timeout => Err(fail(format!("no answer within {} s", PATIENCE.as_secs()))),
        }
    }

    fn http(&self, page: &Server) -> Result<(), DemoError> {
        let fail = self.failure("the web page");
        let target = SocketAddr::from((through(Topology::SERVER_V4), page.address().port()));
        say(&format!("3. The client fetches http://{target}/ over TCP."));
        let answer =
            http_get(self.lab.client(), target, "/", PATIENCE).map_err(|error| fail(error.to_string()))?;
        if answer.status != 200 || answer.text() != PAGE {
            return Err(fail(format!("status {}, {:?}", answer.status, answer.text())));
        }
        let seen = page.peers().first().map(SocketAddr::ip);
        let Some(seen) = seen.filter(|seen| IpNet::V4(POOL).contains(seen)) else {
            return Err(fail(format!("the server saw {seen:?}, which is not from the pool {POOL}")));
        };
        say(&format!("   status 200, {} bytes: {PAGE:?}; the server saw the client as {seen}", PAGE.len()));
        Ok(())
    }

    fn transfer(&self, sink: &Server) -> Result<(), DemoError> {
        let fail = self.failure("the transfer");
        let target = SocketAddr::from((through(Topology::SERVER_V4), sink.address().port()));
        say(&format!("4. The client sends {:.0} MB over one TCP connection.", mega(BULK)));
        let bar = ProgressBar::new(BULK).with_style(bar_style());
        let progress = |done| bar.set_position(done);
        let result =
            bulk_transfer(self.lab.client(), target, Direction::Upload, BULK, BULK_PATIENCE, progress);
        bar.finish_and_clear();
        let transfer = result.map_err(|error| fail(error.to_string()))?;
        let seconds = transfer.elapsed.as_secs_f64();
        let rate = mega(transfer.bytes) / seconds;
        say(&format!("   {} bytes in {seconds:.2} s: {rate:.0} MB/s", transfer.bytes));
        let (sent, arrived) = (hex(&transfer.client_sha256), hex(&transfer.server_sha256));
        if !transfer.is_intact() {
            return Err(fail(format!("SHA-256 {sent} was sent, {arrived} arrived")));
        }
        say(&format!("   SHA-256 of what was sent and of what arrived: {sent}"));
        Ok(())
    }

    fn counters(&self) -> Result<(), DemoError> {
        let fail = self.failure("reading the router's metrics");
        let page = self.router.fetch("/metrics").map_err(|error| fail(error.to_string()))?;
        let totals = Totals::read(&page.text());
        say("5. What the router counted:");
        say(&format!("   IPv6 to IPv4: {} packets, {:.1} MB", totals.packets_6to4, mega(totals.bytes_6to4)));
        say(&format!("   IPv4 to IPv6: {} packets, {:.1} MB", totals.packets_4to6, mega(totals.bytes_4to6)));
        say(&format!("   dropped: {} packets", totals.dropped));
        if totals.bytes_6to4 < BULK {
            return Err(fail("less than was transferred: the packets went another way".to_owned()));
        }
        Ok(())
    }

    /// Why a step failed, with the router's last words about it.
    fn failure(&self, step: &'static str) -> impl Fn(String) -> DemoError {
        move |why| failure(step, why, Some(self.router))
    }
}

fn failure(step: &'static str, why: String, router: Option<&Router>) -> DemoError {
    DemoError::Failed { step, why, log: router.map(Router::last_lines).unwrap_or_default() }
}

/// How the client addresses an IPv4 host.
fn through(address: Ipv4Addr) -> Ipv6Addr {
    // A constant of a legal length: the fallback is never taken.
    Prefix::try_from(PREFIX).unwrap_or(Prefix::LOCAL_USE).embed(address)
}

fn check_requirements() -> Result<(), DemoError> {
    if !nix::unistd::Uid::effective().is_root() {
        return Err(DemoError::NotRoot);
    }
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").map_err(DemoError::NoTun).map(drop)
}

fn bar_style() -> ProgressStyle {
    // The template is a constant; a mistake in it costs the looks of the bar.
    ProgressStyle::with_template("   {bar:40} {bytes}/{total_bytes} {bytes_per_sec}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// Bytes as millions of them.
#[allow(clippy::cast_precision_loss, reason = "for a reader; exact up to 9 PB")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn hex(digest: &[u8]) -> String {
    digest.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Prints a line. Whoever has closed stdout does not want to read on, and the exit code still tells.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
