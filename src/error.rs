//! Errors for people: an error with its causes on one line.

use std::error::Error;

/// The error and what caused it, the last cause last.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        // Some errors repeat their cause already.
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the outer one")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_cause_follows_once() {
        assert_eq!(chain(&Outer(std::io::Error::other("the inner one"))), "the outer one: the inner one");
        assert_eq!(chain(&std::io::Error::other("alone")), "alone");
    }
}
