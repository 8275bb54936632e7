//! ICMP errors: type, code, MTU, pointer, the packet inside, and extensions (RFC 7915 §4.2, §4.3, §5.2, §5.3, and
//! RFC 4884).

use super::super::{Case, DropReason, Params, sums};
use super::read::{self, Ip};
use super::{Flow, Head, Read, rewrite, word};

/// The message behind the IP header, without checksums, and the packet inside it as it came in.
pub(super) fn translate(
    case: &Case,
    ip: &Ip,
    flow: Flow<'_>,
    partial: bool,
    wrong: &mut Vec<DropReason>,
) -> (Vec<u8>, Option<Ip>) {
    let body = &ip.body;
    let pseudo =
        if ip.six { sums::pseudo_of(&ip.source, &ip.destination, ip.protocol, body.len()) } else { 0 };
    if !partial && !(pseudo + sums::of(body)).is_multiple_of(0xffff) {
        wrong.push(DropReason::BadIcmpChecksum);
    }
    let (kind, unit) = (body[0], if ip.six { 8 } else { 4 });
    let attribute = match (ip.six, kind) {
        (true, 1 | 3) => usize::from(body[4]) * unit,
        (true, _) => 0,
        (false, _) => usize::from(body[5]) * unit,
    };
    let message = &body[8..];
    let quote = message.get(..attribute).filter(|_| attribute > 0).unwrap_or(message);
    let extensions = message.get(attribute..).filter(|rest| attribute >= 128 && !rest.is_empty());
    let mut inside = Vec::new();
    let inner = read::read(quote, ip.six, true, &mut inside);
    wrong.extend(inside.iter().map(|reason| match reason {
        DropReason::EmbeddedNotTranslatable
        | DropReason::ForbiddenProtocol
        | DropReason::FragmentedIcmp
        | DropReason::IcmpNotTranslatable
        | DropReason::ExtensionAfterFragment => DropReason::EmbeddedNotTranslatable,
        _ => DropReason::EmbeddedMalformed,
    }));
    if case.unrelated {
        wrong.push(DropReason::EmbeddedNotTranslatable);
    }
    let Some(inner) = inner.filter(|_| wrong.is_empty()) else { return (Vec::new(), None) };
    let head = if ip.six { four(body, &inner, &case.params) } else { six(body, &inner, &case.params) };
    let mut head = match head {
        Ok((kind, code, rest)) => [&[kind, code, 0, 0], rest.to_be_bytes().as_slice()].concat(),
        Err(reason) => {
            wrong.push(reason);
            return (Vec::new(), None);
        }
    };

    // The packet inside went the other way, and is no hop further.
    let turned = Flow { source: flow.destination, destination: flow.source };
    let mut upper = inner.body.clone();
    rewrite(&mut upper, inner.protocol, inner.is_later(), ip.six, case.inner_ports);
    let (class, hops) = (inner.class, inner.hops);
    let heads = Head { ip: &inner, flow: turned, class, hops, identification: 0, is_error: false };
    let (mut quote, most, unit) = if ip.six {
        let mut inside = Vec::new();
        let quote = heads.four(&upper, inner.promised, inner.promised, &mut inside);
        if !inside.is_empty() {
            wrong.push(DropReason::EmbeddedMalformed);
        }
        (quote, 576 - 28, 4)
    } else {
        (heads.one(&upper, inner.promised, inner.place), 1280 - 48, 8)
    };
    // Type 2 and 4 of ICMPv6 have no extensions.
    let known = ip.six || matches!(head[0], 1 | 3);
    if let Some(extensions) = extensions.filter(|extensions| known && extensions.len() + 128 <= most) {
        let padded = quote.len().div_ceil(unit) * unit;
        let length = padded.max(128).min((most - extensions.len()) / unit * unit);
        quote.resize(length, 0);
        quote.extend(extensions);
        head[if ip.six { 5 } else { 4 }] = (length / unit) as u8;
    } else {
        quote.truncate(most);
    }
    head.extend(quote);
    (head, Some(inner))
}

type Translated = Result<(u8, u8, u32), DropReason>;

/// RFC 7915 §4.2.
fn six(body: &[u8], inner: &Ip, params: &Params) -> Translated {
    Ok(match (body[0], body[1]) {
        (3, 2) => (4, 1, 6),
        (3, 3) => (1, 4, 0),
        (3, 4) => {
            let plateaus = [32_000, 17_914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68];
            let total = inner.headers + inner.promised;
            let mtu = match usize::from(word(body, 6)) {
                0 => plateaus.into_iter().find(|plateau| *plateau < total).unwrap_or(68),
                mtu => mtu,
            };
            let limit = params.six().min(usize::from(params.ipv4_mtu.max(68)) + 20);
            (2, 0, (mtu + 20).min(limit).max(1280) as u32)
        }
        (3, 9 | 10 | 13 | 15) => (1, 1, 0),
        (3, 0 | 1 | 5..=8 | 11 | 12) => (1, 0, 0),
        (11, code) => (3, code, 0),
        (12, 0 | 2) => {
            let pointer = match body[4] {
                pointer @ 0..=1 => pointer,
                2..=3 => 4,
                8 => 7,
                9 => 6,
                12..=15 => 8,
                16..=19 => 24,
                _ => return Err(DropReason::PointerNotTranslatable),
            };
            (4, 0, u32::from(pointer))
        }
        _ => return Err(DropReason::IcmpNotTranslatable),
    })
}

/// RFC 7915 §5.2.
fn four(body: &[u8], inner: &Ip, params: &Params) -> Translated {
    let rest = u32::from_be_bytes([body[4], body[5], body[6], body[7]]);
    Ok(match (body[0], body[1]) {
        (1, 1) => (3, 10, 0),
        (1, 4) => (3, 3, 0),
        (1, 0 | 2 | 3) => (3, 1, 0),
        (2, _) => {
            let longer = if inner.place.is_some() { 28 } else { 20 };
            let mtu = (rest as usize).min(params.six()).saturating_sub(longer);
            (3, 4, mtu.min(usize::from(params.ipv4_mtu)).max(68) as u32)
        }
        (3, code) => (11, code, 0),
        (4, 0) => {
            let pointer: u32 = match rest {
                0..=1 => rest,
                4..=5 => 2,
                6 => 9,
                7 => 8,
                8..=23 => 12,
                24..=39 => 16,
                _ => return Err(DropReason::PointerNotTranslatable),
            };
            (12, 0, pointer << 24)
        }
        (4, 1) => (3, 2, 0),
        _ => return Err(DropReason::IcmpNotTranslatable),
    })
}
