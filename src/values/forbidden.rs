//! Hosts that no object may have requests sent to: Envoy's own machine, where its admin and the control plane listen, and
//! what only that machine can reach, such as a cloud's metadata.
//!
//! Objects are written by tenants, who would otherwise reach all of that in Envoy's name. What is judged is the text: a
//! name that turns out to resolve to such an address is not found out here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names of the machine itself: what the hosts files of common images say.
const LOCAL_NAMES: &[&str] =
    &["localhost", "localhost.localdomain", "localhost6", "ip6-localhost", "ip6-loopback"];

/// Why requests must not be sent to a host, in one clause behind its name; none if they may.
pub fn problem(host: &str) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if LOCAL_NAMES.contains(&host.as_str()) || host.ends_with(".localhost") {
        return Some("is Envoy's own machine");
    }
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => address_problem(address),
        // Resolvers take `127.1`, `0x7f.1` and `2130706433` for addresses. No top-level domain looks so.
        Err(_) if ends_in_number(&host) => Some("is neither a name nor an address in its usual form"),
        Err(_) => None,
    }
}

fn address_problem(address: IpAddr) -> Option<&'static str> {
    let (this_machine, link_local) = match address.to_canonical() {
        IpAddr::V4(v4) => (v4.is_loopback() || v4.octets()[0] == 0, v4.is_link_local()),
        IpAddr::V6(v6) => match embedded(v6) {
            Some(v4) => return address_problem(IpAddr::V4(v4)),
            None => (v6.is_loopback() || v6.is_unspecified(), v6.is_unicast_link_local()),
        },
    };
    if this_machine {
        return Some("is Envoy's own machine");
    }
    if link_local {
        return Some("is an address of Envoy's own link, such as a cloud's metadata");
    }
    let many = address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST);
    many.then_some("is an address of many machines")
}

/// The IPv4 address in one of IPv6 that is translated to it (`::a.b.c.d`, `64:ff9b::a.b.c.d`).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let bytes = address.octets();
    let compatible = bytes[..12] == [0; 12] && !address.is_loopback() && !address.is_unspecified();
    let translated = bytes[..12] == [0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0];
    (compatible || translated).then(|| Ipv4Addr::new(bytes[12], bytes[13], bytes[14], bytes[15]))
}

fn ends_in_number(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or_default();
    let decimal = !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit());
    decimal || last.strip_prefix("0x").is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_spelling_of_the_machine_gets_through() {
        for host in [
            "localhost",
            "LocalHost.",
            "a.localhost",
            "localhost.localdomain",
            "ip6-localhost",
            "127.0.0.1",
            "127.0.0.1.",
            "127.255.0.9",
            "127.1",
            "0x7f.1",
            "0x7F000001",
            "0x",
            "2130706433",
            "017700000001",
            "0177.0.0.1",
            "127.0.0.0x1",
            "0",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "[::1]",
            "::",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "fe80::1",
            "ff02::1",
            "1.2.3.4.5",
            "999.1.1.1",
        ] {
            assert!(problem(host).is_some(), "{host}");
        }
    }

    #[test]
    fn other_hosts_are_free() {
        for host in [
            "api.example.com",
            "10.0.0.1",
            "192.168.1.2.",
            "198.18.0.1",
            "localhost.example.com",
            "v1",
            "2001:db8::1",
        ] {
            assert_eq!(problem(host), None, "{host}");
        }
    }
}
