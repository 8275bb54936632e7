//! The least that a TUN device costs in user space: one thread per queue sleeps in `read`, writes other headers in front of the
//! same bytes, and writes. Two system calls for each packet, however they come: it joins nothing, so that a look for more packets
//! would gain nothing. It knows one host and one server, checks nothing and counts nothing; device, offloads and queues are those of
//! the router.

mod rewrite;

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use easy_tun::{BatchLayout, DeviceBuilder, Offloads, QueueHandle};
use netlab::Topology;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::{read, write};

use crate::lab::SERVER;
use rewrite::{GROWTH, Pair, Template, VNET};

/// How this program is told to be the bare loop.
pub(crate) const COMMAND: &str = "bare-loop";
/// What it prints when the device is there.
pub(crate) const READY: &str = "the device is there";
/// What is said of it beside its number of queues.
pub(crate) const SETTINGS: &str = "one thread per queue: read (which sleeps), rewrite from a template, write; checksum, TSO, ECN and USO \
    offloads; MTU 9216; one client and one server, TCP and UDP";

/// The client's address outside.
const HOST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 77);
/// The router's default.
const MTU: u16 = 9216;

/// Makes the device and works until the process is ended.
pub(crate) fn run(device: &str, queues: usize) -> Result<()> {
    let device = DeviceBuilder::new(device).mtu(MTU).queues(queues).offloads(Offloads::all()).build()?;
    ensure!(
        device.queues().iter().all(|queue| queue.header() == VNET),
        "this kernel puts no header in front of packets"
    );
    let template = Template::new(
        Pair { host: Topology::CLIENT_V6, server: SERVER },
        Pair { host: HOST, server: Topology::SERVER_V4 },
    );
    println!("{READY}");
    std::io::stdout().flush()?;
    thread::scope(|scope| {
        let template = &template;
        let mut workers = Vec::new();
        for (number, queue) in device.queues().iter().enumerate() {
            // Named like the router's, so that their wake-ups are told as its are.
            let thread = thread::Builder::new().name(format!("worker-{number}"));
            workers.push(thread.spawn_scoped(scope, move || work(queue, template))?);
        }
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker panicked"))?)
    })
}

/// One queue. Returns only when the device is gone.
fn work(queue: &QueueHandle, template: &Template) -> Result<()> {
    // A queue is made non-blocking; of what can be set this way, it has nothing else.
    fcntl(queue.as_fd(), FcntlArg::F_SETFL(OFlag::empty())).context("having reads wait")?;
    let mut buffer = vec![0; GROWTH + VNET + BatchLayout::default().packet];
    loop {
        let length = match read(queue.as_fd(), &mut buffer[GROWTH..]) {
            Ok(length) => length,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).context("reading a packet"),
        };
        if let Some(frame) = template.rewrite(&mut buffer, GROWTH..GROWTH + length) {
            // What the kernel does not take is lost, as on any link.
            let _ = write(queue.as_fd(), &buffer[frame]);
        }
    }
}
