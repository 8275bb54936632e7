//! The maximum segment size that a SYN announces.

use super::super::TCP;
use super::read::Ip;
use super::word;

/// What lies behind the IP headers once no SYN announces more than this, with the checksum as it came in.
pub(in super::super) fn clamped(ip: &Ip, most: u16) -> Vec<u8> {
    let mut body = ip.body.clone();
    if ip.protocol != TCP || ip.is_fragment() || body.len() < 20 || body[13] & 2 == 0 {
        return body;
    }
    let end = usize::from(body[12] >> 4) * 4;
    let (mut at, mut places) = (20, Vec::new());
    while at < end && body[at] != 0 {
        let length = match body[at] {
            1 => 1,
            _ if at + 1 == end => return body,
            _ => usize::from(body[at + 1]),
        };
        let is_size = body[at] == 2;
        if length == 0 || (length == 1 && body[at] != 1) || at + length > end || (is_size && length != 4) {
            return body;
        }
        if is_size {
            places.push(at + 2);
        }
        at += length;
    }
    for place in places {
        let size = word(&body, place).min(most);
        body[place..place + 2].copy_from_slice(&size.to_be_bytes());
    }
    body
}
