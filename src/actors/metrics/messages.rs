//! What `metrics` is asked.

use actix::Message;

/// What `/metrics` would say now: `OpenMetrics` text, ending in `# EOF`.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "String")]
pub struct Scrape;

/// What keeps the router from being ready, one sentence each; empty when it is ready.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<String>")]
pub struct ListProblems;
