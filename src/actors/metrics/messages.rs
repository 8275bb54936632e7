//! What `metrics` is asked.

use actix::{Message, MessageResponse};

/// What `/metrics` would say now: `OpenMetrics` text, ending in `# EOF`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "String")]
pub struct Scrape;

/// Whether the router is ready.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Readiness")]
pub struct ListProblems;

/// Whether the router is ready, and what there is to know about that.
#[derive(Debug, Clone, Default, PartialEq, Eq, MessageResponse)]
pub struct Readiness {
    /// What keeps it from being ready, one sentence each; empty when it is ready.
    pub problems: Vec<String>,
    /// What does not, but should be known.
    pub notes: Vec<String>,
}
