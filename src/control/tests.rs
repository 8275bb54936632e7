use super::*;

fn failure(line: &str) -> (Value, ErrorKind, String) {
    let (id, command) = read_request(line);
    let failure = command.expect_err(line);
    (id, failure.kind, failure.message)
}

#[test]
fn what_the_client_writes_the_router_reads() {
    let net6 = "2001:db8::/64".parse().unwrap();
    let commands = [
        Command::Status {},
        Command::ListActors {},
        Command::ListSessions(Sessions {
            host: Some(net6),
            address: Some("203.0.113.7".parse().unwrap()),
            port: Some(7),
            state: Some(State::V4FinV6FinRcv),
            protocol: Some(crate::records::Protocol::Icmp),
            limit: Some(5),
            ..Sessions::default()
        }),
        Command::ListLeases(Leases::default()),
        Command::ListBlocks(Blocks { port: Some(80), ..Blocks::default() }),
        Command::ListMappings(Limit { limit: None }),
        Command::DropSession(DropSession { session: "1-2".to_owned() }),
        Command::DropLease(DropLease { address: [203, 0, 113, 7].into() }),
        Command::AddForward(Forward {
            protocol: crate::config::ForwardProtocol::Udp,
            address: [203, 0, 113, 7].into(),
            port: 53,
            host: "2001:db8::1".parse().unwrap(),
            host_port: None,
            prefix: Some("64:ff9b::/96".parse().unwrap()),
        }),
        Command::RemoveForward(Mapping {
            protocol: crate::config::ForwardProtocol::Tcp,
            address: [203, 0, 113, 7].into(),
            port: 80,
        }),
        Command::AddStatic(Pair { address: [203, 0, 113, 7].into(), host: "2001:db8::1".parse().unwrap() }),
        Command::RemoveStatic(DropLease { address: [203, 0, 113, 7].into() }),
    ];
    for (id, command) in (0..).zip(commands) {
        let line = write_request(id, &command).unwrap();
        assert_eq!(read_request(&line), (Value::from(id), Ok(command)), "{line}");
    }
}

#[test]
fn a_bad_request_is_told_what_was_wrong_with_it_and_keeps_its_id() {
    for (line, kind, words) in [
        ("hello", ErrorKind::BadRequest, "not JSON"),
        ("[]", ErrorKind::BadRequest, "a JSON object"),
        (r#"{"id": 7}"#, ErrorKind::BadRequest, "no \"command\""),
        (r#"{"id": 7, "command": "fly"}"#, ErrorKind::BadRequest, "unknown variant `fly`"),
        (r#"{"id": 7, "command": "status", "hots": 1}"#, ErrorKind::BadRequest, "unknown field `hots`"),
        (r#"{"id": 7, "command": "list-sessions", "hots": 1}"#, ErrorKind::BadRequest, "`hots`"),
        (r#"{"id": 7, "command": "list-sessions", "host": "x"}"#, ErrorKind::BadRequest, "\"x\""),
        (r#"{"id": 7, "command": "list-sessions", "state": "x"}"#, ErrorKind::BadRequest, "`x`"),
        (r#"{"id": 7, "command": "list-sessions", "limit": -1}"#, ErrorKind::BadRequest, "-1"),
        (r#"{"id": 7, "command": "drop-lease"}"#, ErrorKind::BadRequest, "missing field `address`"),
        (r#"{"id": 7, "version": 2, "command": "status"}"#, ErrorKind::Version, "speaks 1"),
    ] {
        let (id, found, message) = failure(line);
        assert!(found == kind && message.contains(words), "{line}: {found:?} {message}");
        assert_eq!(id, if line.contains("\"id\"") { Value::from(7) } else { Value::Null }, "{line}");
    }
}

#[test]
fn an_answer_says_ok_or_error() {
    let text = |result| serde_json::to_string(&Answer::new(3.into(), result)).unwrap();
    assert_eq!(text(Ok(Value::from(true))), r#"{"version":1,"id":3,"ok":true}"#);
    let failure = Failure::new(ErrorKind::NotFound, "gone");
    let expected = r#"{"version":1,"id":3,"error":{"kind":"not_found","message":"gone"}}"#;
    assert_eq!(text(Err(failure)), expected);
}

#[test]
fn a_list_is_a_table_and_what_is_not_all_of_it_says_so() {
    let answer = serde_json::json!({
        "sessions": [{"session": "1-1", "host": "2001:db8::1"}, {"session": "22-1", "host": "a\u{1b}[2J"}],
        "truncated": true,
    });
    let mut out = Vec::new();
    table::write(&answer, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("SESSION") && text.contains("22-1") && text.contains("--limit"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
}
