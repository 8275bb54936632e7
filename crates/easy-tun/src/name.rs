//! What the kernel takes as the name of an interface.

use crate::Error;

/// IFNAMSIZ is 16 and counts the terminating zero.
const LONGEST: usize = libc::IFNAMSIZ - 1;

/// Refuses what the kernel would refuse or silently cut. One `%d` is allowed: the kernel puts the next free number there.
pub fn check(name: &str) -> Result<(), Error> {
    let bad = |reason| Err(Error::BadName { name: name.to_owned(), reason });
    if name.is_empty() {
        return bad("it is empty");
    }
    if name.len() > LONGEST {
        return bad("it is longer than 15 bytes");
    }
    if name == "." || name == ".." {
        return bad("it is reserved");
    }
    if name
        .bytes()
        .any(|byte| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace() || byte == 0x0b)
    {
        return bad("it contains a slash, a colon, a zero or white space");
    }
    if name.replacen("%d", "", 1).contains('%') {
        return bad("of percent signs only one %d is possible");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_and_one_template_are_taken() {
        for name in ["tun0", "nat64", "a", "fifteen-bytes-x", "nat%d", "wan.100"] {
            assert!(check(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_the_kernel_would_refuse_or_cut_is_refused_with_its_reason() {
        for (name, part) in [
            ("", "empty"),
            ("sixteen-bytes-xx", "longer than 15"),
            ("..", "reserved"),
            ("a/b", "slash"),
            ("a b", "white space"),
            ("a:1", "colon"),
            ("a\0", "zero"),
            ("t%d%d", "one %d"),
            ("t%s", "one %d"),
        ] {
            let error = check(name).unwrap_err().to_string();
            assert!(error.contains(part), "{name:?}: {error}");
        }
    }
}
