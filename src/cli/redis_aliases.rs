//! envoyproxy/ratelimit's variables of its Redis, for our flags. [`super::aliases`] says when they are meant.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, bail};

use super::aliases::{is_meant, switch};
use super::config::Values;

/// What they say where REDIS_URL is, and what is said of nothing without it.
const OF_THE_URL: [&str; 4] = ["REDIS_SOCKET_TYPE", "REDIS_TYPE", "REDIS_AUTH", "REDIS_TLS"];

/// Files, of which there are none without TLS.
const FILES: [(&str, &str); 3] = [
    ("REDIS_TLS_CACERT", "redis-ca"),
    ("REDIS_TLS_CLIENT_CERT", "redis-cert"),
    ("REDIS_TLS_CLIENT_KEY", "redis-key"),
];

/// What changes where or how is counted, and cannot be said here.
const REFUSED: [(&str, &str); 3] = [
    ("REDIS_PERSECOND", "all limits are counted in one Redis"),
    ("REDIS_SENTINEL_AUTH", "sentinels are asked without a password"),
    ("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", "a certificate has to bear the name that was asked for"),
];

/// What is of its own connections and counters.
const WITHOUT_EFFECT: [&str; 10] = [
    "CACHE_KEY_PREFIX",
    "EXPIRATION_JITTER_MAX_SECONDS",
    "LOCAL_CACHE_SIZE_IN_BYTES",
    "REDIS_HEALTH_CHECK_ACTIVE_CONNECTION",
    "REDIS_PIPELINE_LIMIT",
    "REDIS_PIPELINE_WINDOW",
    "REDIS_POOL_ON_EMPTY_BEHAVIOR",
    "REDIS_POOL_SIZE",
    "REDIS_TIMEOUT",
    "STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT",
];

/// What these variables say, by flag.
///
/// # Errors
/// When they say what cannot be said here.
pub(super) fn values(variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<BTreeMap<String, Values>> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    let mut values = BTreeMap::new();
    if !is_meant(variable) {
        return Ok(values);
    }
    if let Some(backend) = variable("BACKEND_TYPE").filter(|backend| backend != "redis") {
        bail!("BACKEND_TYPE={backend}: counters are in a Redis (REDIS_URL, --redis-url) or in memory");
    }
    for (name, why) in REFUSED {
        if variable(name).is_some_and(|value| switch(value) != "false") {
            bail!("{name} has no meaning here: {why}");
        }
    }
    let Some(url) = variable("REDIS_URL") else {
        if let Some(name) = OF_THE_URL.iter().find(|name| variable(name).is_some()) {
            bail!("{name} has no meaning without REDIS_URL");
        }
        return Ok(values);
    };
    let mut set = |flag: &str, value: String| {
        values.insert(flag.to_owned(), Values(vec![value]));
    };
    let tls = match variable("REDIS_TLS").map(switch).as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => bail!("REDIS_TLS={other}: expected true or false"),
    };
    set("redis-url", address(&url, tls, variable)?);
    for (name, flag) in FILES.iter().filter(|_| tls) {
        variable(name).into_iter().for_each(|file| set(flag, file));
    }
    Ok(values)
}

/// Those of these variables that are set and have no effect.
pub(super) fn without_effect(variable: impl Fn(&str) -> Option<String>) -> Vec<&'static str> {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    let meant = is_meant(|name| variable(name).filter(|value| !value.is_empty()));
    WITHOUT_EFFECT.into_iter().filter(|name| meant && is_set(name)).collect()
}

/// As `--redis-url` has it. No message repeats what may hold a password.
fn address(url: &str, tls: bool, variable: impl Fn(&str) -> Option<String>) -> anyhow::Result<String> {
    let (user, password) = match variable("REDIS_AUTH") {
        None => (String::new(), None),
        Some(auth) => match auth.split_once(':') {
            Some((user, password)) => (encoded(user), Some(encoded(password))),
            None => (String::new(), Some(encoded(&auth))),
        },
    };
    let auth = password.as_ref().map(|password| format!("{user}:{password}@")).unwrap_or_default();
    let scheme = if tls { "rediss" } else { "redis" };
    let kind = variable("REDIS_TYPE").unwrap_or_default().to_ascii_lowercase();
    let unix = match variable("REDIS_SOCKET_TYPE").as_deref() {
        Some("unix") => true,
        Some("tcp") => false,
        None => url.starts_with('/'),
        Some(other) => bail!("REDIS_SOCKET_TYPE={other}: expected tcp or unix"),
    };
    Ok(match kind.as_str() {
        "" | "single" if url.contains("://") => {
            if password.is_some() || tls != url.starts_with("rediss://") {
                bail!("REDIS_URL is a whole URL: REDIS_AUTH and REDIS_TLS have to be said in it");
            }
            url.to_owned()
        }
        "" | "single" if unix => match password {
            None => format!("redis+unix://{url}"),
            Some(password) if user.is_empty() => format!("redis+unix://{url}?pass={password}"),
            Some(password) => format!("redis+unix://{url}?user={user}&pass={password}"),
        },
        "" | "single" => format!("{scheme}://{auth}{url}"),
        "cluster" => {
            let one = |server: &str| format!("{scheme}://{auth}{server}");
            let mut servers: Vec<String> = url.split(',').map(one).collect();
            if servers.len() == 1 {
                // Two addresses say that it is a cluster.
                servers.push(servers[0].clone());
            }
            servers.join(",")
        }
        "sentinel" => {
            let form = "REDIS_TYPE=SENTINEL: expected MASTER,HOST:PORT,… in REDIS_URL";
            let (name, sentinels) = url.split_once(',').context(form)?;
            format!("{scheme}+sentinel://{auth}{sentinels}/{name}")
        }
        _ => bail!("REDIS_TYPE={kind}: expected SINGLE, SENTINEL or CLUSTER"),
    })
}

/// A part of a URL that stands for itself.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(byte.into());
        } else {
            // A string takes all that is written.
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::RedisAddress;

    fn of<'a>(variables: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> {
        move |name| {
            let all = [("RUNTIME_ROOT", "/data")];
            all.iter()
                .chain(variables)
                .rfind(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    fn said(variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let values = values(of(variables)).map_err(|error| error.to_string())?;
        Ok(values.into_iter().map(|(flag, values)| format!("{flag}={}", values.0.join(","))).collect())
    }

    #[test]
    fn variables_say_where_redis_is() {
        let (tcp, tls) = (("REDIS_SOCKET_TYPE", "tcp"), ("REDIS_TLS", "true"));
        let url = |url| ("REDIS_URL", url);
        let kind = |kind| ("REDIS_TYPE", kind);
        let auth = |auth| ("REDIS_AUTH", auth);
        for (variables, expected) in [
            (&[][..], &[][..]),
            (&[("RUNTIME_ROOT", ""), url("r:1")], &[]),
            (&[("BACKEND_TYPE", "redis"), tcp, url("r:1")], &["redis-url=redis://r:1"]),
            (&[url("r:1"), kind("SINGLE")], &["redis-url=redis://r:1"]),
            (&[tcp, url("r:1"), auth("p@ss")], &["redis-url=redis://:p%40ss@r:1"]),
            (&[tcp, url("r:1"), auth("u:p:s"), tls], &["redis-url=rediss://u:p%3As@r:1"]),
            (&[tcp, url("redis://r:1/2")], &["redis-url=redis://r:1/2"]),
            (&[url("/run/r.sock")], &["redis-url=redis+unix:///run/r.sock"]),
            (
                &[("REDIS_SOCKET_TYPE", "unix"), url("/r"), auth("u:&")],
                &["redis-url=redis+unix:///r?user=u&pass=%26"],
            ),
            (&[("REDIS_SOCKET_TYPE", "unix"), url("/r"), auth("p")], &["redis-url=redis+unix:///r?pass=p"]),
            (&[tcp, kind("CLUSTER"), url("a:1,b:2")], &["redis-url=redis://a:1,redis://b:2"]),
            (&[kind("cluster"), url("a:1"), auth("p")], &["redis-url=redis://:p@a:1,redis://:p@a:1"]),
            (&[kind("SENTINEL"), url("m,a:1,b:2")], &["redis-url=redis+sentinel://a:1,b:2/m"]),
            (&[kind("SENTINEL"), url("m,a:1"), auth("u:p"), tls], &["redis-url=rediss+sentinel://u:p@a:1/m"]),
            (
                &[
                    ("REDIS_TLS", "1"),
                    url("r:1"),
                    ("REDIS_TLS_CACERT", "a"),
                    ("REDIS_TLS_CLIENT_CERT", "c"),
                    ("REDIS_TLS_CLIENT_KEY", "k"),
                ],
                &["redis-ca=a", "redis-cert=c", "redis-key=k", "redis-url=rediss://r:1"],
            ),
            (&[url("r:1"), ("REDIS_TLS_CACERT", "a")], &["redis-url=redis://r:1"]),
            (&[("REDIS_PERSECOND", "false"), url("r:1")], &["redis-url=redis://r:1"]),
        ] {
            let said = said(variables).unwrap_or_else(|error| panic!("{variables:?}: {error}"));
            assert_eq!(said, expected, "{variables:?}");
            let url = said.iter().find_map(|flag| flag.strip_prefix("redis-url="));
            url.inspect(|url| drop(url.parse::<RedisAddress>().unwrap()));
            let line = ["chancery".to_owned(), "ratelimit".to_owned()].into_iter();
            let line = line.chain(said.iter().map(|flag| format!("--{flag}")));
            super::super::command().try_get_matches_from(line).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_said_here_is_an_error() {
        let url = ("REDIS_URL", "r:1");
        for (variables, expected) in [
            (&[("BACKEND_TYPE", "memcache")][..], "BACKEND_TYPE=memcache"),
            (&[url, ("REDIS_PERSECOND", "true")], "REDIS_PERSECOND"),
            (&[url, ("REDIS_SENTINEL_AUTH", "secret")], "REDIS_SENTINEL_AUTH"),
            (&[url, ("REDIS_TLS_SKIP_HOSTNAME_VERIFICATION", "1")], "REDIS_TLS_SKIP_HOSTNAME_VERIFICATION"),
            (&[("REDIS_AUTH", "secret")], "REDIS_AUTH"),
            (&[url, ("REDIS_TYPE", "ring")], "REDIS_TYPE=ring"),
            (&[url, ("REDIS_TLS", "secure")], "REDIS_TLS=secure"),
            (&[url, ("REDIS_SOCKET_TYPE", "udp")], "REDIS_SOCKET_TYPE=udp"),
            (&[url, ("REDIS_TYPE", "SENTINEL")], "REDIS_TYPE=SENTINEL"),
            (&[("REDIS_URL", "redis://r"), ("REDIS_AUTH", "secret")], "REDIS_URL"),
        ] {
            let error = said(variables).expect_err(expected);
            assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn what_has_no_effect_is_named() {
        let set = [("REDIS_POOL_SIZE", "10"), ("REDIS_TIMEOUT", ""), ("REDIS_PIPELINE_WINDOW", "1ms")];
        assert_eq!(without_effect(of(&set)), ["REDIS_PIPELINE_WINDOW", "REDIS_POOL_SIZE"]);
        assert!(without_effect(of(&[("RUNTIME_ROOT", ""), set[0]])).is_empty());
    }
}
