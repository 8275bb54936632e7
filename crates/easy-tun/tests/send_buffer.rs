//! A limit of what may be under way of what was written, which somebody has left on a device.
#![allow(clippy::unwrap_used, clippy::panic)]
#![allow(unsafe_code, reason = "no crate sets this limit")]

use std::os::fd::{AsFd as _, AsRawFd as _};

use easy_tun::{Device, DeviceBuilder, HeldQueue};
use netlab::{Namespace, kernel_tests_possible};

mod raw {
    nix::ioctl_read!(tun_get_send_buffer, b'T', 211, libc::c_int);
    nix::ioctl_write_ptr!(tun_set_send_buffer, b'T', 212, libc::c_int);
}

fn limits(device: &Device) -> Vec<i32> {
    let limit = |queue: &std::sync::Arc<easy_tun::QueueHandle>| {
        let mut limit = 0;
        // SAFETY: the kernel writes one integer, which `limit` is.
        unsafe { raw::tun_get_send_buffer(queue.as_fd().as_raw_fd(), &raw mut limit) }.unwrap();
        limit
    };
    device.queues().iter().map(limit).collect()
}

fn limit(device: &Device) {
    // SAFETY: the kernel reads one integer.
    unsafe { raw::tun_set_send_buffer(device.queues()[0].as_fd().as_raw_fd(), &raw const LITTLE) }.unwrap();
    assert_eq!(limits(device), [LITTLE; 2], "it is set for all queues");
}

static LITTLE: i32 = 3000;

/// A write that met it would wait while reads of the queue do.
#[test]
fn an_adopted_device_has_no_limit_of_what_is_under_way_any_more() {
    if !kernel_tests_possible() {
        return;
    }
    Namespace::new("sndbuf").unwrap().run(|| {
        let builder = DeviceBuilder::new("tun0").queues(2).persist(true);
        let device = builder.build().unwrap();
        assert_eq!(limits(&device), [i32::MAX; 2], "what the kernel begins with");
        limit(&device);
        drop(device);
        let device = builder.build().unwrap();
        assert!(device.adopted());
        assert_eq!(limits(&device), [i32::MAX; 2]);
        limit(&device);
        let kept: Vec<_> = device.queues().iter().map(|queue| queue.as_fd().try_clone_to_owned()).collect();
        drop(device);
        let held = kept.into_iter().map(|fd| HeldQueue::check(fd.unwrap()).unwrap()).collect();
        let (device, _) = builder.build_from(held).unwrap();
        assert_eq!(limits(&device), [i32::MAX; 2]);
        device.set_persist(false).unwrap();
    });
}
