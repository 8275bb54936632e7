//! What `metrics` is asked.

use actix::{Message, MessageResponse};

/// What `/metrics` would say now: `OpenMetrics` text, ending in `# EOF`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "String")]
pub struct Scrape;

/// What keeps the router from being ready, and what else an operator should know.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Readiness")]
pub struct ListProblems;

/// How ready the router is.
#[derive(Debug, Clone, Default, PartialEq, Eq, MessageResponse)]
pub struct Readiness {
    /// What keeps it from being ready, one sentence each; empty when it is ready.
    pub problems: Vec<String>,
    /// What is not as it could be, and keeps it from nothing, one sentence each.
    pub notes: Vec<String>,
}
