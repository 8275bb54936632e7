//! Real devices, each in a network namespace of its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use easy_tun::{Batch, BatchLayout, Device, DeviceBuilder, Error, Instruction, PacketIo, Steering, Written};
use ipnet::Ipv4Net;
use netlab::{Namespace, kernel_tests_possible};

/// Ten times what any of this takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(20);
const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// A device in a new namespace, up, 192.0.2.1/24, and silent: no IPv6 chatter of the kernel's own.
fn laboratory(builder: &DeviceBuilder) -> (Namespace, Device) {
    let namespace = Namespace::new("tun").unwrap();
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    let device = namespace.run(|| builder.build()).unwrap();
    configure(&namespace, &device);
    (namespace, device)
}

fn configure(namespace: &Namespace, device: &Device) {
    namespace.add_address(device.name(), Ipv4Net::new_assert(HERE, 24)).unwrap();
    namespace.up(device.name()).unwrap();
}

fn socket(namespace: &Namespace) -> UdpSocket {
    namespace.run(|| {
        let socket = UdpSocket::bind((HERE, 0)).unwrap();
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    })
}

/// The payload of a UDP datagram over IPv4 without options.
fn payload(packet: &[u8]) -> &[u8] {
    assert_eq!((packet[0], packet[9]), (0x45, 17), "IPv4 without options, UDP");
    &packet[28..]
}

/// The datagram turned round: the answer of an echo server. UDP's checksum does not see the exchange.
fn turned_round(packet: &[u8]) -> Vec<u8> {
    let mut answer = packet.to_vec();
    answer[12..16].copy_from_slice(&packet[16..20]);
    answer[16..20].copy_from_slice(&packet[12..16]);
    answer[20..22].copy_from_slice(&packet[22..24]);
    answer[22..24].copy_from_slice(&packet[20..22]);
    answer
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        tokio::time::timeout(LIMIT, future).await.expect("everything here ends in its time")
    })
}

#[test]
fn a_datagram_goes_out_through_the_queue_and_its_answer_comes_back_to_the_socket() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&DeviceBuilder::new("nat%d").mtu(1400));
    assert_eq!(device.name(), "nat0");
    assert_eq!(device.index(), namespace.index("nat0").unwrap());
    assert_eq!(device.mtu().unwrap(), 1400);
    assert!(!device.adopted());

    let socket = socket(&namespace);
    block_on(async {
        let queue = device.queue(0).unwrap().open().unwrap();
        let mut buffer = [0; 1500];
        assert_eq!(queue.try_read(&mut buffer).unwrap(), None, "nothing was sent yet");
        socket.send_to(b"ping", (THERE, 7)).unwrap();
        let length = queue.read(&mut buffer).await.unwrap();
        assert_eq!(payload(&buffer[..length]), b"ping");
        assert_eq!(queue.try_read(&mut buffer).unwrap(), None, "one datagram is one packet");
        assert_eq!(queue.try_write(&turned_round(&buffer[..length])).unwrap(), Written::Done);
    });
    let mut answer = [0; 16];
    let (length, from) = socket.recv_from(&mut answer).unwrap();
    assert_eq!((&answer[..length], from), (&b"ping"[..], SocketAddr::from((THERE, 7))));
}

#[test]
fn a_batch_takes_what_is_there_in_order_and_drops_what_is_too_long() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&DeviceBuilder::new("tun0"));
    let socket = socket(&namespace);
    for number in 0..5u8 {
        socket.send_to(&[number], (THERE, 7)).unwrap();
    }
    socket.send_to(&[9; 200], (THERE, 7)).unwrap();
    socket.send_to(&[5], (THERE, 7)).unwrap();

    block_on(async {
        let queue = device.queue(0).unwrap().open().unwrap();
        let mut batch = Batch::new(BatchLayout { packets: 4, packet: 100, ..BatchLayout::default() }, 0);
        let mut seen = Vec::new();
        while seen.len() < 6 {
            queue.readable().await.unwrap();
            queue.try_read_batch(&mut batch).unwrap();
            assert!(batch.len() <= 4);
            seen.extend(batch.iter().map(|packet| payload(packet)[0]));
            batch.clear();
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        assert_eq!(batch.refused(), 1, "the 228 bytes did not fit into 100");
    });
}

#[test]
fn every_queue_carries_packets_both_ways() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, mut device) = laboratory(&DeviceBuilder::new("tun0").queues(4));
    assert_eq!(device.queues().iter().map(|queue| queue.number()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    device.resize(6).unwrap();
    device.resize(3).unwrap();
    assert_eq!(device.queues().len(), 3);

    // The kernel spreads flows by a hash: with 200 flows an empty one of three queues is a matter of 10^-35.
    let sockets: Vec<_> = (0..200).map(|_| socket(&namespace)).collect();
    for socket in &sockets {
        socket.send_to(b"flow", (THERE, 7)).unwrap();
    }
    block_on(async {
        let mut total = 0;
        for handle in device.queues() {
            let queue = handle.open().unwrap();
            let mut buffer = [0; 1500];
            queue.readable().await.unwrap();
            while let Some(length) = queue.try_read(&mut buffer).unwrap() {
                assert_eq!(queue.try_write(&turned_round(&buffer[..length])).unwrap(), Written::Done);
                total += 1;
            }
        }
        assert_eq!(total, 200);
    });
    for socket in &sockets {
        let mut answer = [0; 16];
        assert_eq!(socket.recv_from(&mut answer).unwrap().0, 4);
    }
}

#[test]
fn a_program_decides_which_queue_a_packet_comes_to_until_it_is_taken_away() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, mut device) = laboratory(&DeviceBuilder::new("nat0").queues(4));
    // The context into register 6, the half word at the destination port into 0, and the end.
    let by_port = [
        Instruction::new(0xbf, (6, 1), 0, 0),
        Instruction::new(0x28, (0, 0), 0, 22),
        Instruction::new(0x95, (0, 0), 0, 0),
    ];
    let broken = Steering::load("broken", &by_port[..2]).expect_err("it does not end");
    assert!(
        matches!(&broken, Error::System { action, .. } if action.ends_with("program broken")),
        "{broken}"
    );
    device.steer(Some(&Steering::load("by_port", &by_port).unwrap())).unwrap();
    let socket = socket(&namespace);
    let comes_to = |device: &Device, port: u16| {
        socket.send_to(b"here", (THERE, port)).unwrap();
        let mut buffer = [0; 1500];
        let came = device.queues().iter().map(|queue| queue.try_read(&mut buffer).unwrap().is_some());
        let came: Vec<_> = came.enumerate().filter_map(|(number, came)| came.then_some(number)).collect();
        let [number] = came[..] else { panic!("it came to {came:?}") };
        number
    };
    for port in 1..20 {
        assert_eq!(comes_to(&device, port), usize::from(port) % 4);
    }
    // The program stays, and its answer counts modulo what there is.
    device.resize(3).unwrap();
    for port in 1..20 {
        assert_eq!(comes_to(&device, port), usize::from(port) % 3);
    }
    device.steer(None).unwrap();
    let by_hash: Vec<_> = (1..20).map(|port| comes_to(&device, port)).collect();
    assert_ne!(by_hash, (1..20).map(|port| port % 3).collect::<Vec<_>>());
}

#[test]
fn packets_that_arrive_while_no_worker_lives_are_read_by_its_successor() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&DeviceBuilder::new("tun0"));
    let socket = socket(&namespace);
    let handle = device.queue(0).unwrap();
    let mut buffer = [0; 1500];
    block_on(async {
        let queue = handle.open().unwrap();
        socket.send_to(b"first", (THERE, 7)).unwrap();
        queue.read(&mut buffer).await.unwrap();
    });
    // The worker's runtime is gone, and its end of the queue with it.
    socket.send_to(b"meanwhile", (THERE, 7)).unwrap();
    block_on(async {
        let queue = handle.open().unwrap();
        let length = queue.read(&mut buffer).await.unwrap();
        assert_eq!(payload(&buffer[..length]), b"meanwhile");
    });
}

#[test]
fn a_handle_alone_keeps_the_device_and_its_last_one_takes_it_away() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&DeviceBuilder::new("tun0"));
    let handle = std::sync::Arc::clone(device.queue(0).unwrap());
    drop(device);
    assert!(namespace.index("tun0").is_ok());
    drop(handle);
    assert!(namespace.index("tun0").is_err());
}

#[test]
fn a_persistent_device_is_adopted_with_another_number_of_queues_and_given_up_again() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&DeviceBuilder::new("tun0").queues(2).persist(true));
    let index = device.index();
    drop(device);
    assert_eq!(namespace.index("tun0").unwrap(), index, "it stays without a descriptor");

    let device =
        namespace.run(|| DeviceBuilder::new("tun0").queues(3).mtu(1300).persist(true).build()).unwrap();
    assert!(device.adopted());
    assert_eq!((device.index(), device.mtu().unwrap(), device.queues().len()), (index, 1300, 3));
    let socket = socket(&namespace);
    socket.send_to(b"still configured", (THERE, 7)).unwrap();
    let read = block_on(async {
        let queues: Vec<_> = device.queues().iter().map(|handle| handle.open().unwrap()).collect();
        let mut buffer = [0; 1500];
        tokio::select! {
            answer = queues[0].readable() => answer,
            answer = queues[1].readable() => answer,
            answer = queues[2].readable() => answer,
        }
        .unwrap();
        queues.iter().find_map(|queue| queue.try_read(&mut buffer).unwrap())
    });
    assert_eq!(read, Some(28 + 16));

    device.set_persist(false).unwrap();
    drop(device);
    assert!(namespace.index("tun0").is_err());
}

#[test]
fn a_device_in_use_is_refused_and_goes_on_working() {
    if !kernel_tests_possible() {
        return;
    }
    for persist in [false, true] {
        let (namespace, device) = laboratory(&DeviceBuilder::new("tun0").queues(2).persist(persist));
        let error = namespace.run(|| DeviceBuilder::new("tun0").queues(2).build()).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error:?}");
        assert!(error.to_string().contains("tun0 is in use by another process"), "{error}");
        assert_eq!(device.mtu().unwrap(), 1500);
    }
}

#[test]
fn links_of_another_kind_are_refused_by_name() {
    if !kernel_tests_possible() {
        return;
    }
    let a = Namespace::new("a").unwrap();
    netlab::veth(&a, "veth0", &a, "veth1", 1500).unwrap();
    for name in ["lo", "veth0"] {
        let error = a.run(|| DeviceBuilder::new(name).build()).unwrap_err();
        assert!(matches!(error, Error::NotOurKind { .. }), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_single_queue_tun_device_is_refused_by_name() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("a").unwrap();
    let _other = namespace.run(|| {
        let mut configuration = tun::Configuration::default();
        configuration.tun_name("tun0");
        tun::create(&configuration).unwrap()
    });
    let error = namespace.run(|| DeviceBuilder::new("tun0").build()).unwrap_err();
    assert!(matches!(error, Error::NotOurKind { .. }), "{error:?}");
}

#[test]
fn bad_counts_names_and_sizes_are_refused() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("a").unwrap();
    namespace.run(|| {
        let count = |queues| DeviceBuilder::new("tun0").queues(queues).build().unwrap_err();
        assert!(matches!(count(0), Error::QueueCount { asked: 0, most: 256 }));
        assert!(matches!(count(257), Error::QueueCount { asked: 257, most: 256 }));
        assert!(matches!(DeviceBuilder::new("a/b").build(), Err(Error::BadName { .. })));
        let error = DeviceBuilder::new("tun0").mtu(10).build().unwrap_err();
        assert!(error.to_string().contains("tun0 cannot have an MTU of 10 bytes"), "{error}");
    });
    assert!(namespace.index("tun0").is_err(), "a device that was refused is not left behind");
}

#[test]
fn the_most_queues_that_are_promised_can_be_had() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("a").unwrap();
    let device = namespace.run(|| DeviceBuilder::new("tun0").queues(256).build()).unwrap();
    assert_eq!(device.queues().len(), 256);
}

#[test]
fn what_the_kernel_refuses_to_take_is_an_error_and_the_queue_lives_on() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&DeviceBuilder::new("tun0"));
    let socket = socket(&namespace);
    block_on(async {
        let queue = device.queue(0).unwrap().open().unwrap();
        for bad in [&[][..], &[0x10; 20]] {
            assert_eq!(queue.try_write(bad).unwrap_err().raw_os_error(), Some(libc::EINVAL), "{bad:?}");
        }
        namespace.down("tun0").unwrap();
        assert_eq!(queue.try_write(&[0x45; 20]).unwrap_err().raw_os_error(), Some(libc::EIO));
        namespace.up("tun0").unwrap();
        socket.send_to(b"again", (THERE, 7)).unwrap();
        let mut buffer = [0; 1500];
        let length = queue.read(&mut buffer).await.unwrap();
        assert_eq!(payload(&buffer[..length]), b"again");
    });
}

#[test]
fn a_reader_that_waits_is_told_when_the_device_is_deleted() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&DeviceBuilder::new("tun0"));
    let error = block_on(async {
        let queue = device.queue(0).unwrap().open().unwrap();
        let waiting = tokio::spawn(async move { queue.read(&mut [0; 1500]).await });
        tokio::task::yield_now().await;
        namespace.delete_link("tun0").unwrap();
        waiting.await.unwrap().unwrap_err()
    });
    assert_eq!(error.raw_os_error(), Some(libc::EBADFD));
}

#[test]
fn opening_a_queue_outside_a_runtime_is_an_error() {
    if !kernel_tests_possible() {
        return;
    }
    let (_namespace, device) = laboratory(&DeviceBuilder::new("tun0"));
    assert!(device.queue(0).unwrap().open().unwrap_err().to_string().contains("tokio runtime"));
}

#[test]
fn the_other_address_family_goes_through_the_same_queue() {
    if !kernel_tests_possible() {
        return;
    }
    let namespace = Namespace::new("tun").unwrap();
    let device = namespace.run(|| DeviceBuilder::new("tun0").build()).unwrap();
    namespace.add_address("tun0", "2001:db8::1/64".parse::<ipnet::Ipv6Net>().unwrap()).unwrap();
    namespace.up("tun0").unwrap();
    let there: IpAddr = "2001:db8::2".parse().unwrap();
    let socket = namespace.run(|| UdpSocket::bind("[2001:db8::1]:0").unwrap());
    socket.send_to(b"six", (there, 7)).unwrap();
    block_on(async {
        let queue = device.queue(0).unwrap().open().unwrap();
        let mut buffer = [0; 1500];
        // The kernel's own router solicitations and multicast reports come by here too.
        loop {
            let length = queue.read(&mut buffer).await.unwrap();
            if buffer[0] >> 4 == 6 && buffer[6] == 17 {
                assert_eq!(&buffer[48..length], b"six");
                break;
            }
        }
    });
}
