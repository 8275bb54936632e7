//! Queues that were kept open while nobody read them, on real devices in network namespaces.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};

use easy_tun::{Device, DeviceBuilder, Error, HEADER, HeldQueue, Offloads};
use ipnet::Ipv4Net;
use netlab::{Namespace, kernel_tests_possible};

const HERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

fn builder(queues: usize) -> DeviceBuilder {
    DeviceBuilder::new("tun0").queues(queues).persist(true)
}

fn laboratory(builder: &DeviceBuilder) -> (Namespace, Device) {
    let namespace = Namespace::new("held").unwrap();
    namespace.sysctl("net.ipv6.conf.default.disable_ipv6", "1").unwrap();
    let device = namespace.run(|| builder.build()).unwrap();
    namespace.add_address("tun0", Ipv4Net::new_assert(HERE, 24)).unwrap();
    namespace.up("tun0").unwrap();
    (namespace, device)
}

/// What somebody else has of the queues after their process has gone.
#[allow(clippy::needless_pass_by_value, reason = "its own hold on the queues goes")]
fn keep(device: Device) -> Vec<OwnedFd> {
    device.queues().iter().map(|queue| queue.as_fd().try_clone_to_owned().unwrap()).collect()
}

fn check(kept: Vec<OwnedFd>) -> Vec<HeldQueue> {
    kept.into_iter().map(|fd| HeldQueue::check(fd).unwrap()).collect()
}

/// Many flows, so that each queue has some.
fn send(namespace: &Namespace, flows: usize) {
    for _ in 0..flows {
        let socket = namespace.run(|| UdpSocket::bind((HERE, 0)).unwrap());
        socket.send_to(b"hello", (THERE, 7)).unwrap();
    }
}

/// What waits in each queue. No thread waits for more: all are there when they have been sent.
fn waiting(device: &Device) -> Vec<usize> {
    let count = |queue: &std::sync::Arc<easy_tun::QueueHandle>| {
        let mut buffer = [0; 2000];
        (0..1000).take_while(|_| queue.try_read(&mut buffer).unwrap().is_some()).count()
    };
    device.queues().iter().map(count).collect()
}

#[test]
fn what_came_while_nobody_read_is_read_by_who_takes_the_queues_over() {
    if !kernel_tests_possible() {
        return;
    }
    for (offloads, header) in [(Offloads::empty(), 0), (Offloads::all(), HEADER)] {
        let builder = builder(2).offloads(offloads);
        let (namespace, device) = laboratory(&builder);
        let index = device.index();
        // One that waits in the read leaves its queue so.
        nix::fcntl::fcntl(
            device.queues()[0].as_fd(),
            nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
        )
        .unwrap();
        let kept = keep(device);
        send(&namespace, 64);
        let held = namespace.run(|| check(kept));
        assert!(held.iter().all(|queue| queue.device() == "tun0" && queue.header() == (header > 0)));
        let (device, excess) = namespace.run(|| builder.build_from(held)).unwrap();
        assert!(device.adopted() && excess.is_empty());
        assert_eq!((device.index(), device.queues()[0].header()), (index, header));
        let waiting = waiting(&device);
        assert_eq!(waiting.iter().sum::<usize>(), 64, "{waiting:?}");
        assert!(waiting.iter().all(|waiting| *waiting > 0), "both queues have some: {waiting:?}");
    }
}

#[test]
fn another_number_of_queues_attaches_what_lacks_and_gives_back_what_is_too_much() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&builder(2));
    let kept = keep(device);
    send(&namespace, 16);
    let (device, excess) = namespace.run(|| builder(3).build_from(check(kept))).unwrap();
    assert_eq!((device.queues().len(), excess.len()), (3, 0));
    assert_eq!(waiting(&device).iter().sum::<usize>(), 16);
    send(&namespace, 64);
    assert!(waiting(&device).iter().all(|waiting| *waiting > 0), "the new one gets packets");

    let kept = keep(device);
    // A service manager has them still.
    let stored: Vec<_> = kept.iter().map(|fd| fd.try_clone().unwrap()).collect();
    let (device, excess) = namespace.run(|| builder(1).build_from(check(kept))).unwrap();
    assert_eq!((device.queues().len(), excess.len()), (1, 2));
    for queue in excess {
        queue.detach().unwrap();
    }
    send(&namespace, 64);
    assert_eq!(waiting(&device), [64], "no packet goes where nobody reads");
    let gone = HeldQueue::check(stored.into_iter().next_back().unwrap()).unwrap_err();
    assert_eq!(gone.to_string(), "it was detached from its device");
}

#[test]
fn what_is_no_queue_of_this_device_is_not_taken() {
    if !kernel_tests_possible() {
        return;
    }
    let (namespace, device) = laboratory(&builder(1));
    let said = |fd: OwnedFd| HeldQueue::check(fd).unwrap_err().to_string();
    assert_eq!(said(std::fs::File::open("/dev/null").unwrap().into()), "it is no queue of a TUN device");
    let socket: OwnedFd = UdpSocket::bind("127.0.0.1:0").unwrap().into();
    assert_eq!(said(socket), "it is no queue of a TUN device");
    let kept = || device.queues()[0].as_fd().try_clone_to_owned().unwrap();
    let elsewhere = Namespace::new("other").unwrap();
    assert_eq!(elsewhere.run(|| said(kept())), "its device is in another network namespace");
    // Of another device: it is closed, and the device is made as ever.
    let other = namespace.run(|| DeviceBuilder::new("tun1").build()).unwrap();
    let held = namespace.run(|| check(keep(other)));
    let (third, _) = namespace.run(|| DeviceBuilder::new("tun2").build_from(held)).unwrap();
    assert!(!third.adopted() && namespace.index("tun1").is_err(), "its last descriptor was closed");
    // Somebody reads along.
    let held = namespace.run(|| check(vec![kept()]));
    let reader = namespace.run(|| easy_tun_attach(&device));
    let refused = namespace.run(|| builder(1).build_from(held)).unwrap_err();
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    drop(reader);
    namespace.delete_link("tun0").unwrap();
    assert_eq!(said(kept()), "its device was deleted");
}

/// One queue more, by somebody who does not say so.
fn easy_tun_attach(device: &Device) -> OwnedFd {
    // Taken over with one queue more, and only that one kept.
    let held = check(vec![device.queues()[0].as_fd().try_clone_to_owned().unwrap()]);
    let (more, _) = DeviceBuilder::new(device.name()).queues(2).persist(true).build_from(held).unwrap();
    more.queues()[1].as_fd().try_clone_to_owned().unwrap()
}
