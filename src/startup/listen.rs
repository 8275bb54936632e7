//! What a start listens at: the address for metrics, and the control socket.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use slog::{Logger, warn};

use super::StartError;
use crate::actors::control::socket::ControlSocket as Socket;
use crate::config::{ControlSocket, DEFAULT_PROMETHEUS, Prometheus, Settings, control_socket_of};

/// Opens the address for metrics. That the default one is taken (a second router on this host) is no reason not to start.
///
/// `theirs`: the listener of the router before, which it is gone on with where it listens there.
pub(super) fn metrics(
    wanted: Prometheus,
    theirs: Option<TcpListener>,
    log: &Logger,
) -> Result<Option<TcpListener>, StartError> {
    let theirs = theirs.filter(|theirs| theirs.local_addr().ok().as_ref() == wanted.address().as_ref());
    if theirs.is_some() {
        return Ok(theirs);
    }
    match wanted {
        Prometheus::Off => Ok(None),
        Prometheus::At(address) => {
            TcpListener::bind(address).map(Some).map_err(|source| StartError::Listen { address, source })
        }
        Prometheus::Default => match TcpListener::bind(DEFAULT_PROMETHEUS) {
            Ok(listener) => Ok(Some(listener)),
            Err(error) => {
                warn!(log, "no metrics: the default address cannot be had; choose another with --prometheus";
                    "address" => %DEFAULT_PROMETHEUS, "because" => %error);
                Ok(None)
            }
        },
    }
}

/// Opens the control socket. That the default one cannot be had (a second router of this name in another network namespace, or a
/// read-only /run) is no reason not to start.
pub(super) fn control_socket(
    settings: &Settings,
    theirs: Option<UnixListener>,
    log: &Logger,
) -> Result<Option<Socket>, StartError> {
    let path = match &settings.control_socket {
        ControlSocket::Off => None,
        ControlSocket::At(path) => Some(path.clone()),
        ControlSocket::Default => Some(control_socket_of(&settings.interface)),
    };
    let adopted = path.zip(theirs).and_then(|(path, theirs)| Socket::adopt(theirs, &path));
    if adopted.is_some() {
        return Ok(adopted);
    }
    match &settings.control_socket {
        ControlSocket::Off => Ok(None),
        ControlSocket::At(path) => Ok(Some(Socket::bind(path)?)),
        ControlSocket::Default => match Socket::bind(&control_socket_of(&settings.interface)) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => {
                warn!(log, "nobody can control this router"; "because" => %error);
                Ok(None)
            }
        },
    }
}
