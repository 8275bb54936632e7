//! The blocks of one network's addresses.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{BlockPoolConfig, BlockUsage, PortNet};
use crate::nat64::PortClass;

/// Addresses of a chunk: they are made when the first of them is used.
const CHUNK: u32 = 128;

/// Levels of fullness that are told apart.
const LEVELS: usize = 17;

/// No address.
const NONE: u32 = u32::MAX;

/// Blocks of ports below 1024, or of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Low,
    High,
}

impl From<PortClass> for Class {
    fn from(class: PortClass) -> Self {
        match class {
            PortClass::Low => Self::Low,
            PortClass::High => Self::High,
        }
    }
}

/// One address, once it has been used.
#[derive(Debug, Clone)]
struct Address {
    /// One bit per block, by number.
    free: Box<[u64]>,
    /// Free blocks of high ports, and of low ones.
    high: u16,
    low: u16,
    /// Neighbours among those of the same level.
    before: u32,
    behind: u32,
}

/// Addresses that were made together.
type Chunk = Box<[Option<Address>]>;

/// All addresses of one network.
///
/// A new host gets a block of an address that nobody has used, or else of the emptiest one: a host keeps its address, so what
/// is free beside its first block is its room to grow.
#[derive(Debug)]
pub(super) struct Addresses {
    net: Ipv4Net,
    size: u16,
    /// Whole or part blocks, by number: those with a port that may be given.
    usable: Box<[u64]>,
    usable_high: u16,
    usable_low: u16,
    reserved: std::collections::HashSet<u32>,
    chunks: Box<[Option<Chunk>]>,
    /// The first address that is served.
    first: u32,
    /// Addresses below this one have been used or are reserved.
    next_fresh: u32,
    end: u32,
    /// The first address of each level of free high blocks, the emptiest addresses last.
    levels: [u32; LEVELS],
    used: u64,
    in_use: u64,
    high_water: u64,
}

impl Addresses {
    pub(super) fn new(net: &PortNet, config: &BlockPoolConfig) -> Self {
        let (first, last) = (u32::from(net.net.network()), u32::from(net.net.broadcast()));
        let count = u64::from(last - first) + 1;
        // The network and the broadcast address, where a net has them.
        let edge = u32::from(net.net.prefix_len() < 31);
        let end = u32::try_from(count).unwrap_or(u32::MAX) - edge;
        let reserved: std::collections::HashSet<u32> = config
            .reserved_addresses
            .iter()
            .filter(|address| net.net.contains(*address))
            .map(|address| u32::from(*address) - first)
            .filter(|place| (edge..end).contains(place))
            .collect();
        let size = config.block_size;
        let mut usable = vec![0_u64; (65_536 / usize::from(size)).div_ceil(64)];
        let (mut usable_high, mut usable_low) = (0, 0);
        for block in 0..65_536 / u32::from(size) {
            let start = (block * u32::from(size)) as u16;
            let ports = start..=start + (size - 1);
            // The first block of more than 1024 ports has low and high ones: it is left out.
            let one_class = size <= 1024 || start > 0;
            if one_class && ports.into_iter().any(|port| net.gives(port)) {
                usable[block as usize / 64] |= 1 << (block % 64);
                *(if start < 1024 { &mut usable_low } else { &mut usable_high }) += 1;
            }
        }
        let chunks = (count as usize).div_ceil(CHUNK as usize);
        Self {
            net: net.net,
            size,
            usable: usable.into(),
            usable_high,
            usable_low,
            reserved,
            chunks: (0..chunks).map(|_| None).collect(),
            first: edge,
            next_fresh: edge,
            end,
            levels: [NONE; LEVELS],
            used: 0,
            in_use: 0,
            high_water: 0,
        }
    }

    pub(super) fn net(&self) -> Ipv4Net {
        self.net
    }

    pub(super) fn blocks_per_address(&self) -> u16 {
        self.usable_high + self.usable_low
    }

    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        self.net.contains(&address)
    }

    fn address(&self, place: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.net.network()) + place)
    }

    fn get(&mut self, place: u32) -> Option<&mut Address> {
        self.chunks.get_mut((place / CHUNK) as usize)?.as_mut()?.get_mut((place % CHUNK) as usize)?.as_mut()
    }

    /// The address, made where it has not been used before.
    fn get_or_new(&mut self, place: u32) -> Option<&mut Address> {
        let chunk = self.chunks.get_mut((place / CHUNK) as usize)?;
        let chunk = chunk.get_or_insert_with(|| vec![None; CHUNK as usize].into());
        let there = chunk.get_mut((place % CHUNK) as usize)?;
        if there.is_none() {
            *there = Some(Address {
                free: self.usable.clone(),
                high: self.usable_high,
                low: self.usable_low,
                before: NONE,
                behind: NONE,
            });
            self.enlist(place);
        }
        self.get(place)
    }

    fn level(&self, high: u16) -> usize {
        let all = usize::from(self.usable_high.max(1));
        (usize::from(high) * (LEVELS - 1)).div_ceil(all).min(LEVELS - 1)
    }

    fn enlist(&mut self, place: u32) {
        let Some(high) = self.get(place).map(|address| address.high) else { return };
        let level = self.level(high);
        let first = std::mem::replace(&mut self.levels[level], place);
        if let Some(address) = self.get(place) {
            (address.before, address.behind) = (NONE, first);
        }
        if let Some(address) = self.get(first) {
            address.before = place;
        }
    }

    fn delist(&mut self, place: u32) {
        let Some((high, before, behind)) =
            self.get(place).map(|address| (address.high, address.before, address.behind))
        else {
            return;
        };
        if let Some(address) = self.get(behind) {
            address.before = before;
        }
        if let Some(address) = self.get(before) {
            address.behind = behind;
        } else {
            let level = self.level(high);
            self.levels[level] = behind;
        }
    }

    /// Takes a block of an address for a host that has no other.
    pub(super) fn take(&mut self, class: Class, random: u64) -> Option<(Ipv4Addr, u16)> {
        if let Some(place) = self.fresh() {
            self.get_or_new(place)?;
            return self.take_at(place, class, random);
        }
        let emptiest = self.levels.iter().rev().copied().find(|first| *first != NONE)?;
        self.take_at(emptiest, class, random)
    }

    fn fresh(&mut self) -> Option<u32> {
        while self.next_fresh < self.end {
            let place = self.next_fresh;
            self.next_fresh += 1;
            if self.reserved.contains(&place) {
                continue;
            }
            if self.get(place).is_none() {
                return Some(place);
            }
        }
        None
    }

    /// Takes a block of this address.
    pub(super) fn take_of(&mut self, address: Ipv4Addr, class: Class, random: u64) -> Option<u16> {
        let place = self.served(address)?;
        self.take_at(place, class, random).map(|(_, port)| port)
    }

    fn take_at(&mut self, place: u32, class: Class, random: u64) -> Option<(Ipv4Addr, u16)> {
        let size = self.size;
        let address = self.get(place)?;
        let low_blocks = 1024 / u32::from(size);
        let words = address.free.len();
        let start = ((random >> 6) % words as u64) as usize;
        let turn = (random % 64) as u32;
        let block = (0..=words).find_map(|step| {
            let at = (start + step) % words;
            let mut word = *address.free.get(at)?;
            let low_here = low_blocks.saturating_sub(at as u32 * 64).min(64);
            let low_mask = if low_here == 64 { u64::MAX } else { (1 << low_here) - 1 };
            word &= if class == Class::Low { low_mask } else { !low_mask };
            if step == 0 {
                word &= u64::MAX << turn;
            }
            (word != 0).then(|| at as u32 * 64 + word.trailing_zeros())
        })?;
        let first_port = (block * u32::from(size)) as u16;
        self.set(place, first_port, true);
        Some((self.address(place), first_port))
    }

    /// A block is under lease, or is so no longer.
    fn set(&mut self, place: u32, first_port: u16, used: bool) {
        let block = usize::from(first_port / self.size);
        let bit = 1_u64 << (block % 64);
        let all = self.usable_high + self.usable_low;
        let Some(word) = self.get(place).and_then(|address| address.free.get(block / 64).copied()) else {
            return;
        };
        let usable = self.usable.get(block / 64).is_some_and(|word| word & bit != 0);
        if !usable || (word & bit == 0) == used {
            return;
        }
        self.delist(place);
        if let Some(address) = self.get(place) {
            let was_untouched = address.high + address.low == all;
            address.free[block / 64] ^= bit;
            let count = if first_port < 1024 { &mut address.low } else { &mut address.high };
            *count = if used { *count - 1 } else { *count + 1 };
            let is_untouched = address.high + address.low == all;
            self.in_use = self.in_use + u64::from(was_untouched) - u64::from(is_untouched);
        }
        self.used = if used { self.used + 1 } else { self.used - 1 };
        self.high_water = self.high_water.max(self.used);
        self.enlist(place);
    }

    /// Whether blocks of this address are given.
    pub(super) fn serves(&self, address: Ipv4Addr) -> bool {
        self.net.contains(&address) && self.served(address).is_some()
    }

    /// The place of an address that blocks are given of: one that has some may have been reserved since.
    fn served(&self, address: Ipv4Addr) -> Option<u32> {
        let place = u32::from(address).checked_sub(u32::from(self.net.network()))?;
        ((self.first..self.end).contains(&place) && !self.reserved.contains(&place)).then_some(place)
    }

    /// These ports are under lease: whatever block they are of, none of them is given.
    pub(super) fn mark_used(&mut self, address: Ipv4Addr, first_port: u16, size: u16) {
        let Some(place) = self.served(address) else { return };
        self.get_or_new(place);
        let last = u32::from(first_port) + u32::from(size.max(1)) - 1;
        for block in u32::from(first_port / self.size)..=last / u32::from(self.size) {
            self.set(place, (block * u32::from(self.size)) as u16, true);
        }
    }

    pub(super) fn mark_free(&mut self, address: Ipv4Addr, first_port: u16) {
        if let Some(place) = self.served(address) {
            self.set(place, first_port, false);
        }
    }

    pub(super) fn usage(&self) -> BlockUsage {
        let places = u64::from(self.end - self.first) - self.reserved.len() as u64;
        let blocks = places * u64::from(self.blocks_per_address());
        BlockUsage {
            net: self.net,
            used: self.used,
            free: blocks.saturating_sub(self.used),
            addresses: self.in_use,
            high_water: self.high_water,
        }
    }
}
