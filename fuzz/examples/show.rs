//! Shows the packet that an input becomes, and then runs it: `show six_to_four|four_to_six FILE`.

use std::process::ExitCode;

use protomask_fuzz::harness::{Way, run, show};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let way = match arguments.first().map(String::as_str) {
        Some("six_to_four") => Way::SixToFour,
        Some("four_to_six") => Way::FourToSix,
        _ => return ExitCode::FAILURE,
    };
    let Some(Ok(input)) = arguments.get(1).map(std::fs::read) else { return ExitCode::FAILURE };
    println!("{}", show(&input, way));
    println!("{:?}", run(&input, way));
    ExitCode::SUCCESS
}
