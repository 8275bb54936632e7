//! Round-trip times of datagrams that the server sends back, at a pace that does not wait for answers.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;

use super::pace::{Pace, Schedule, be_punctual, now, sleep_until};
use super::socket::{Flow, Receiver};

/// Round-trip times are told apart from 1 µs to 10 s, with three significant digits.
const SHORTEST: u64 = 1_000;
const LONGEST: u64 = 10_000_000_000;
const DIGITS: u8 = 3;
/// The payload, in bytes: the number of the measurement, and when the datagram was sent.
const PAYLOAD: usize = 64;

static NUMBER: AtomicU64 = AtomicU64::new(1);

/// What came of a measurement.
#[derive(Debug)]
pub(crate) struct Echoes {
    pub(crate) sent: u64,
    /// In ns, of those that came back.
    pub(crate) times: Histogram<u64>,
}

/// An empty histogram of round-trip times, in ns.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(SHORTEST, LONGEST, DIGITS)?)
}

/// Sends so many per second for so many ns. A datagram's time begins when it is handed to the kernel, so that the
/// generator's own delays are not counted; the next one is sent whether or not an answer has come.
pub(crate) fn run(flow: &Flow, rate: u64, duration: u64) -> Result<Echoes> {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let server = scope.spawn(|| answer(&flow.server, &is_over));
        let client = scope.spawn(|| receive(&flow.client, number, &is_over));
        let pace = Pace { rate, burst: 1, duration };
        // On a thread of its own: its timer slack would be inherited by every program started later.
        let sent = scope.spawn(move || send(&flow.client, number, pace)).join();
        is_over.store(true, Ordering::Release);
        server.join().map_err(|_| anyhow!("the server panicked"))??;
        let times = client.join().map_err(|_| anyhow!("the receiver panicked"))??;
        let sent = sent.map_err(|_| anyhow!("the sender panicked"))??;
        Ok(Echoes { sent, times })
    })
}

fn send(socket: &UdpSocket, number: u64, pace: Pace) -> Result<u64> {
    be_punctual();
    let mut payload = [0; PAYLOAD];
    payload[..8].copy_from_slice(&number.to_be_bytes());
    let mut schedule = Schedule::new(pace, now());
    let mut sent = 0;
    loop {
        sleep_until(schedule.next());
        let Some(due) = schedule.due(now()) else { return Ok(sent) };
        for _ in 0..due {
            payload[8..16].copy_from_slice(&now().to_be_bytes());
            // What the kernel does not take is lost, and counted as such: no answer will come.
            let _ = socket.send(&payload);
            sent += 1;
        }
    }
}

fn answer(socket: &UdpSocket, is_over: &AtomicBool) -> Result<()> {
    let mut buffer = [0; PAYLOAD];
    loop {
        let was_over = is_over.load(Ordering::Acquire);
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => {
                // A client that is gone is no concern of an echo server.
                let _ = socket.send_to(&buffer[..length], peer);
            }
            Err(error) if is_silence(&error) => {
                if was_over {
                    return Ok(());
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_silence(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionRefused, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionRefused)
}

fn receive(socket: &UdpSocket, number: u64, is_over: &AtomicBool) -> Result<Histogram<u64>> {
    let mut times = histogram()?;
    let mut receiver = Receiver::new(socket);
    loop {
        let was_over = is_over.load(Ordering::Acquire);
        let count = receiver.receive(|datagram| {
            let now = now();
            if let Some(time) = round_trip(datagram, number, now) {
                times.saturating_record(time);
            }
        })?;
        if count == 0 && was_over {
            return Ok(times);
        }
    }
}

/// How long this datagram was under way; `None` if it is not of this measurement.
fn round_trip(datagram: &[u8], number: u64, now: u64) -> Option<u64> {
    let (mark, rest) = datagram.split_first_chunk::<8>()?;
    let sent = u64::from_be_bytes(*rest.first_chunk()?);
    (u64::from_be_bytes(*mark) == number).then(|| now.saturating_sub(sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_datagrams_of_this_measurement_have_a_time() {
        let mut datagram = [0; PAYLOAD];
        datagram[7] = 9;
        datagram[8..16].copy_from_slice(&1_000_u64.to_be_bytes());
        assert_eq!(round_trip(&datagram, 9, 251_000), Some(250_000));
        assert_eq!(round_trip(&datagram, 8, 251_000), None);
        assert_eq!(round_trip(&datagram[..12], 9, 251_000), None);
    }

    #[test]
    fn each_datagram_that_is_answered_is_in_the_histogram() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(super::super::socket::SILENCE)).unwrap();
        }
        let echoes = run(&Flow { client, server }, 1000, 50_000_000).unwrap();
        assert!(
            (1..=50).contains(&echoes.sent),
            "one each millisecond, fewer on a busy machine: {}",
            echoes.sent
        );
        assert_eq!(echoes.times.len(), echoes.sent);
        assert!(echoes.times.max() < 1_000_000_000);
    }
}
