//! Hides pools behind the host's own IPv4 address: one nftables table per interface.
//!
//! ```text
//! table ip protomask_<interface> {
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr <pool> oifname != "<interface>" masquerade
//!     }
//! }
//! ```
//!
//! The table has no owner: it outlives the socket it was made over, so that flows behind it go on when this process ends
//! uncleanly. It is replaced in one transaction, so that there is no moment without it.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use netlink_packet_core::{NLM_F_APPEND, NLM_F_CREATE};
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::nftables::{
    Bitwise, ChainAttribute, ChainMessage, Cmp, DataAttribute, ExpressionAttribute, Expressions, Hook,
    HookNumber, InetHookNumber, ListAttribute, Meta, MetaKey, NfTablesMessage, Operator, Payload, Register,
    RuleAttribute, RuleMessage, TableAttribute, TableFlags, TableMessage,
};

use super::netfilter::{self, NetfilterError};

/// What the name of each of our tables begins with.
pub const TABLE_PREFIX: &str = "protomask_";

const FAMILY: NetfilterProtoFamily = NetfilterProtoFamily::IPv4;
const CHAIN: &str = "postrouting";
const CHAIN_TYPE: &str = "nat";
/// `NF_IP_PRI_NAT_SRC`, which nft calls `srcnat`.
const PRIORITY: u32 = 100;
const NF_ACCEPT: u32 = 1;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
/// Where the source address begins in the IPv4 header (RFC 791 section 3.1).
const SOURCE_ADDRESS: u32 = 12;
const ADDRESS_BYTES: u32 = 4;
/// `IFNAMSIZ`: interface names are compared as that many bytes, padded with zeros.
const NAME_BYTES: usize = 16;

/// What shall be masqueraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masquerade {
    /// Name of the TUN interface. What leaves by it is not masqueraded.
    pub interface: String,
    /// Source networks to hide. Host bits are ignored.
    pub pools: Vec<Ipv4Net>,
}

/// The name of the table for an interface.
///
/// nft allows letters, digits and `/ - _ .`; another byte becomes `/` and two hexadecimal digits. Interface names cannot
/// hold a slash, so no two have the same table.
pub fn table_name(interface: &str) -> String {
    use std::fmt::Write as _;
    let mut name = TABLE_PREFIX.to_owned();
    for byte in interface.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => _ = write!(name, "/{byte:02x}"),
        }
    }
    name
}

/// Makes the table, or replaces the one of this name, in one transaction.
pub fn install(masquerade: &Masquerade) -> Result<(), NetfilterError> {
    let table = table_name(&masquerade.interface);
    let mut steps = vec![
        // Deleting what is not there would fail, so it is made first: afterwards nothing of an earlier table is left.
        (NfTablesMessage::NewTable(table_message(&table)), NLM_F_CREATE),
        (NfTablesMessage::DeleteTable(table_message(&table)), 0),
        (NfTablesMessage::NewTable(table_message(&table)), NLM_F_CREATE),
        (NfTablesMessage::NewChain(chain_message(&table)), NLM_F_CREATE),
    ];
    for pool in wanted_pools(masquerade) {
        let rule = rule_message(&table, pool, &masquerade.interface);
        steps.push((NfTablesMessage::NewRule(rule), NLM_F_CREATE | NLM_F_APPEND));
    }
    netfilter::transaction("install the masquerade table", FAMILY, steps)
        .map_err(|error| if error.is_missing() { NetfilterError::NoMasquerade } else { error })
}

/// Removes the table of an interface. Returns whether there was one.
pub fn remove(interface: &str) -> Result<bool, NetfilterError> {
    remove_table(&table_name(interface))
}

/// Removes one of our tables by its name, as [`list_ours`] gives it. Returns whether it was there.
pub(super) fn remove_table(table: &str) -> Result<bool, NetfilterError> {
    let steps = vec![(NfTablesMessage::DeleteTable(table_message(table)), 0)];
    match netfilter::transaction("remove the masquerade table", FAMILY, steps) {
        Ok(()) => Ok(true),
        Err(NetfilterError::NoNfTables) => Ok(false),
        Err(error) if error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the table is there and holds exactly what [`install`] makes.
pub fn is_installed(masquerade: &Masquerade) -> Result<bool, NetfilterError> {
    let table = table_name(&masquerade.interface);
    let Some((_, flags)) = tables()?.into_iter().find(|(name, _)| *name == table) else {
        return Ok(false);
    };
    if !flags.is_empty() {
        return Ok(false);
    }
    let query = NfTablesMessage::GetChain(ChainMessage { attributes: vec![] });
    let chains: Vec<ChainMessage> = netfilter::dump("list the nftables chains", FAMILY, &query)?
        .into_iter()
        .filter_map(|(_, object)| match object {
            NfTablesMessage::NewChain(chain) => Some(chain),
            _ => None,
        })
        .filter(|chain| chain.attributes.contains(&ChainAttribute::Table(table.clone())))
        .collect();
    if chains.len() != 1 || !chains.iter().all(chain_fits) {
        return Ok(false);
    }
    let query = NfTablesMessage::GetRule(RuleMessage {
        attributes: vec![RuleAttribute::Table(table.clone()), RuleAttribute::Chain(CHAIN.to_owned())],
    });
    let mut found = BTreeSet::new();
    for (_, object) in netfilter::dump("list the nftables rules", FAMILY, &query)? {
        let NfTablesMessage::NewRule(rule) = object else { continue };
        // Kernels before 4.17 ignore the filter of a dump.
        if !rule.attributes.contains(&RuleAttribute::Table(table.clone())) {
            continue;
        }
        match read_rule(&rule) {
            Some((pool, interface)) if interface == masquerade.interface && found.insert(pool) => {}
            _ => return Ok(false),
        }
    }
    Ok(found == wanted_pools(masquerade))
}

/// The names of the tables that carry our mark.
pub fn list_ours() -> Result<Vec<String>, NetfilterError> {
    match tables() {
        Ok(tables) => Ok(tables
            .into_iter()
            .map(|(name, _)| name)
            .filter(|name| name.starts_with(TABLE_PREFIX))
            .collect()),
        Err(NetfilterError::NoNfTables) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn tables() -> Result<Vec<(String, TableFlags)>, NetfilterError> {
    let query = NfTablesMessage::GetTable(TableMessage { attributes: vec![] });
    let objects = netfilter::dump("list the nftables tables", FAMILY, &query)?;
    Ok(objects
        .into_iter()
        .filter_map(|(_, object)| match object {
            NfTablesMessage::NewTable(table) => Some(table.attributes),
            _ => None,
        })
        .filter_map(|attributes| {
            let name = attributes.iter().find_map(|attribute| match attribute {
                TableAttribute::Name(name) => Some(name.clone()),
                _ => None,
            })?;
            let flags = attributes.iter().find_map(|attribute| match attribute {
                TableAttribute::Flags(flags) => Some(*flags),
                _ => None,
            });
            Some((name, flags.unwrap_or(TableFlags::empty())))
        })
        .collect())
}

fn wanted_pools(masquerade: &Masquerade) -> BTreeSet<Ipv4Net> {
    masquerade.pools.iter().map(Ipv4Net::trunc).collect()
}

fn table_message(table: &str) -> TableMessage {
    TableMessage { attributes: vec![TableAttribute::Name(table.to_owned())] }
}

fn chain_message(table: &str) -> ChainMessage {
    ChainMessage {
        attributes: vec![
            ChainAttribute::Table(table.to_owned()),
            ChainAttribute::Name(CHAIN.to_owned()),
            ChainAttribute::Hook(vec![
                Hook::Number(HookNumber::Inet(InetHookNumber::PostRouting)),
                Hook::Priority(PRIORITY),
            ]),
            ChainAttribute::Policy(NF_ACCEPT),
            ChainAttribute::Type(CHAIN_TYPE.to_owned()),
        ],
    }
}

fn chain_fits(chain: &ChainMessage) -> bool {
    let hook = chain.attributes.iter().find_map(|attribute| match attribute {
        ChainAttribute::Hook(hook) => Some(hook.as_slice()),
        _ => None,
    });
    let Some(hook) = hook else { return false };
    hook.contains(&Hook::Number(HookNumber::Inet(InetHookNumber::PostRouting)))
        && hook.contains(&Hook::Priority(PRIORITY))
        && chain.attributes.contains(&ChainAttribute::Name(CHAIN.to_owned()))
        && chain.attributes.contains(&ChainAttribute::Type(CHAIN_TYPE.to_owned()))
        && chain.attributes.contains(&ChainAttribute::Policy(NF_ACCEPT))
}

fn name_bytes(interface: &str) -> Vec<u8> {
    let mut bytes = interface.as_bytes().to_vec();
    bytes.resize(NAME_BYTES, 0);
    bytes
}

fn rule_message(table: &str, pool: Ipv4Net, interface: &str) -> RuleMessage {
    let register = Register::Reg1;
    let value = |bytes: &[u8]| DataAttribute::Value(bytes.to_vec());
    let expressions = [
        Expressions::Payload(vec![
            Payload::DestinationRegister(register),
            Payload::Base(NFT_PAYLOAD_NETWORK_HEADER),
            Payload::Offset(SOURCE_ADDRESS),
            Payload::Len(ADDRESS_BYTES),
        ]),
        Expressions::Bitwise(vec![
            Bitwise::SourceRegister(register),
            Bitwise::DestinationRegister(register),
            Bitwise::Length(ADDRESS_BYTES),
            Bitwise::Mask(value(&pool.netmask().octets())),
            Bitwise::Xor(value(&[0; ADDRESS_BYTES as usize])),
        ]),
        Expressions::Cmp(vec![
            Cmp::SourceRegister(register),
            Cmp::Op(Operator::Equal),
            Cmp::Data(value(&pool.network().octets())),
        ]),
        Expressions::Meta(vec![Meta::DestinationRegister(register), Meta::Key(MetaKey::Oifname)]),
        Expressions::Cmp(vec![
            Cmp::SourceRegister(register),
            Cmp::Op(Operator::NotEqual),
            Cmp::Data(value(&name_bytes(interface))),
        ]),
        Expressions::Other { expression_type: "masq".to_owned(), attributes: vec![] },
    ];
    RuleMessage {
        attributes: vec![
            RuleAttribute::Table(table.to_owned()),
            RuleAttribute::Chain(CHAIN.to_owned()),
            RuleAttribute::Expressions(expressions.into_iter().map(Into::into).collect()),
        ],
    }
}

/// Reads a rule of the shape that [`rule_message`] makes; `None` for any other.
fn read_rule(rule: &RuleMessage) -> Option<(Ipv4Net, String)> {
    let list = rule.attributes.iter().find_map(|attribute| match attribute {
        RuleAttribute::Expressions(list) => Some(list),
        _ => None,
    })?;
    let mut expressions = Vec::with_capacity(6);
    for element in list {
        let ListAttribute::Element(attributes) = element else { return None };
        // An expression without parameters, like masq, may come without data.
        let mut name = None;
        let mut data = None;
        for attribute in attributes {
            match attribute {
                ExpressionAttribute::Name(text) => name = Some(text.as_str()),
                ExpressionAttribute::Data(expression) => data = Some(expression),
                _ => return None,
            }
        }
        expressions.push((name?, data));
    }
    let [
        ("payload", Some(Expressions::Payload(payload))),
        ("bitwise", Some(Expressions::Bitwise(bitwise))),
        ("cmp", Some(Expressions::Cmp(address))),
        ("meta", Some(Expressions::Meta(meta))),
        ("cmp", Some(Expressions::Cmp(name))),
        ("masq", masq),
    ] = expressions.as_slice()
    else {
        return None;
    };
    let loads_source = payload.contains(&Payload::Base(NFT_PAYLOAD_NETWORK_HEADER))
        && payload.contains(&Payload::Offset(SOURCE_ADDRESS))
        && payload.contains(&Payload::Len(ADDRESS_BYTES));
    let mask = bitwise.iter().find_map(|attribute| match attribute {
        Bitwise::Mask(DataAttribute::Value(bytes)) => ipv4(bytes),
        _ => None,
    })?;
    let plain_mask = bitwise.iter().all(|attribute| match attribute {
        Bitwise::Xor(data) => *data == DataAttribute::Value(vec![0; ADDRESS_BYTES as usize]),
        Bitwise::Op(operation) => *operation == 0,
        _ => true,
    });
    let loads_name = meta.contains(&Meta::Key(MetaKey::Oifname));
    let unconditional = match masq {
        None => true,
        Some(Expressions::Other { attributes, .. }) => attributes.is_empty(),
        Some(_) => false,
    };
    if !(loads_source && plain_mask && loads_name && unconditional) {
        return None;
    }
    let network = ipv4(compared(address, Operator::Equal)?)?;
    let pool = Ipv4Net::with_netmask(network, mask).ok()?;
    let name = compared(name, Operator::NotEqual)?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some((pool, String::from_utf8(name[..end].to_vec()).ok()?))
}

fn compared(cmp: &[Cmp], operator: Operator) -> Option<&[u8]> {
    if !cmp.contains(&Cmp::Op(operator)) {
        return None;
    }
    cmp.iter().find_map(|attribute| match attribute {
        Cmp::Data(DataAttribute::Value(bytes)) => Some(bytes.as_slice()),
        _ => None,
    })
}

fn ipv4(bytes: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(bytes).ok().map(Ipv4Addr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_names_are_legal_and_never_shared() {
        assert_eq!(table_name("protomask0"), "protomask_protomask0");
        assert_eq!(table_name("a b"), "protomask_a/20b");
        assert_ne!(table_name("a b"), table_name("a_b"));
        assert_eq!(table_name("\"x\""), "protomask_/22x/22");
    }

    #[test]
    fn a_rule_is_read_back_as_it_was_made() {
        for pool in ["192.168.255.0/24", "10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0", "10.1.2.0/23"] {
            let pool: Ipv4Net = pool.parse().unwrap();
            let rule = rule_message("t", pool, "nat64");
            assert_eq!(read_rule(&rule), Some((pool, "nat64".to_owned())));
        }
    }

    #[test]
    fn a_rule_with_anything_else_in_it_is_not_ours() {
        let pool = "192.0.2.0/24".parse().unwrap();
        let mut rule = rule_message("t", pool, "nat64");
        for attribute in &mut rule.attributes {
            if let RuleAttribute::Expressions(list) = attribute {
                list.pop();
            }
        }
        assert_eq!(read_rule(&rule), None);
    }

    #[test]
    fn the_same_pool_twice_is_one_rule() {
        let pools = vec!["192.0.2.1/24".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
        assert_eq!(wanted_pools(&Masquerade { interface: "x".into(), pools }).len(), 1);
    }
}
