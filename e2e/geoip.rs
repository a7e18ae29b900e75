//! Writes MaxMind DB files (<https://maxmind.github.io/MaxMind-DB/>): a binary tree over the bits of an address, whose
//! leaves point into a data section. Only what a country database needs.

use crate::case::Place;
use crate::case::values::Network;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// The database of these networks, as the bytes of a file.
pub(crate) fn database(places: &BTreeMap<Network, Place>) -> Vec<u8> {
    let mut tree = Tree { nodes: vec![[Leaf::Empty; 2]] };
    let mut data = Vec::new();
    // Wide networks first, so that narrow ones take their part of them.
    let mut networks: Vec<_> = places.iter().collect();
    networks.sort_by_key(|(network, _)| bits(network).1);
    for (network, place) in networks {
        let (address, length) = bits(network);
        tree.insert(address, length, Leaf::Data(data.len() as u32));
        record(place).encode(&mut data);
    }
    let mut file = tree.encode();
    file.extend([0; SEPARATOR as usize]);
    file.extend(data);
    file.extend(b"\xAB\xCD\xEFMaxMind.com");
    metadata(tree.nodes.len() as u32).encode(&mut file);
    file
}

/// Zero bytes between the tree and the data section.
const SEPARATOR: u32 = 16;

/// The network in the IPv6 tree, where IPv4 is `::/96`.
fn bits(network: &Network) -> (u128, u8) {
    match network.address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), network.prefix + 96),
        IpAddr::V6(address) => (address.to_bits(), network.prefix),
    }
}

#[derive(Clone, Copy)]
enum Leaf {
    Empty,
    Node(u32),
    /// An offset in the data section.
    Data(u32),
}

struct Tree {
    nodes: Vec<[Leaf; 2]>,
}

impl Tree {
    fn insert(&mut self, address: u128, length: u8, leaf: Leaf) {
        let bit = |depth: u8| (address >> (127 - depth) & 1) as usize;
        let mut node = 0;
        for depth in 0..length.saturating_sub(1) {
            node = match self.nodes[node][bit(depth)] {
                Leaf::Node(next) => next as usize,
                wider => {
                    let next = self.nodes.len();
                    self.nodes.push([wider; 2]);
                    self.nodes[node][bit(depth)] = Leaf::Node(next as u32);
                    next
                }
            };
        }
        match length {
            0 => self.nodes[0] = [leaf; 2],
            _ => self.nodes[node][bit(length - 1)] = leaf,
        }
    }

    /// Records of 32 bits: a node's number, or the number of nodes for "nothing", or beyond that a place in the data.
    fn encode(&self) -> Vec<u8> {
        let count = self.nodes.len() as u32;
        let number = |leaf: &Leaf| match *leaf {
            Leaf::Empty => count,
            Leaf::Node(node) => node,
            Leaf::Data(offset) => count + SEPARATOR + offset,
        };
        self.nodes.iter().flatten().flat_map(|leaf| number(leaf).to_be_bytes()).collect()
    }
}

enum Field {
    Text(String),
    U16(u16),
    U32(u32),
    U64(u64),
    List(Vec<Field>),
    Map(Vec<(&'static str, Field)>),
}

impl Field {
    fn text(text: &str) -> Field {
        Field::Text(text.to_owned())
    }

    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Field::Text(text) => {
                control(out, 2, text.len());
                out.extend(text.as_bytes());
            }
            Field::U16(number) => {
                control(out, 5, 2);
                out.extend(number.to_be_bytes());
            }
            Field::U32(number) => {
                control(out, 6, 4);
                out.extend(number.to_be_bytes());
            }
            Field::U64(number) => {
                control(out, 9, 8);
                out.extend(number.to_be_bytes());
            }
            Field::List(items) => {
                control(out, 11, items.len());
                items.iter().for_each(|item| item.encode(out));
            }
            Field::Map(entries) => {
                control(out, 7, entries.len());
                for (key, value) in entries {
                    Field::text(key).encode(out);
                    value.encode(out);
                }
            }
        }
    }
}

/// A type and a size; types from 8 on stand in a second byte, sizes from 29 on in a further one.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (short, more) = if size < 29 { (size as u8, None) } else { (29, Some((size - 29) as u8)) };
    match kind {
        8.. => out.extend([short, kind - 7]),
        _ => out.push(kind << 5 | short),
    }
    out.extend(more);
}

fn record(place: &Place) -> Field {
    let names = |name: &str| ("names", Field::Map(vec![("en", Field::text(name))]));
    let mut entries = Vec::new();
    if let Some(code) = &place.continent {
        entries.push(("continent", Field::Map(vec![("code", Field::text(code)), names(code)])));
    }
    if let Some(code) = &place.country {
        entries.push(("country", Field::Map(vec![("iso_code", Field::text(code)), names(code)])));
        entries.push(("registered_country", Field::Map(vec![("iso_code", Field::text(code)), names(code)])));
    }
    Field::Map(entries)
}

fn metadata(node_count: u32) -> Field {
    Field::Map(vec![
        ("binary_format_major_version", Field::U16(2)),
        ("binary_format_minor_version", Field::U16(0)),
        ("build_epoch", Field::U64(1_700_000_000)),
        ("database_type", Field::text("GeoLite2-Country")),
        ("description", Field::Map(vec![("en", Field::text("Networks of a test case"))])),
        ("ip_version", Field::U16(6)),
        ("languages", Field::List(vec![Field::text("en")])),
        ("node_count", Field::U32(node_count)),
        ("record_size", Field::U16(32)),
    ])
}
