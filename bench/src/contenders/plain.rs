//! Nothing is translated: the kernel forwards, or client and server are neighbours.

use anyhow::Result;

use super::Contender;
use crate::lab::Lab;
use crate::process::Process;

/// The router's kernel forwards IPv6.
pub(super) struct Forwarding;

impl Contender for Forwarding {
    fn version(&self) -> &'static str {
        "this kernel"
    }

    fn configuration(&self) -> String {
        "IPv6 from the client by the router to an IPv6 address of the server; no netfilter, no translation"
            .to_owned()
    }

    fn start(&self, _lab: &Lab) -> Result<Option<Process>> {
        Ok(None)
    }
}

/// One veth joins client and server.
pub(super) struct Direct;

impl Contender for Direct {
    fn version(&self) -> &'static str {
        "this kernel"
    }

    fn configuration(&self) -> String {
        "IPv6 from the client to the server over one veth; only for what the load alone costs".to_owned()
    }

    fn start(&self, _lab: &Lab) -> Result<Option<Process>> {
        Ok(None)
    }
}
