//! Records for a syslog daemon: RFC 5424 messages, by a Unix datagram socket, UDP (RFC 5426) or TCP (RFC 6587 §3.4.1).
//!
//! The `syslog` crate is not used: it stamps a message when it is formatted, not when the thing happened; it does not
//! escape what stands in structured data; over TCP it puts nothing between messages; and its sockets have no time-outs.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::io::{self, ErrorKind, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use socket2::SockRef;

use super::line::Line;
use super::writer::Sink;
use crate::config::SyslogTarget;

/// Facility `local0`, severity `informational`: 16 * 8 + 6.
const PRIORITY: u8 = 134;

/// The name of our structured data. 32473 is the enterprise number for examples (RFC 5612): we have none of our own.
const DATA: &str = "nat64@32473";

/// `sequenceId` goes to 2147483647, and begins at 1 again (RFC 5424 §7.3.1).
const LAST_SEQUENCE_ID: u64 = 2_147_483_647;

/// How long the daemon may take to accept a connection or a message.
const TIMEOUT: Duration = Duration::from_secs(2);

/// What the kernel may hold of what we have sent over TCP, in bytes. The kernel takes twice as much memory, its own
/// bookkeeping included.
const SEND_BUFFER: usize = 128 << 10;

/// How much of what was sent over TCP is sent again over the next connection, in bytes: all that our kernel may have held
/// when the last one broke, and three times as much that the daemon's kernel had taken and the daemon had not read. Some
/// of it arrives twice then; instance and sequence number tell.
const RESENT: usize = 8 * SEND_BUFFER;

/// Sends records to a daemon.
#[derive(Debug)]
pub(super) struct SyslogSink {
    target: SyslogTarget,
    /// Between the stamp and the event in each message: host, program and process.
    header: String,
    connection: Option<Connection>,
    message: String,
    frames: Vec<u8>,
    ends: Vec<usize>,
    recent: Recent,
}

#[derive(Debug)]
enum Connection {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

/// The last frames that went over TCP, whole ones.
#[derive(Debug, Default)]
struct Recent {
    bytes: VecDeque<u8>,
    lengths: VecDeque<usize>,
}

impl SyslogSink {
    pub(super) fn new(target: SyslogTarget, host_name: &str) -> Self {
        let header = format!("{} protomask {}", header_field(host_name, 255), std::process::id());
        let (message, frames, ends) = (String::new(), Vec::new(), Vec::new());
        Self { target, header, connection: None, message, frames, ends, recent: Recent::default() }
    }

    fn connect(&mut self) -> io::Result<()> {
        // The peer has closed: what is written would go nowhere.
        if let Some(Connection::Tcp(stream)) = &self.connection
            && has_ended(stream)?
        {
            self.connection = None;
        }
        if self.connection.is_none() {
            let mut connection = Connection::new(&self.target)?;
            if let Connection::Tcp(stream) = &mut connection {
                let (older, newer) = self.recent.bytes.as_slices();
                stream.write_all(older)?;
                stream.write_all(newer)?;
            }
            self.connection = Some(connection);
        }
        Ok(())
    }

    /// Puts a message, without a frame, into `self.message`.
    fn format(&mut self, line: &Line<'_>) -> io::Result<()> {
        let json = serde_json::to_string(line)?;
        self.message.clear();
        format(&mut self.message, &self.header, line, &json)
            .map_err(|_| io::Error::from(ErrorKind::InvalidData))
    }

    fn send_datagrams(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()> {
        for line in lines {
            self.format(line)?;
            let message = self.message.as_bytes();
            let sent = match &self.connection {
                Some(Connection::Unix(socket)) => socket.send(message),
                Some(Connection::Udp(socket)) => socket.send(message),
                _ => Err(ErrorKind::NotConnected.into()),
            };
            if sent? != message.len() {
                return Err(ErrorKind::WriteZero.into());
            }
            *done += 1;
        }
        Ok(())
    }

    fn send_frames(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()> {
        self.frames.clear();
        self.ends.clear();
        for line in lines {
            self.format(line)?;
            write!(self.frames, "{} {}", self.message.len(), self.message)?;
            self.ends.push(self.frames.len());
        }
        let Some(Connection::Tcp(stream)) = &mut self.connection else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut at = 0;
        let result = loop {
            if at >= self.frames.len() {
                break Ok(());
            }
            match stream.write(&self.frames[at..]) {
                Ok(0) => break Err(ErrorKind::WriteZero.into()),
                Ok(n) => at += n,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        let mut start = 0;
        for end in self.ends.iter().take_while(|end| **end <= at) {
            self.recent.push(&self.frames[start..*end]);
            start = *end;
            *done += 1;
        }
        result
    }
}

impl Sink for SyslogSink {
    fn write(&mut self, lines: &[Line<'_>], done: &mut usize) -> io::Result<()> {
        self.connect()?;
        let result = match self.target {
            SyslogTarget::Tcp(_) => self.send_frames(lines, done),
            SyslogTarget::Unix(_) | SyslogTarget::Udp(_) => self.send_datagrams(lines, done),
        };
        if result.is_err() {
            // A daemon that was restarted has another socket; and of a frame that is half sent, the rest would be taken for
            // a frame of its own.
            self.connection = None;
        }
        result
    }

    fn reopen(&mut self) -> io::Result<()> {
        // A connection is as good after a rotation as before.
        Ok(())
    }
}

impl Connection {
    fn new(target: &SyslogTarget) -> io::Result<Self> {
        match target {
            SyslogTarget::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.connect(path)?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                Ok(Self::Unix(socket))
            }
            SyslogTarget::Udp(host) => {
                let connect = |address: SocketAddr| {
                    let any: SocketAddr = if address.is_ipv4() {
                        (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
                    } else {
                        (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
                    };
                    let socket = UdpSocket::bind(any)?;
                    socket.connect(address)?;
                    socket.set_write_timeout(Some(TIMEOUT))?;
                    Ok(Self::Udp(socket))
                };
                first_of(host, connect)
            }
            SyslogTarget::Tcp(host) => first_of(host, |address| {
                let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
                SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER)?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                Ok(Self::Tcp(stream))
            }),
        }
    }
}

/// The first connection that can be made to one of the addresses of `host`.
fn first_of(host: &str, connect: impl Fn(SocketAddr) -> io::Result<Connection>) -> io::Result<Connection> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name of the host has no address");
    for address in host.to_socket_addrs()? {
        match connect(address) {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whether the peer has closed the connection, or it is broken.
fn has_ended(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let ended = match stream.peek(&mut [0]) {
        Ok(n) => n == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    };
    stream.set_nonblocking(false)?;
    Ok(ended)
}

impl Recent {
    fn push(&mut self, frame: &[u8]) {
        self.bytes.extend(frame);
        self.lengths.push_back(frame.len());
        while self.bytes.len() > RESENT {
            let Some(oldest) = self.lengths.pop_front() else { return };
            // Kept as long as all that is newer does not fill the room.
            if self.bytes.len() - oldest < RESENT {
                self.lengths.push_front(oldest);
                return;
            }
            self.bytes.drain(..oldest);
        }
    }
}

/// A message: header, structured data, and the same line that stands in a file, for daemons that drop the data.
fn format(message: &mut String, header: &str, line: &Line<'_>, json: &str) -> fmt::Result {
    write!(message, "<{PRIORITY}>1 {} {header} {} ", line.time, line.event.name())?;
    let sequence_id = line.sequence.saturating_sub(1) % LAST_SEQUENCE_ID + 1;
    write!(message, "[meta sequenceId=\"{sequence_id}\"][{DATA}")?;
    line.each(|name, value| {
        write!(message, " {name}=\"")?;
        write!(Escaped(message), "{value}")?;
        message.write_char('"')
    })?;
    write!(message, "] {json}")
}

/// A field of the header: printable ASCII without spaces, `-` where nothing is left (RFC 5424 §6).
fn header_field(text: &str, longest: usize) -> String {
    let field: String = text.chars().filter(char::is_ascii_graphic).take(longest).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

/// The value of a parameter: `"`, `\` and `]` are escaped (RFC 5424 §6.3.3).
struct Escaped<'s>(&'s mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            if matches!(c, '"' | '\\' | ']') {
                self.0.push('\\');
            }
            self.0.push(c);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Stamp;
    use crate::records::line::Event;

    fn message(sequence: u64, reason: &str) -> String {
        let json = format!(
            "{{\"time\":\"2026-01-31T23:59:59.007Z\",\"event\":\"block_returned\",\"router\":\"cgn1/nat64\",\
             \"instance\":\"0123456789abcdef\",\"sequence\":{sequence},\"host\":\"2001:db8::5\",\
             \"subscriber\":\"2001:db8::/64\",\"address\":\"203.0.113.1\",\"first_port\":1024,\"last_port\":1151,\
             \"given\":\"2026-01-31T22:53:20.000Z\"}}"
        );
        let mut line: Line<'_> = serde_json::from_str(&json).unwrap();
        line.reason = Some(reason.into());
        assert_eq!((line.event, line.time), (Event::BlockReturned, Stamp::from_millis(1_769_903_999_007)));
        let mut message = String::new();
        format(&mut message, "cgn1 protomask 7", &line, "{}").unwrap();
        message
    }

    #[test]
    fn a_message_is_written_as_rfc5424_says_character_by_character() {
        assert_eq!(
            message(17, "a \"b\" [c] \\d"),
            "<134>1 2026-01-31T23:59:59.007Z cgn1 protomask 7 block_returned [meta sequenceId=\"17\"][nat64@32473 \
             router=\"cgn1/nat64\" instance=\"0123456789abcdef\" sequence=\"17\" host=\"2001:db8::5\" \
             subscriber=\"2001:db8::/64\" address=\"203.0.113.1\" first_port=\"1024\" last_port=\"1151\" \
             given=\"2026-01-31T22:53:20.000Z\" reason=\"a \\\"b\\\" [c\\] \\\\d\"] {}"
        );
    }

    #[test]
    fn the_sequence_id_begins_at_1_again_behind_its_last() {
        for (sequence, id) in [(1, 1), (2_147_483_647, 2_147_483_647), (2_147_483_648, 1), (4_294_967_295, 1)]
        {
            let expected = format!("[meta sequenceId=\"{id}\"]");
            assert!(message(sequence, "").contains(&expected), "{sequence}: {}", message(sequence, ""));
        }
    }

    #[test]
    fn what_is_kept_to_be_sent_again_is_whole_frames_and_no_more_than_is_needed() {
        let mut recent = Recent::default();
        for n in 0..5000_u32 {
            // 700 to 799 bytes, each with its number.
            let frame = n.to_be_bytes().repeat(175 + n as usize % 25);
            recent.push(&frame);
            assert!(recent.bytes.len() < RESENT + 800);
        }
        assert!(recent.bytes.len() >= RESENT, "{}", recent.bytes.len());
        assert_eq!(recent.lengths.iter().sum::<usize>(), recent.bytes.len());
        let first = 5000 - recent.lengths.len() as u32;
        assert!(
            recent.bytes.iter().take(4).eq(&first.to_be_bytes()),
            "it begins with the beginning of a frame"
        );
    }

    #[test]
    fn a_header_field_is_printable_and_never_empty() {
        assert_eq!(header_field("cgn1.example.org", 255), "cgn1.example.org");
        assert_eq!(header_field("c g\tn\u{fc}1", 255), "cgn1");
        assert_eq!(header_field(" ", 255), "-");
        assert_eq!(header_field(&"x".repeat(300), 255).len(), 255);
    }
}
