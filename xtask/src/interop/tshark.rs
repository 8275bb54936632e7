//! The translation of a varied capture, looked at by tshark: nothing malformed, no checksum wrong.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use xshell::cmd;

use crate::project::Project;

const CASES: &str = "crates/interproto/tests/conformance/cases";

/// Cases whose packets are wrong on purpose, or whose payload is none of their protocol's to a dissector.
const NOT_SOUND: [&str; 6] = ["wrong-", "truncated-", "padding-", "dccp-", "protocol-", "unknown-"];

/// What a sound capture has none of. The transport checksum of a packet that is quoted in part cannot be checked, though
/// tshark tries where extensions follow.
const FAULTS: &str = "_ws.malformed || ip.checksum.status == \"Bad\" || icmp.checksum.status == \"Bad\" \
    || icmpv6.checksum.status == \"Bad\" || (!(icmp.type in {3, 11, 12}) && !(icmpv6.type in {1 .. 4}) \
    && (tcp.checksum.status == \"Bad\" || udp.checksum.status == \"Bad\"))";

pub(super) fn check(project: &Project) -> Result<()> {
    let directory = project.scratch("tshark")?;
    let all = names(project, |name| !NOT_SOUND.iter().any(|mark| name.contains(mark)))?;
    let (input, output) = (directory.join("in.pcap"), directory.join("out.pcap"));
    translate(project, &all, &input, &output)?;
    let packets = count(project, &output, "frame")?;
    ensure!(packets >= 150, "only {packets} packets came out of the translation of {} cases", all.len());
    let faults = shown(project, &output, FAULTS)?;
    ensure!(faults.is_empty(), "tshark finds fault with the translation of sound packets:\n{faults}");

    // It would see one: wrong checksums stay wrong.
    let wrong = names(project, |name| name.ends_with("-wrong-checksum-out"))?;
    translate(project, &wrong, &input, &output)?;
    let seen = count(project, &output, FAULTS)?;
    ensure!(seen == wrong.len() && seen > 0, "tshark sees {seen} of {} wrong checksums", wrong.len());
    println!(
        "tshark: {packets} translated packets, none malformed, no checksum wrong; {seen} wrong ones are seen"
    );
    Ok(())
}

/// The names of the cases that are wanted.
fn names(project: &Project, wanted: impl Fn(&str) -> bool) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(project.shell.current_dir().join(CASES)).context(CASES)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| wanted(name));
    names.sort();
    Ok(names)
}

fn translate(project: &Project, cases: &[String], input: &Path, output: &Path) -> Result<()> {
    let sh = &project.shell;
    let captures = cases.iter().map(|name| format!("{CASES}/{name}/input.pcap"));
    cmd!(sh, "mergecap -a -F pcap -w {input}").args(captures).quiet().run()?;
    let host = "2001:db8::1=203.0.113.5";
    cmd!(sh, "cargo run --quiet --package interproto --example pcap -- {input} {output} --host {host}")
        .quiet()
        .run()?;
    Ok(())
}

/// The packets that a display filter shows, one a line.
fn shown(project: &Project, capture: &Path, filter: &str) -> Result<String> {
    let sh = &project.shell;
    let mut options = Vec::new();
    for option in [
        // Whole datagrams are checked; pieces of several cases that share a number are not to be put together.
        "ip.check_checksum:TRUE",
        "tcp.check_checksum:TRUE",
        "udp.check_checksum:TRUE",
        "ip.defragment:FALSE",
        "ipv6.defragment:FALSE",
    ] {
        options.extend(["-o", option]);
    }
    // The payload is not what the ports promise.
    Ok(cmd!(sh, "tshark -r {capture} {options...} --disable-protocol dns -Y {filter}")
        .quiet()
        .ignore_stderr()
        .read()?)
}

fn count(project: &Project, capture: &Path, filter: &str) -> Result<usize> {
    Ok(shown(project, capture, filter)?.lines().count())
}
