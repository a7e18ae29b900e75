//! When a share holds, and what the files that the runner makes look like inside.

use super::Check;
use crate::case::Place;
use crate::expect::share_holds;
use crate::geoip::database;
use anyhow::{Context as _, Result, ensure};
use std::collections::BTreeMap;

pub(super) const CHECKS: &[Check] = &[
    ("judging::a_share_of_none_or_all_is_exact", a_share_of_none_or_all_is_exact),
    ("judging::shares_deviate_as_a_binomial_does", shares_deviate_as_a_binomial_does),
    ("judging::a_reversed_split_never_holds", a_reversed_split_never_holds),
    ("judging::geoip_finds_the_narrowest_network", geoip_finds_the_narrowest_network),
];

fn a_share_of_none_or_all_is_exact() -> Result<()> {
    ensure!(share_holds(0.0, 0, 1000) && !share_holds(0.0, 1, 1000));
    ensure!(share_holds(1.0, 1000, 1000) && !share_holds(1.0, 999, 1000));
    Ok(())
}

/// 1000 × 0.1: σ = 9.487, so 4.5 σ = 42.7.
fn shares_deviate_as_a_binomial_does() -> Result<()> {
    ensure!(share_holds(0.1, 142, 1000) && share_holds(0.1, 58, 1000));
    ensure!(!share_holds(0.1, 143, 1000) && !share_holds(0.1, 57, 1000));
    Ok(())
}

fn a_reversed_split_never_holds() -> Result<()> {
    ensure!(!share_holds(0.9, 100, 1000) && !share_holds(0.7, 300, 1000));
    Ok(())
}

fn geoip_finds_the_narrowest_network() -> Result<()> {
    let place = |country: &str| Place { country: Some(country.to_owned()), continent: None };
    let mut places = BTreeMap::new();
    for (network, country) in [("127.0.0.0/8", "DE"), ("127.0.0.2/32", "FR"), ("2001:db8::/32", "JP")] {
        places.insert(network.parse().map_err(anyhow::Error::msg)?, place(country));
    }
    let file = database(&places);
    for (address, country) in [
        ("127.0.0.2", Some("FR")),
        ("127.0.0.3", Some("DE")),
        ("2001:db8::1", Some("JP")),
        ("10.0.0.1", None),
    ] {
        let found = look_up(&file, address.parse()?)?;
        ensure!(found.as_deref() == country, "{address} is in {found:?}");
    }
    Ok(())
}

/// Walks the tree as the format's description says, and returns the country of the record it ends at.
fn look_up(file: &[u8], address: std::net::IpAddr) -> Result<Option<String>> {
    let marker = b"\xAB\xCD\xEFMaxMind.com";
    let metadata = file.windows(marker.len()).rposition(|window| window == marker).context("no metadata")?;
    let key = b"node_count";
    let at = file[metadata..].windows(key.len()).position(|window| window == key).context("no node_count")?;
    // A byte for the type comes between the key and the number.
    let number = metadata + at + key.len() + 1;
    let count = u32::from_be_bytes(file[number..number + 4].try_into()?);
    let bits = match address {
        std::net::IpAddr::V4(address) => u128::from(address.to_bits()),
        std::net::IpAddr::V6(address) => address.to_bits(),
    };
    let mut node = 0;
    for depth in 0..128 {
        let record = (node * 2 + (bits >> (127 - depth) & 1) as u32) as usize * 4;
        node = u32::from_be_bytes(file[record..record + 4].try_into()?);
        if node >= count {
            break;
        }
    }
    if node <= count {
        return Ok(None);
    }
    let data = (count * 8 + node - count) as usize;
    let key = b"iso_code";
    let at = file[data..].windows(key.len()).position(|window| window == key).context("no country")?;
    let text = data + at + key.len() + 1;
    Ok(Some(String::from_utf8_lossy(&file[text..text + 2]).into_owned()))
}
