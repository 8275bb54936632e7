use super::*;

fn waiting(shared: &Shared) -> Vec<Event> {
    shared.lock().events.iter().copied().collect()
}

#[test]
fn equal_events_that_wait_are_one() {
    let shared = Shared::default();
    for _ in 0..3 {
        shared.push(Event::Link { index: 4 });
        shared.push(Event::Route { link: None });
    }
    assert_eq!(waiting(&shared), [Event::Link { index: 4 }, Event::Route { link: None }]);
}

#[test]
fn more_different_events_than_the_bound_become_one_overrun() {
    let shared = Shared::default();
    for index in 0..10 * u32::try_from(MAX_PENDING).unwrap() {
        shared.push(Event::Link { index });
        assert!(shared.lock().events.len() <= MAX_PENDING);
    }
    assert_eq!(waiting(&shared), [Event::Overrun]);
}

#[test]
fn an_overrun_swallows_what_waits_and_what_follows() {
    let shared = Shared::default();
    shared.push(Event::Address { link: 1 });
    shared.push(Event::Overrun);
    shared.push(Event::Address { link: 2 });
    assert_eq!(waiting(&shared), [Event::Overrun]);
}

#[test]
fn the_kernels_overrun_is_told_from_other_errors() {
    assert!(is_overrun(&io::Error::from_raw_os_error(105)));
    assert!(!is_overrun(&io::Error::from_raw_os_error(4)));
}

#[test]
fn a_datagram_that_cannot_be_read_counts_as_lost_events_and_never_hangs() {
    for datagram in [&[1u8][..], &[0; 16], &[0xff; 64], &[15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]
    {
        let mut events = Vec::new();
        events_in(datagram, |event| events.push(event));
        assert_eq!(events, [Event::Overrun], "{datagram:?}");
    }
}

#[test]
fn every_message_of_a_datagram_is_read() {
    use netlink_packet_route::link::LinkMessage;
    let mut datagram = Vec::new();
    for index in [3, 5] {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.attributes.push(netlink_packet_route::link::LinkAttribute::IfName("odd".into()));
        let mut message = NetlinkMessage::from(RouteNetlinkMessage::NewLink(link));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        datagram.extend(bytes);
    }
    let mut events = Vec::new();
    events_in(&datagram, |event| events.push(event));
    assert_eq!(events, [Event::Link { index: 3 }, Event::Link { index: 5 }]);
}

#[tokio::test]
async fn after_the_socket_closed_what_waits_is_still_handed_out() {
    let shared = Arc::new(Shared::default());
    let mut watcher = Watcher { shared: Arc::clone(&shared), task: tokio::spawn(async {}) };
    shared.push(Event::Link { index: 1 });
    shared.close();
    assert_eq!(watcher.next().await, Some(Event::Link { index: 1 }));
    assert_eq!(watcher.next().await, None);
    assert_eq!(watcher.next().await, None);
}
