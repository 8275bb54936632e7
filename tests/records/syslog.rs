//! Syslog daemons: each message is read by a parser that is not ours (`syslog_loose`), and a daemon may go and come.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufReader, Read};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use protomask::records::{RecordsConfig, SinkFull, SyslogTarget};
use syslog_loose::{Message, ProcId, Protocol, SyslogFacility, SyslogSeverity, Variant, parse_message};

use crate::common::PATIENCE;
use crate::common::files::Files;
use crate::support::{give, given, settle, start, to_syslog, wait_until};

/// Longer than any message here.
const LONGEST: usize = 4096;

/// The sequence number in the structured data of ours, after all of the message has been looked at.
fn sequence(text: &[u8]) -> u64 {
    let text = std::str::from_utf8(text).unwrap();
    let message: Message<&str> = parse_message(text, Variant::RFC5424);
    assert_eq!(message.protocol, Protocol::RFC5424(1), "{text}");
    assert_eq!(message.facility, Some(SyslogFacility::LOG_LOCAL0), "{text}");
    assert_eq!(message.severity, Some(SyslogSeverity::SEV_INFO), "{text}");
    assert_eq!(message.appname, Some("protomask"), "{text}");
    assert_eq!(message.procid, Some(ProcId::PID(i32::try_from(std::process::id()).unwrap())), "{text}");
    assert!(message.hostname.is_some_and(|name| !name.is_empty() && name != "-"), "{text}");
    // The message is the line of a file, and the structured data says the same.
    let json: serde_json::Value = serde_json::from_str(message.msg).expect(text);
    assert_eq!(message.msgid, json["event"].as_str(), "{text}");
    let stamp = message.timestamp.unwrap().timestamp_millis();
    let expected: protomask::records::Stamp = json["time"].as_str().unwrap().parse().unwrap();
    assert_eq!(stamp, i64::try_from(expected.as_millis()).unwrap(), "{text}");
    assert_eq!(message.structured_data.len(), 2, "{text}");
    let meta = &message.structured_data[0];
    assert_eq!(
        (meta.id, meta.params[0].0, meta.params[0].1.to_string()),
        ("meta", "sequenceId", json["sequence"].to_string())
    );
    let data = &message.structured_data[1];
    assert_eq!(data.id, "nat64@32473", "{text}");
    let params: Vec<(String, String)> =
        data.params().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let keys = json.as_object().unwrap().iter().filter(|(key, _)| !matches!(key.as_str(), "time" | "event"));
    let expected: Vec<(String, String)> = keys
        .map(|(key, value)| (key.clone(), value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    assert_eq!(BTreeSet::from_iter(params), BTreeSet::from_iter(expected), "{text}");
    json["sequence"].as_u64().unwrap()
}

/// Reads datagrams until there are as many.
fn read(count: usize, mut receive: impl FnMut(&mut [u8]) -> std::io::Result<usize>) -> Vec<u64> {
    let mut buffer = [0; LONGEST];
    (0..count)
        .map(|_| {
            let length = receive(&mut buffer).expect("a datagram in time");
            assert!(length < LONGEST);
            sequence(&buffer[..length])
        })
        .collect()
}

#[test]
fn a_unix_socket_gets_one_message_for_each_record() {
    let files = Files::new();
    let path = files.path().join("log");
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let (recorder, guard) = start(&to_syslog(SyslogTarget::Unix(path)));
    give(&recorder, 0..5);
    let end = std::thread::spawn(|| guard.finish(PATIENCE));
    assert_eq!(read(7, |buffer| daemon.recv(buffer)), (1..=7).collect::<Vec<_>>());
    assert_eq!(end.join().unwrap(), 0);
}

#[test]
fn what_a_record_says_can_hold_any_character() {
    let files = Files::new();
    let path = files.path().join("log");
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    let config = RecordsConfig {
        router: "a \"b\" [c] \\d\\".to_owned(),
        configuration: Some("]=\"\\".to_owned()),
        ..to_syslog(SyslogTarget::Unix(path))
    };
    let (_recorder, _guard) = start(&config);
    assert_eq!(read(1, |buffer| daemon.recv(buffer)), [1]);
}

#[test]
fn a_daemon_that_is_not_there_yet_or_starts_anew_gets_all_that_waited() {
    let files = Files::new();
    let path = files.path().join("log");
    let (recorder, guard) =
        start(&RecordsConfig { queue: 50, ..to_syslog(SyslogTarget::Unix(path.clone())) });
    wait_until("the failure is seen", || recorder.counts().failing);
    give(&recorder, 0..49);
    assert_eq!(recorder.record(given(49)), Err(SinkFull));
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read(50, |buffer| daemon.recv(buffer)), (1..=50).collect::<Vec<_>>());
    settle(&recorder);
    drop(daemon);
    fs::remove_file(&path).unwrap();
    give(&recorder, 49..80);
    wait_until("the failure is seen", || recorder.counts().failing);
    let daemon = UnixDatagram::bind(&path).unwrap();
    daemon.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(read(31, |buffer| daemon.recv(buffer)), (51..=81).collect::<Vec<_>>());
    drop(guard);
    assert_eq!(read(1, |buffer| daemon.recv(buffer)), [82]);
}

#[test]
fn a_daemon_that_reads_nothing_stops_allocations_and_not_the_end() {
    let files = Files::new();
    let path = files.path().join("log");
    let daemon = UnixDatagram::bind(&path).unwrap();
    let (recorder, guard) = start(&RecordsConfig { queue: 2000, ..to_syslog(SyslogTarget::Unix(path)) });
    // The socket of the daemon is full before the queue is; only then the queue fills.
    wait_until("there is no room", || (0..100).any(|n| recorder.record(given(n)).is_err()));
    wait_until("a daemon that hangs is a failure", || recorder.counts().failing);
    let began = std::time::Instant::now();
    assert!(guard.finish(Duration::from_millis(300)) > 1000);
    assert!(began.elapsed() < Duration::from_secs(5));
    drop(daemon);
}

#[test]
fn udp_carries_one_message_in_each_datagram() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let daemon = UdpSocket::bind(address).unwrap();
        daemon.set_read_timeout(Some(PATIENCE)).unwrap();
        let target = format!("udp:{}", daemon.local_addr().unwrap()).parse().unwrap();
        let (recorder, guard) = start(&to_syslog(target));
        give(&recorder, 0..20);
        assert_eq!(read(21, |buffer| daemon.recv(buffer)), (1..=21).collect::<Vec<_>>());
        assert_eq!(guard.finish(PATIENCE), 0);
        assert_eq!(read(1, |buffer| daemon.recv(buffer)), [22]);
    }
}

/// Reads frames with their length before them (RFC 6587 §3.4.1) until the stream ends or `limit` are there.
fn frames(stream: TcpStream, limit: usize) -> Vec<u64> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = BufReader::with_capacity(1000, stream);
    let mut read = Vec::new();
    while read.len() < limit {
        let mut length = 0;
        loop {
            let mut byte = [0];
            match stream.read(&mut byte).unwrap() {
                0 => return read,
                _ if byte == [b' '] => break,
                _ => {
                    length = length * 10
                        + usize::from(byte[0].checked_sub(b'0').filter(|digit| *digit < 10).unwrap());
                }
            }
        }
        assert!(length < LONGEST);
        let mut message = vec![0; length];
        if stream.read_exact(&mut message).is_err() {
            return read;
        }
        read.push(sequence(&message));
    }
    read
}

#[test]
fn tcp_carries_messages_with_their_lengths() {
    let daemon = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp:localhost:{}", daemon.local_addr().unwrap().port()).parse().unwrap();
    let (recorder, guard) = start(&to_syslog(target));
    let reader = std::thread::spawn(move || frames(daemon.accept().unwrap().0, usize::MAX));
    give(&recorder, 0..2000);
    assert_eq!(guard.finish(PATIENCE), 0);
    // The stream ends with the writer.
    assert_eq!(reader.join().unwrap(), (1..=2002).collect::<Vec<_>>());
}

#[test]
fn a_tcp_connection_that_the_daemon_has_closed_is_not_written_to() {
    let daemon = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp:{}", daemon.local_addr().unwrap()).parse().unwrap();
    let (recorder, guard) = start(&to_syslog(target));
    assert_eq!(frames(daemon.accept().unwrap().0, 1), [1], "and it is closed with nothing left to read");
    // The only record for a long time: nothing behind it would show that the connection is no more.
    recorder.record(given(1)).unwrap();
    let again = frames(daemon.accept().unwrap().0, 2);
    assert_eq!(again, [1, 2]);
    drop(guard);
}

#[test]
fn what_a_broken_tcp_connection_swallowed_is_sent_again() {
    let daemon = TcpListener::bind("127.0.0.1:0").unwrap();
    // What its kernel has taken and the daemon never reads is lost where it is more than is sent again.
    socket2::SockRef::from(&daemon).set_recv_buffer_size(8 << 10).unwrap();
    let target = format!("tcp:{}", daemon.local_addr().unwrap()).parse().unwrap();
    let (recorder, guard) = start(&RecordsConfig { queue: 300, ..to_syslog(target) });
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        // Each of these reads a little and ends with data unread, which the kernel answers with a reset.
        for limit in [3, 0, 50, 1] {
            all.extend(frames(daemon.accept().unwrap().0, limit));
        }
        all.extend(frames(daemon.accept().unwrap().0, usize::MAX));
        all
    });
    give(&recorder, 0..3000);
    assert_eq!(guard.finish(PATIENCE), 0);
    assert!(recorder.counts().sink_errors > 0, "a connection broke while it was written to");
    let read = reader.join().unwrap();
    let distinct: BTreeSet<_> = read.iter().copied().collect();
    let missing: Vec<_> = (1..=3002).filter(|n| !distinct.contains(n)).collect();
    assert!(
        missing.is_empty(),
        "{} are missing, from {:?} to {:?}",
        missing.len(),
        missing.first(),
        missing.last()
    );
    assert!(read.len() > distinct.len(), "what came twice is what may have been lost");
    assert!(read.len() < 3002 + 4 * 2000, "{} is too much again", read.len());
}
