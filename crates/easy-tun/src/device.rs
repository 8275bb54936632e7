//! A TUN device and its queues.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use tun::AbstractDevice;

use crate::{Error, HeldQueue, Offloads, QueueHandle, Steering, name, sys};

/// The most queues that Linux allows on one TUN device (`MAX_TAP_QUEUES`).
pub const MAX_QUEUES: usize = 256;

/// What device is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceBuilder {
    /// The interface's name, 1 to 15 bytes; the kernel puts the next free number in the place of a `%d`.
    pub name: String,
    /// The MTU in bytes; `None` leaves what the kernel chooses (1500) or an adopted device has.
    pub mtu: Option<u16>,
    /// How many queues, 1 to [`MAX_QUEUES`].
    pub queues: usize,
    /// Whether the device, its addresses and its routes stay when the last descriptor is closed. An adopted device
    /// takes this value too.
    pub persist: bool,
    /// What the kernel may leave to whoever reads the queues. With any of these each packet has a header of
    /// [`HEADER`](crate::HEADER) bytes in front.
    pub offloads: Offloads,
}

impl DeviceBuilder {
    /// A device with one queue and without offloads that goes away with its last descriptor.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), mtu: None, queues: 1, persist: false, offloads: Offloads::empty() }
    }

    /// Sets [`Self::mtu`].
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// Sets [`Self::queues`].
    #[must_use]
    pub fn queues(mut self, queues: usize) -> Self {
        self.queues = queues;
        self
    }

    /// Sets [`Self::persist`].
    #[must_use]
    pub fn persist(mut self, persist: bool) -> Self {
        self.persist = persist;
        self
    }

    /// Sets [`Self::offloads`]. What the kernel does not know is left out: [`Device::offloads`] says what is on.
    #[must_use]
    pub fn offloads(mut self, offloads: Offloads) -> Self {
        self.offloads = offloads;
        self
    }

    /// Makes the device in the calling thread's network namespace, or adopts a multi-queue TUN device of that name
    /// that was left persistent and that nobody uses. The link is left down and without addresses if it is new, and
    /// as it is if it is adopted.
    pub fn build(&self) -> Result<Device, Error> {
        name::check(&self.name)?;
        if self.queues == 0 || self.queues > MAX_QUEUES {
            return Err(Error::QueueCount { asked: self.queues, most: MAX_QUEUES });
        }
        let first = open_node()?;
        let header = !self.offloads.is_empty() && sys::knows_header(first.as_fd());
        let (name, adopted) = match sys::attach(first.as_fd(), &self.name, true, header) {
            Ok(name) => (name, false),
            Err(Errno::EBUSY) => {
                let name = sys::attach(first.as_fd(), &self.name, false, header)
                    .map_err(|errno| refused(&self.name, 1, errno))?;
                (name, true)
            }
            Err(errno) => return Err(refused(&self.name, 1, errno)),
        };
        let mut queues = vec![Arc::new(QueueHandle::new(first, 0, header))];
        for number in 1..self.queues {
            queues.push(attach_next(&name, number, header)?);
        }
        // A multi-queue device lets any process add queues, and would then share out the flows among strangers.
        if adopted && sys::attached_queues(&name).is_some_and(|attached| attached > queues.len()) {
            return Err(Error::InUse { name });
        }
        self.finish(name, queues, adopted, header)
    }

    /// The same by queues of the device that were kept open: what waits in them is read first. Queues of other devices are closed, what
    /// lacks is attached, and what is too much comes back: to be [detached](HeldQueue::detach) once nobody else needs it. Whether packets
    /// have a header stays as it is with the device. Without any queue that was kept this is [`Self::build`].
    pub fn build_from(&self, mut held: Vec<HeldQueue>) -> Result<(Device, Vec<HeldQueue>), Error> {
        name::check(&self.name)?;
        if self.queues == 0 || self.queues > MAX_QUEUES {
            return Err(Error::QueueCount { asked: self.queues, most: MAX_QUEUES });
        }
        held.retain(|queue| queue.device() == self.name);
        let Some(header) = held.first().map(HeldQueue::header) else { return Ok((self.build()?, held)) };
        let excess = held.split_off(self.queues.min(held.len()));
        let mut queues = Vec::with_capacity(self.queues);
        for (number, queue) in held.into_iter().enumerate() {
            let fd = queue.into_fd();
            // Whoever had it may have waited in the read.
            sys::set_nonblocking(&fd, true).map_err(|errno| {
                Error::system(format!("setting up queue {number} of {}", self.name), errno)
            })?;
            queues.push(Arc::new(QueueHandle::new(fd, number, header)));
        }
        for number in queues.len()..self.queues {
            queues.push(attach_next(&self.name, number, header)?);
        }
        let known = queues.len() + excess.len();
        if sys::attached_queues(&self.name).is_some_and(|attached| attached > known) {
            return Err(Error::InUse { name: self.name.clone() });
        }
        Ok((self.finish(self.name.clone(), queues, true, header)?, excess))
    }

    fn finish(
        &self,
        name: String,
        queues: Vec<Arc<QueueHandle>>,
        adopted: bool,
        header: bool,
    ) -> Result<Device, Error> {
        let mut control = control(&name, &queues[0])?;
        let index = control
            .tun_index()
            .map_err(|error| system(format!("looking up the index of {name}"), error))?
            .cast_unsigned();
        if let Some(mtu) = self.mtu {
            set_mtu(&mut control, &name, mtu)?;
        }
        let offloads = offloads(if header { self.offloads } else { Offloads::empty() }, header, &queues[0])
            .map_err(|errno| Error::system(format!("setting the offloads of {name}"), errno))?;
        if adopted {
            // A queue that was kept has the limit that was set on it, and one that is attached now has none: the limit is each queue's. The call
            // sets it for all that are attached.
            sys::unlimit_send_buffer(queues[0].as_fd())
                .map_err(|errno| Error::system(format!("setting the send buffer of {name}"), errno))?;
        }
        let device = Device { control, name, index, queues, adopted, offloads };
        device.set_persist(self.persist)?;
        Ok(device)
    }
}

/// A TUN device. Dropping it closes its own hold on the queues; each [`QueueHandle`] keeps its queue, and the device
/// with it, until that is dropped too.
pub struct Device {
    // Adopted by `raw_fd` with `close_fd_on_drop(false)`: `queues` owns the descriptor, and is dropped after it.
    control: tun::Device,
    name: String,
    index: u32,
    queues: Vec<Arc<QueueHandle>>,
    adopted: bool,
    offloads: Offloads,
}

impl Device {
    /// The interface's name, as the kernel says it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interface's index in its network namespace.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the device existed before and was taken over.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// What the kernel granted of the offloads that were asked for.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    /// All queues, by number.
    pub fn queues(&self) -> &[Arc<QueueHandle>] {
        &self.queues
    }

    /// One queue by its number.
    pub fn queue(&self, number: usize) -> Option<&Arc<QueueHandle>> {
        self.queues.get(number)
    }

    /// Changes the number of queues. Queues that are taken away stop getting packets when their last handle and
    /// their last [`crate::AsyncQueue`] are dropped; at least one stays. After an error the queues added so far stay.
    pub fn resize(&mut self, queues: usize) -> Result<(), Error> {
        if queues == 0 || queues > MAX_QUEUES {
            return Err(Error::QueueCount { asked: queues, most: MAX_QUEUES });
        }
        self.queues.truncate(queues);
        let header = self.queues[0].header() > 0;
        for number in self.queues.len()..queues {
            self.queues.push(attach_next(&self.name, number, header)?);
        }
        Ok(())
    }

    /// The MTU in bytes.
    pub fn mtu(&self) -> Result<u16, Error> {
        self.control.mtu().map_err(|error| system(format!("reading the MTU of {}", self.name), error))
    }

    /// Sets the MTU in bytes.
    pub fn set_mtu(&mut self, mtu: u16) -> Result<(), Error> {
        set_mtu(&mut self.control, &self.name, mtu)
    }

    /// Whether the device, its addresses and its routes stay when the last descriptor is closed. A persistent device
    /// that nobody has open drops packets silently.
    pub fn set_persist(&self, persist: bool) -> Result<(), Error> {
        sys::set_persist(self.queues[0].as_fd(), persist)
            .map_err(|errno| Error::system(format!("setting the persistence of {}", self.name), errno))
    }

    /// Has a program decide from now on which queue a packet comes to, or (`None`) again how it hashes. The program stays with a
    /// persistent device.
    pub fn steer(&self, steering: Option<&Steering>) -> Result<(), Error> {
        Steering::set(self.queues[0].as_fd(), steering)
            .map_err(|errno| Error::system(format!("setting the steering program of {}", self.name), errno))
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name)
            .field("index", &self.index)
            .field("queues", &self.queues)
            .field("adopted", &self.adopted)
            .field("offloads", &self.offloads)
            .finish_non_exhaustive()
    }
}

/// One more queue. The header is the whole device's, so that each queue must ask for it like the first one.
fn attach_next(name: &str, number: usize, header: bool) -> Result<Arc<QueueHandle>, Error> {
    let next = open_node()?;
    sys::attach(next.as_fd(), name, false, header).map_err(|errno| refused(name, number + 1, errno))?;
    Ok(Arc::new(QueueHandle::new(next, number, header)))
}

/// Offloads are the whole device's, and stay with a persistent one: what is not asked for is turned off.
fn offloads(wanted: Offloads, header: bool, queue: &QueueHandle) -> nix::Result<Offloads> {
    if header {
        sys::set_header(queue.as_fd())?;
    }
    wanted.request(queue.as_fd())
}

fn control(name: &str, queue: &QueueHandle) -> Result<tun::Device, Error> {
    let mut adopt = tun::Configuration::default();
    adopt.tun_name(name).raw_fd(queue.as_fd().as_raw_fd()).close_fd_on_drop(false);
    tun::create(&adopt).map_err(|error| system(format!("adopting {name}"), error))
}

fn set_mtu(control: &mut tun::Device, name: &str, mtu: u16) -> Result<(), Error> {
    control.set_mtu(mtu).map_err(|error| Error::Mtu { name: name.to_owned(), mtu, reason: error.to_string() })
}

fn system(action: String, error: tun::Error) -> Error {
    match error {
        tun::Error::Io(source) => Error::System { action, source },
        error => Error::System { action, source: std::io::Error::other(error) },
    }
}

fn open_node() -> Result<OwnedFd, Error> {
    sys::open_node().map_err(|errno| match errno {
        Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => Error::NodeMissing,
        Errno::EPERM | Errno::EACCES => Error::NodeForbidden { source: errno.into() },
        errno => Error::system("opening /dev/net/tun", errno),
    })
}

/// What `TUNSETIFF` means by its error numbers (`tun_set_iff` and `tun_attach` in `drivers/net/tun.c`).
fn refused(name: &str, queue: usize, errno: Errno) -> Error {
    let name = name.to_owned();
    match errno {
        Errno::EPERM => Error::NotPermitted { name },
        Errno::EBUSY => Error::InUse { name },
        Errno::EINVAL => Error::NotOurKind { name },
        Errno::E2BIG => Error::QueueCount { asked: queue, most: queue - 1 },
        errno => Error::system(format!("attaching queue {queue} to {name}"), errno),
    }
}
