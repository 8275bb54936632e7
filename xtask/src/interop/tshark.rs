//! The translation of a varied capture, read by Wireshark's dissectors.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use xshell::{Cmd, cmd};

use super::capture;
use crate::project::Project;
use crate::verbs::CONFORMANCE;

/// What must not be true of a packet. The transport checksum of a packet that is quoted in part cannot be checked, though tshark
/// tries.
const BAD: &str = r#"_ws.malformed || ip.checksum.status == "Bad"
    || icmp.checksum.status == "Bad" || icmpv6.checksum.status == "Bad" || icmp.ext.checksum.status == "Bad"
    || (!(icmp.type in {3, 11, 12}) && !(icmpv6.type in {1 .. 4}) && (tcp.checksum.status == "Bad"
    || udp.checksum.status == "Bad" || dccp.checksum.status == "Bad"))"#;
const PREFERENCES: [&str; 5] = [
    "ip.check_checksum:TRUE",
    "tcp.check_checksum:TRUE",
    "udp.check_checksum:TRUE",
    "udplite.check_checksum:TRUE",
    "udplite.ignore_checksum_coverage:FALSE",
];
/// What packets carry is made up, and no message of these.
const APPLICATIONS: [&str; 2] = ["dns", "sctp"];
/// So many packets of each family must come of the cases; fewer would say that there are hardly any.
const LEAST_CASES: usize = 75;

/// Translates a generated capture and the inputs of the conformance cases, and fails if a packet that was good comes out
/// otherwise.
pub(super) fn check(project: &Project) -> Result<()> {
    let directory = project.scratch("tshark")?;
    let capture = |name: &str, packets: Vec<Vec<u8>>| -> Result<Capture> {
        let path = directory.join(name);
        capture::write(&path, &packets)?;
        Ok(Capture { path, defragment: true })
    };
    // Would it be seen?
    let broken = capture::broken()?;
    let count = broken.len();
    let seen = capture("broken.pcap", broken)?.packets(project, BAD)?;
    ensure!(seen.len() == count, "of {count} broken packets, tshark sees only:\n{}", seen.join("\n"));

    let generated = capture("generated.pcap", capture::varied()?)?;
    let bad = generated.packets(project, BAD)?;
    ensure!(bad.is_empty(), "the generator makes packets that are bad themselves:\n{}", bad.join("\n"));
    let all = generated.packets(project, "frame")?.len();
    let (v4, v6) = translate(project, &generated, &directory.join("generated-out.pcap"))?;
    // Some leave in fragments, and Parameter Problems about some fields do not leave at all.
    ensure!((v4 + v6) * 10 >= all * 9, "of {all} packets, only {v4} came out as IPv4 and {v6} as IPv6");

    let cases = conformance(project, &directory)?;
    let (cases_v4, cases_v6) = translate(project, &cases, &directory.join("cases-out.pcap"))?;
    ensure!(
        cases_v4 >= LEAST_CASES && cases_v6 >= LEAST_CASES,
        "only {cases_v4} and {cases_v6} packets came out"
    );
    println!(
        "interop: tshark finds nothing wrong with {} IPv4 and {} IPv6 packets that were translated",
        v4 + cases_v4,
        v6 + cases_v6
    );
    Ok(())
}

/// The inputs of the conformance cases that are good packets: some cases are about others, which may stay as they are.
fn conformance(project: &Project, directory: &Path) -> Result<Capture> {
    let sh = &project.shell;
    let inputs = sh.read_dir(format!("{CONFORMANCE}/cases"))?.into_iter().map(|case| case.join("input.pcap"));
    let all = Capture { path: directory.join("cases.pcap"), defragment: false };
    cmd!(sh, "mergecap -a -F pcap -w").arg(&all.path).args(inputs).quiet().run()?;
    let good = Capture { path: directory.join("cases-good.pcap"), defragment: false };
    all.tshark(project, &format!("!({BAD})")).args(["-F", "pcap", "-w"]).arg(&good.path).run()?;
    Ok(good)
}

/// Translates the capture, both ways at once, and fails if something bad comes out. How many IPv4 and IPv6 packets did?
fn translate(project: &Project, input: &Capture, output: &Path) -> Result<(usize, usize)> {
    let sh = &project.shell;
    let source = &input.path;
    cmd!(sh, "cargo run --quiet --package interproto --example pcap -- {source} {output}")
        .args(["--host", "2001:db8::1=203.0.113.5"])
        .quiet()
        .run()?;
    let output = Capture { path: output.to_owned(), defragment: input.defragment };
    let bad = output.packets(project, BAD)?;
    ensure!(bad.is_empty(), "{}: translated, and bad:\n{}", output.path.display(), bad.join("\n"));
    let count = |filter| Ok::<_, anyhow::Error>(output.packets(project, filter)?.len());
    Ok((count("ip.version == 4 && !ipv6")?, count("ipv6")?))
}

struct Capture {
    path: PathBuf,
    /// Whether the fragments of a datagram are put together, and its checksum is looked at. Not those of the cases: fragments of
    /// several cases have the same number.
    defragment: bool,
}

impl Capture {
    /// One line for each packet that the filter lets through.
    fn packets(&self, project: &Project, filter: &str) -> Result<Vec<String>> {
        Ok(self.tshark(project, filter).read()?.lines().map(str::to_owned).collect())
    }

    fn tshark<'a>(&self, project: &'a Project, filter: &str) -> Cmd<'a> {
        let path = &self.path;
        let mut command = cmd!(project.shell, "tshark -n -r {path} -Y {filter}").quiet().ignore_stderr();
        for preference in PREFERENCES {
            command = command.args(["-o", preference]);
        }
        for family in ["ip", "ipv6"] {
            command = command.args(["-o", &format!("{family}.defragment:{}", self.defragment)]);
        }
        for protocol in APPLICATIONS {
            command = command.args(["--disable-protocol", protocol]);
        }
        command
    }
}
