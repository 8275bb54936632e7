//! Which worker a packet comes to: a program in the kernel tells its lane, by the rules of [`Lanes`], so that both ways of a flow come to
//! the same one.

use easy_tun::{Instruction, Steering};
use fast_nat::Lanes;

use crate::config::Settings;

/// The most that a worker may be given above its share, where lanes cannot be shared out evenly: a quarter.
const MOST_ABOVE: (usize, usize) = (5, 4);

/// The fewest ports of one parity that a block has of each lane: a port is one of so many for whoever knows the host's own.
const LEAST_CHOICE: u16 = 4;

/// The program and the lanes that it tells, or why there is none.
pub type Loaded = Result<(Lanes, Steering), NotSteered>;

/// Why the kernel shares packets out to workers by itself.
#[derive(Debug, thiserror::Error)]
pub enum NotSteered {
    /// One worker has all of them.
    #[error("there is one worker")]
    OneWorker,
    /// It is not wanted.
    #[error("steering = false")]
    Off,
    /// Too much would come to one of the workers.
    #[error("lanes cannot be shared out evenly to {0} workers")]
    Uneven(usize),
    /// What a port is chosen of would be too little.
    #[error(
        "a block of {block_size} ports is too small for {lanes} lanes; set block_size = {least} or more, or another number of workers"
    )]
    SmallBlocks {
        /// What is configured.
        block_size: u16,
        /// The lanes that so many workers take.
        lanes: u16,
        /// A block that is large enough.
        least: u16,
    },
    /// The program cannot be loaded, or the device cannot have it.
    #[error(transparent)]
    Refused(easy_tun::Error),
}

/// As many lanes as it takes to share packets out to so many workers.
fn lanes_for(workers: usize) -> Result<Lanes, NotSteered> {
    let enough = |lanes: &Lanes| usize::from(lanes.count()) >= workers;
    let is_even = |lanes: &Lanes| {
        let count = usize::from(lanes.count());
        count.div_ceil(workers) * workers * MOST_ABOVE.1 <= count * MOST_ABOVE.0
    };
    if workers < 2 {
        return Err(NotSteered::OneWorker);
    }
    let mut counts = (1..=Lanes::MOST).filter_map(Lanes::new).filter(enough);
    counts.find(is_even).ok_or(NotSteered::Uneven(workers))
}

/// Has the kernel load the program that a router with these settings needs: whatever comes later needs no right to it.
pub fn load_for(settings: &Settings) -> Loaded {
    if !settings.steering {
        return Err(NotSteered::Off);
    }
    let lanes = lanes_for(settings.num_queues)?;
    let (block_size, least) = (settings.sessions.block_size, 2 * LEAST_CHOICE * lanes.count());
    if block_size < least {
        return Err(NotSteered::SmallBlocks { block_size, lanes: lanes.count(), least });
    }
    let program = load(lanes).map_err(NotSteered::Refused)?;
    Ok((lanes, program))
}

/// By how many lanes addresses and ports are to be chosen: without the program it does not matter which they are.
pub fn told_by(loaded: &Loaded) -> Lanes {
    loaded.as_ref().map_or(Lanes::ONE, |(lanes, _)| *lanes)
}

fn load(lanes: Lanes) -> Result<Steering, easy_tun::Error> {
    Steering::load("protomask_lanes", &program(lanes))
}

// Registers. The instructions that read a packet expect its context in 6, answer in 0, and leave 1 to 5 to chance.
const ANSWER: u8 = 0;
const CONTEXT: u8 = 6;
const SCRATCH: u8 = 7;
/// The packet's first byte, and then the length of its IPv4 header.
const FIRST: u8 = 8;
const LANE: u8 = 9;

// Opcodes (RFC 9669 §4 and §5; reading a packet is its "legacy BPF packet access", §5.5). Reading behind the end ends the program with 0.
const BYTE: u8 = 0x10;
const HALF: u8 = 0x08;
const WORD: u8 = 0x00;
const AT: u8 = 0x20;
const AT_REGISTER_AND: u8 = 0x40;
const COPY: u8 = 0xbf;
const ADD: u8 = 0x0f;
const ADD_32: u8 = 0x0c;
const MULTIPLY_32: u8 = 0x24;
const RIGHT_32: u8 = 0x74;
const RIGHT: u8 = 0x77;
const LEFT: u8 = 0x67;
const AND: u8 = 0x57;
const IF_EQUAL: u8 = 0x15;
const IF_NOT: u8 = 0x55;
const IF_ANY_OF: u8 = 0x45;
const ALWAYS: u8 = 0x05;
const END: u8 = 0x95;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    V6,
    Fragment4,
    Ports4,
    Icmp4,
    Echo4,
    Fragment6,
    Ports6,
    Icmp6,
    Ports,
    Identifier,
    Done,
}

enum Step {
    Do(Instruction),
    /// A jump by what is in [`ANSWER`].
    Jump(u8, i32, Place),
    Here(Place),
}

/// Reads so much of the packet, at this offset.
fn read(width: u8, offset: i32) -> Step {
    Step::Do(Instruction::new(width | AT, (0, 0), 0, offset))
}

/// The same behind its IPv4 header.
fn read_behind(width: u8, offset: i32) -> Step {
    Step::Do(Instruction::new(width | AT_REGISTER_AND, (0, FIRST), 0, offset))
}

/// Changes a register by another one.
fn with(code: u8, register: u8, other: u8) -> Step {
    Step::Do(Instruction::new(code, (register, other), 0, 0))
}

/// Changes a register by a constant.
fn by(code: u8, register: u8, constant: i32) -> Step {
    Step::Do(Instruction::new(code, (register, 0), 0, constant))
}

/// What has ports or an identifier is of the lane by them, other packets by their addresses. Fragments are of the lane of both their
/// addresses: only the first one has ports.
fn program(lanes: Lanes) -> Vec<Instruction> {
    use Step::{Here, Jump};
    const TCP: i32 = 6;
    const UDP: i32 = 17;

    let v4 = [
        read(WORD, 16),
        with(COPY, LANE, ANSWER),
        read(HALF, 6),
        // More fragments, or an offset.
        Jump(IF_ANY_OF, 0x3fff, Place::Fragment4),
        by(AND, FIRST, 0xf),
        by(LEFT, FIRST, 2),
        read(BYTE, 9),
        Jump(IF_EQUAL, TCP, Place::Ports4),
        Jump(IF_EQUAL, UDP, Place::Ports4),
        Jump(IF_EQUAL, 1, Place::Icmp4),
        Jump(ALWAYS, 0, Place::Done),
        Here(Place::Ports4),
        read_behind(WORD, 0),
        Jump(ALWAYS, 0, Place::Ports),
        Here(Place::Icmp4),
        read_behind(BYTE, 0),
        Jump(IF_EQUAL, 0, Place::Echo4),
        Jump(IF_NOT, 8, Place::Done),
        Here(Place::Echo4),
        read_behind(HALF, 4),
        Jump(ALWAYS, 0, Place::Identifier),
        Here(Place::Fragment4),
        read(WORD, 12),
        with(ADD, LANE, ANSWER),
        Jump(ALWAYS, 0, Place::Done),
    ];
    let v6 = [
        Here(Place::V6),
        read(WORD, 8),
        with(COPY, LANE, ANSWER),
        read(WORD, 12),
        with(ADD_32, LANE, ANSWER),
        read(WORD, 16),
        with(ADD_32, LANE, ANSWER),
        read(WORD, 20),
        with(ADD_32, LANE, ANSWER),
        by(MULTIPLY_32, LANE, 0x9e37_79b1_u32.cast_signed()),
        by(RIGHT_32, LANE, 27),
        read(BYTE, 6),
        Jump(IF_EQUAL, TCP, Place::Ports6),
        Jump(IF_EQUAL, UDP, Place::Ports6),
        Jump(IF_EQUAL, 58, Place::Icmp6),
        Jump(IF_EQUAL, 44, Place::Fragment6),
        Jump(ALWAYS, 0, Place::Done),
        Here(Place::Ports6),
        read(WORD, 40),
        Jump(ALWAYS, 0, Place::Ports),
        Here(Place::Fragment6),
        read(WORD, 36),
        with(ADD, LANE, ANSWER),
        Jump(ALWAYS, 0, Place::Done),
        Here(Place::Icmp6),
        read(BYTE, 40),
        by(AND, ANSWER, 0xfe),
        // An echo or its answer.
        Jump(IF_NOT, 128, Place::Done),
        read(HALF, 44),
        Jump(ALWAYS, 0, Place::Identifier),
    ];
    let end = [
        Here(Place::Ports),
        with(COPY, SCRATCH, ANSWER),
        by(RIGHT, SCRATCH, 17),
        with(ADD, LANE, SCRATCH),
        by(AND, ANSWER, 0xffff),
        Here(Place::Identifier),
        by(RIGHT, ANSWER, 1),
        with(ADD, LANE, ANSWER),
        Here(Place::Done),
        with(COPY, ANSWER, LANE),
        by(AND, ANSWER, i32::from(lanes.count()) - 1),
        by(END, 0, 0),
    ];
    let begin = [
        with(COPY, CONTEXT, 1),
        read(BYTE, 0),
        with(COPY, FIRST, ANSWER),
        by(RIGHT, ANSWER, 4),
        Jump(IF_EQUAL, 6, Place::V6),
    ];
    assemble(&begin.into_iter().chain(v4).chain(v6).chain(end).collect::<Vec<_>>())
}

fn assemble(steps: &[Step]) -> Vec<Instruction> {
    let length = |steps: &[Step]| steps.iter().filter(|step| !matches!(step, Step::Here(_))).count();
    let to = |place| steps.iter().position(|step| matches!(step, Step::Here(here) if *here == place));
    let instruction = |(at, step): (usize, &Step)| match step {
        Step::Do(instruction) => Some(*instruction),
        Step::Jump(code, constant, place) => {
            // Only forwards; a place that is nowhere is one that no packet gets to, and the kernel refuses such a program.
            let skipped = to(*place).and_then(|to| steps.get(at + 1..to)).map(length);
            let skipped = skipped.and_then(|skipped| i16::try_from(skipped).ok()).unwrap_or(-1);
            Some(Instruction::new(*code, (ANSWER, 0), skipped, *constant))
        }
        Step::Here(_) => None,
    };
    steps.iter().enumerate().filter_map(instruction).collect()
}

#[cfg(test)]
mod tests;
