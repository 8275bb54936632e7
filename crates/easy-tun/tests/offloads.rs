//! What the kernel leaves to whoever reads the device, with real devices, each in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use easy_tun::{Batch, BatchLayout, Device, DeviceBuilder, HEADER, Offloads, PacketIo, Written};
use ipnet::Ipv4Net;
use netlab::{Namespace, kernel_tests_possible};
use nix::sys::socket::{setsockopt, sockopt::UdpGsoSegment};

/// Ten times what any of this takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const SEGMENT: i32 = 100;
/// Three segments.
const ALL: usize = 250;

fn namespace() -> Namespace {
    let namespace = Namespace::new("tun").unwrap();
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    namespace
}

fn device(namespace: &Namespace, offloads: Offloads, persist: bool) -> Device {
    let builder = DeviceBuilder::new("tun0").offloads(offloads).persist(persist);
    let device = namespace.run(|| builder.build()).unwrap();
    if !device.adopted() {
        namespace.add_address("tun0", Ipv4Net::new_assert(HERE, 24)).unwrap();
        namespace.up("tun0").unwrap();
    }
    device
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::time::timeout(LIMIT, future).await.expect("everything here ends in its time")
    })
}

/// Sends one payload of [`ALL`] bytes in segments, and tells the frames that the device gives for it, which take so many packets.
fn frames(namespace: &Namespace, device: &Device, packets: usize) -> (UdpSocket, Vec<Vec<u8>>) {
    let socket = namespace.run(|| UdpSocket::bind((HERE, 0)).unwrap());
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    setsockopt(&socket, UdpGsoSegment, &SEGMENT).unwrap();
    let payload: Vec<u8> = (0..ALL).map(|number| number as u8).collect();
    socket.send_to(&payload, (THERE, 7)).unwrap();
    let frames = block_on(async {
        let queue = device.queues()[0].open().unwrap();
        let mut batch = Batch::new(BatchLayout::default(), queue.header());
        while batch.len() < packets {
            queue.readable().await.unwrap();
            queue.try_read_batch(&mut batch).unwrap();
        }
        batch.frames().map(<[u8]>::to_vec).collect()
    });
    (socket, frames)
}

/// Exchanges the addresses and ports of a UDP datagram over IPv4, which no checksum sees.
fn turn_round(packet: &mut [u8]) {
    for (one, other, length) in [(12, 16, 4), (20, 22, 2)] {
        for at in 0..length {
            packet.swap(one + at, other + at);
        }
    }
}

#[test]
fn a_super_packet_comes_whole_and_is_written_whole() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = namespace();
    let device = device(&namespace, Offloads::all(), false);
    assert_eq!(device.offloads(), Offloads::all(), "Linux grants all of them since 6.2");
    assert_eq!(device.queues()[0].header(), HEADER);
    let (socket, mut frames) = frames(&namespace, &device, 1);
    let frame = &mut frames[0];
    assert_eq!(frame.len(), HEADER + 28 + ALL);
    // Flags: a partial checksum. Type: UDP. The segment size is in this machine's order.
    assert_eq!((frame[0] & 1, frame[1]), (1, 5));
    assert_eq!(i32::from(u16::from_ne_bytes([frame[4], frame[5]])), SEGMENT);
    turn_round(&mut frame[HEADER..]);
    block_on(async {
        let queue = device.queues()[0].open().unwrap();
        assert_eq!(queue.try_write(frame).unwrap(), Written::Done);
    });
    let mut buffer = [0; 1500];
    let lengths = [(); 3].map(|()| {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, SocketAddr::from((THERE, 7)));
        length
    });
    assert_eq!(lengths, [100, 100, 50], "the kernel cuts it where its segments end");
}

#[test]
fn what_was_not_asked_for_is_done_by_the_kernel() {
    if !kernel_tests_possible() {
        return;
    }
    for (asked, header) in [(Offloads::empty(), 0), (Offloads::CHECKSUM, HEADER), (Offloads::TSO4, HEADER)] {
        let namespace = namespace();
        let device = device(&namespace, asked, false);
        assert!(device.offloads().contains(asked) && !device.offloads().contains(Offloads::USO));
        assert_eq!(device.queues()[0].header(), header, "{asked}");
        let (_, frames) = frames(&namespace, &device, 3);
        let lengths: Vec<_> = frames.iter().map(|frame| frame.len() - header - 28).collect();
        assert_eq!(lengths, [100, 100, 50], "{asked}");
    }
}

#[test]
fn an_adopted_device_has_the_offloads_that_are_asked_for_now() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = namespace();
    for (asked, packets) in
        [(Offloads::empty(), 3), (Offloads::all(), 1), (Offloads::CHECKSUM, 3), (Offloads::empty(), 3)]
    {
        let device = device(&namespace, asked, true);
        assert_eq!(device.offloads(), asked);
        let (_, frames) = frames(&namespace, &device, packets);
        let header = device.queues()[0].header();
        let payload: usize = frames.iter().map(|frame| frame.len() - header - 28).sum();
        assert_eq!((frames.len(), payload), (packets, ALL), "{asked}");
    }
}
