//! The running router's part.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::link::{Link, Manifest, VERSION};
use super::store;
use crate::shared::Shared;

/// Who wants to take over, if anybody does. `control` puts somebody in, and the run takes him out.
#[derive(Debug, Default)]
pub struct Requests {
    waiting: Mutex<Option<UnixStream>>,
    bell: Notify,
}

impl Requests {
    /// Whether this router may be asked for that in this version; why not.
    pub(crate) fn refusal(&self, version: u16) -> Option<String> {
        if version != VERSION {
            return Some(format!(
                "this router hands over in version {VERSION} and not {version}; end it, and start the other"
            ));
        }
        if store::is_there() {
            let message = "a service manager runs this router and would start it again; restart it by that (systemctl restart)";
            return Some(message.to_owned());
        }
        self.waiting.lock().is_some().then(|| "another one is taking over already".to_owned())
    }

    /// Somebody who waits for the answer of this connection. Nothing of it may have been read.
    pub(crate) fn put(&self, stream: UnixStream) {
        *self.waiting.lock() = Some(stream);
        self.bell.notify_one();
    }

    /// Ready when somebody waits.
    pub(crate) async fn wait(&self) -> UnixStream {
        loop {
            self.bell.notified().await;
            if let Some(stream) = self.waiting.lock().take() {
                return stream;
            }
        }
    }
}

/// Hands everything over to whoever waits at this connection. To be called when nothing of this router moves any more. With an error it
/// must go on: the other one cannot have started.
pub(crate) fn give(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let mut link = Link::new(stream)?;
    let metrics = shared.metrics_listener.load_full();
    let lock = shared.state.lock();
    let manifest = Manifest {
        pid: std::process::id(),
        queues: shared.queues.len(),
        metrics: metrics.is_some(),
        control: shared.control_socket.is_some(),
        lock: lock.is_some(),
    };
    let mut descriptors: Vec<BorrowedFd<'_>> = shared.queues.iter().map(|queue| queue.as_fd()).collect();
    descriptors.extend(metrics.as_ref().map(|listener| listener.as_fd()));
    descriptors.extend(shared.control_socket.as_ref().map(|socket| socket.listener.as_fd()));
    descriptors.extend(lock.as_ref().map(|lock| lock.as_fd()));
    link.give(&manifest, &descriptors)?;
    let taken = link.wait()?;
    if let Some(socket) = shared.control_socket.as_ref().filter(|_| taken.control) {
        socket.set_owned(false);
    }
    Ok(())
}
