//! Networks of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// A network in CIDR form; an address alone is one of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Network {
    /// An address in it.
    pub address: IpAddr,
    /// How many leading bits its addresses have in common.
    pub bits: u8,
}

impl Network {
    /// The networks of a comma-separated list.
    ///
    /// # Errors
    /// When an entry is none, or there is none at all; the error is the accepted form.
    pub fn list(text: &str) -> Result<Vec<Self>, &'static str> {
        text.split(',').map(|entry| entry.trim().parse()).collect()
    }
}

impl FromStr for Network {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "a list of addresses and networks such as 10.0.0.0/8,192.0.2.7";
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| FORM)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().map_err(|_| FORM)?,
            Some(_) => return Err(FORM),
            None => most,
        };
        if bits > most { Err(FORM) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        for (text, networks) in [
            ("10.0.0.0/8", &["10.0.0.0/8"][..]),
            ("10.0.0.0/8, 192.0.2.7", &["10.0.0.0/8", "192.0.2.7/32"]),
            ("::1,2001:db8::/32,0.0.0.0/0", &["::1/128", "2001:db8::/32", "0.0.0.0/0"]),
        ] {
            let read: Vec<_> = Network::list(text).unwrap().iter().map(ToString::to_string).collect();
            assert_eq!(read, networks, "{text}");
        }
        for text in
            ["", ",", "10.0.0.0/33", "::/129", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "all", "1.2.3.4/8/8"]
        {
            assert!(Network::list(text).is_err(), "{text}");
        }
    }
}
