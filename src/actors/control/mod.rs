//! `control`: answers and does what is asked by the control socket ([`crate::control`]).
//!
//! Owns nothing but the socket: what it tells is read from [`Shared`], and what is to be done is done by `sessions`. When this
//! actor is down nobody can ask, connections wait in the listener's backlog, and packets flow on.
//!
//! ```text
//!  listener (outlives the actor) ─▶ 16 connections ─▶ peer checked ─▶ one line, one answer ─┬▶ Shared (lists, in steps)
//!                                                                                           └▶ sessions (drop, mappings)
//! ```

mod answers;
mod connection;
mod lists;
mod mappings;
pub mod socket;

use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;

use actix::{Actor, Context};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use slog::{Logger, info, o};
use tokio::net::UnixListener;

use crate::shared::Shared;
use crate::supervision::faults::Point;
use crate::supervision::{Birth, Blueprint};

/// The actor.
#[derive(Debug)]
pub struct ControlActor {
    shared: Arc<Shared>,
    birth: Birth,
    log: Logger,
    listener: Option<UnixListener>,
}

/// Makes [`ControlActor`]s.
#[derive(Debug)]
pub struct ControlBlueprint(pub Arc<Shared>);

impl Blueprint for ControlBlueprint {
    type Actor = ControlActor;

    fn build(&self, birth: Birth) -> LocalBoxFuture<'static, Result<ControlActor, String>> {
        let shared = Arc::clone(&self.0);
        async move {
            let log = shared.log.new(o!("concern" => "control", "generation" => birth.generation()));
            let listener = shared.control_socket.as_ref().map(|socket| adopt(&socket.listener)).transpose();
            let listener = listener.map_err(|error| format!("the listener cannot be used: {error}"))?;
            Ok(ControlActor { shared, birth, log, listener })
        }
        .boxed_local()
    }
}

/// A handle of one's own on a listener that outlives this actor.
fn adopt(listener: &StdListener) -> std::io::Result<UnixListener> {
    let own = listener.try_clone()?;
    own.set_nonblocking(true)?;
    UnixListener::from_std(own)
}

impl Actor for ControlActor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.birth.faults().at(Point::Started);
        if let Some(listener) = self.listener.take() {
            let server = connection::Server {
                shared: Arc::clone(&self.shared),
                birth: self.birth.clone(),
                bounds: connection::Bounds::default(),
                log: self.log.clone(),
            };
            self.birth.spawn(server.serve(listener));
        }
        let path = self.shared.control_socket.as_ref().map(|socket| socket.path.display().to_string());
        info!(self.log, "started"; "socket" => path.unwrap_or_else(|| "none".to_owned()));
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.birth.faults().at(Point::Stopped);
    }
}

crate::accepts_faults!(ControlActor);
