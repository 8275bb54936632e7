//! The fake device behaves like a real one towards the worker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use easy_tun::{Batch, BatchLayout, FakeDevice, Full, OpenQueue, PacketIo, Written};

const LIMIT: Duration = Duration::from_secs(20);
const PACKET: [u8; 20] = [0x45; 20];

#[tokio::test]
async fn a_worker_reads_what_was_injected_and_its_answer_is_collected() {
    let device = FakeDevice::new(2, 4);
    let queue = device.queue(1).unwrap().open().unwrap();
    let worker = tokio::spawn(async move {
        let mut buffer = [0; 64];
        let length = queue.read(&mut buffer).await.unwrap();
        queue.write(&buffer[..length]).await.unwrap();
    });
    device.inject(1, PACKET).unwrap();
    assert_eq!(device.collect_within(1, LIMIT).await.unwrap(), PACKET);
    assert_eq!(device.collect(0), None, "the other queue stays empty");
    worker.await.unwrap();
}

#[tokio::test]
async fn a_full_queue_refuses_from_both_sides_and_takes_again_when_emptied() {
    let device = FakeDevice::new(1, 1);
    let queue = device.queue(0).unwrap().open().unwrap();
    device.inject(0, PACKET).unwrap();
    assert_eq!(device.inject(0, PACKET), Err(Full));

    assert_eq!(queue.try_write(&PACKET).unwrap(), Written::Done);
    assert_eq!(queue.try_write(&PACKET).unwrap(), Written::WouldBlock);
    let waiting = tokio::spawn(async move { queue.write(&PACKET).await });
    assert!(device.collect_within(0, LIMIT).await.is_some());
    tokio::time::timeout(LIMIT, waiting).await.expect("the writer is woken").unwrap().unwrap();
    assert!(device.collect(0).is_some());
}

#[tokio::test]
async fn a_successor_reads_what_arrived_while_no_worker_lived() {
    let device = FakeDevice::new(1, 4);
    let handle = device.queue(0).unwrap();
    drop(handle.open().unwrap());
    device.inject(0, PACKET).unwrap();
    assert_eq!(device.unread(0), 1);
    let mut buffer = [0; 64];
    assert_eq!(handle.open().unwrap().try_read(&mut buffer).unwrap(), Some(20));
    assert_eq!(device.unread(0), 0);
}

#[tokio::test]
async fn errors_wake_whoever_waits_and_heal() {
    let device = FakeDevice::new(1, 4);
    let queue = device.queue(0).unwrap().open().unwrap();
    let waiting = tokio::spawn(async move { (queue.read(&mut [0; 64]).await, queue) });
    tokio::task::yield_now().await;
    device.fail(0, libc::EBADFD, libc::EIO);
    let (answer, queue) = tokio::time::timeout(LIMIT, waiting).await.expect("the reader is woken").unwrap();
    assert_eq!(answer.unwrap_err().raw_os_error(), Some(libc::EBADFD));
    assert_eq!(queue.try_write(&PACKET).unwrap_err().raw_os_error(), Some(libc::EIO));
    assert_eq!(device.collect_within(0, Duration::from_millis(1)).await, None, "and collecting still ends");
    device.fail(0, 0, 0);
    assert_eq!(queue.try_read(&mut [0; 64]).unwrap(), None);
    assert_eq!(queue.try_write(&PACKET).unwrap(), Written::Done);
}

#[tokio::test]
async fn batches_stop_at_their_bound_and_at_an_error() {
    let device = FakeDevice::new(1, 8);
    let queue = device.queue(0).unwrap().open().unwrap();
    for number in 0..6 {
        device.inject(0, [&[0x45, number][..], &[0; 18]].concat()).unwrap();
    }
    let mut batch = Batch::new(BatchLayout { packets: 4, packet: 32, headroom: 28, bytes: 4096 }, 0);
    assert_eq!(queue.try_read_batch(&mut batch).unwrap(), 4);
    assert_eq!(queue.try_read_batch(&mut batch).unwrap(), 0, "a full batch reads nothing");
    assert_eq!(queue.try_write_batch(batch.frames()).unwrap(), 4);
    batch.clear();
    assert_eq!(queue.try_read_batch(&mut batch).unwrap(), 2);
    device.fail(0, libc::EBADFD, 0);
    assert_eq!(queue.try_read_batch(&mut batch).unwrap_err().raw_os_error(), Some(libc::EBADFD));
    for number in 0..4 {
        assert_eq!(device.collect(0).unwrap()[1], number);
    }
}

#[tokio::test]
async fn what_is_no_ip_packet_is_refused_like_by_the_kernel() {
    let device = FakeDevice::new(1, 1);
    let queue = device.queue(0).unwrap().open().unwrap();
    for bad in [&[][..], &[0x10; 20]] {
        assert_eq!(queue.try_write(bad).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
    assert_eq!(device.collect(0), None);
}

#[tokio::test]
async fn a_short_buffer_cuts_the_packet() {
    let device = FakeDevice::new(1, 1);
    let queue = device.queue(0).unwrap().open().unwrap();
    device.inject(0, PACKET).unwrap();
    assert_eq!(queue.try_read(&mut [0; 8]).unwrap(), Some(8));
    assert_eq!(queue.try_read(&mut [0; 8]).unwrap(), None, "the rest is gone");
}
