//! The variables of envoyproxy/ratelimit, for its flags here that mean the same. They go before the file of `--config`,
//! and our own variables before them.
//!
//! Some of their names are anybody's, such as `PORT`. So they are read only where one says that they are meant, which
//! every deployment of it sets.

use std::collections::BTreeMap;

use super::config::Values;

/// One of these is set where the others are meant.
const MARKS: [&str; 3] = ["RUNTIME_ROOT", "RUNTIME_SUBDIRECTORY", "CONFIG_TYPE"];

/// Variables that stand for a flag as they are.
const TEXTS: [(&str, &str); 4] = [
    ("LIMIT_LIMIT_HEADER", "limit-limit-header"),
    ("LIMIT_REMAINING_HEADER", "limit-remaining-header"),
    ("LIMIT_RESET_HEADER", "limit-reset-header"),
    ("NEAR_LIMIT_RATIO", "near-limit-ratio"),
];

/// Variables that say yes or no.
const SWITCHES: [(&str, &str); 5] = [
    ("MERGE_DOMAIN_CONFIG", "merge-domain-config"),
    ("SHADOW_MODE", "shadow-mode"),
    ("QUOTA_MODE", "quota-mode"),
    ("LIMIT_RESPONSE_HEADERS_ENABLED", "limit-response-headers"),
    ("RESPONSE_DYNAMIC_METADATA", "response-dynamic-metadata"),
];

/// The files of mutual TLS; none of them without the others.
const FILES: [(&str, &str); 3] = [
    ("GRPC_SERVER_TLS_CERT", "xds-tls-cert"),
    ("GRPC_SERVER_TLS_KEY", "xds-tls-key"),
    ("GRPC_CLIENT_TLS_CACERT", "xds-ca"),
];

/// Whether any of these variables is meant for us. An empty one is none.
pub(super) fn is_meant(variable: impl Fn(&str) -> Option<String>) -> bool {
    MARKS.iter().any(|name| variable(name).is_some())
}

/// What these variables say, by flag.
pub(super) fn values(variable: impl Fn(&str) -> Option<String>) -> BTreeMap<String, Values> {
    let mut values = BTreeMap::new();
    // An empty one is none, as there.
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if !is_meant(variable) {
        return values;
    }
    let mut set = |flag: &str, value: String| {
        values.insert(flag.to_owned(), Values(vec![value]));
    };
    let or = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
    if or("CONFIG_TYPE", "FILE") == "GRPC_XDS_SOTW" {
        let server = or("CONFIG_GRPC_XDS_SERVER_URL", "localhost:18000");
        set("xds", server.trim_start_matches("dns:///").to_owned());
        set("xds-type", "ratelimitconfig".to_owned());
        set("xds-node-id", or("CONFIG_GRPC_XDS_NODE_ID", "default"));
    } else {
        let root = or("RUNTIME_ROOT", "/srv/runtime_data/current");
        let below = [or("RUNTIME_SUBDIRECTORY", ""), or("RUNTIME_APPDIRECTORY", "config")];
        let folder = below
            .iter()
            .filter(|name| !name.is_empty())
            .fold(root, |path, name| format!("{}/{}", path.trim_end_matches('/'), name.trim_matches('/')));
        set("ratelimit-config", folder);
    }
    if let Some(path) = variable("GRPC_UDS") {
        set("ratelimit-listen", format!("unix:{path}"));
    } else if variable("GRPC_HOST").or(variable("GRPC_PORT")).is_some() {
        set("ratelimit-listen", format!("{}:{}", or("GRPC_HOST", "0.0.0.0"), or("GRPC_PORT", "8081")));
    }
    if variable("HOST").or(variable("PORT")).is_some() {
        set("http-listen", format!("{}:{}", or("HOST", "0.0.0.0"), or("PORT", "8080")));
    }
    for (name, flag) in TEXTS {
        variable(name).into_iter().for_each(|value| set(flag, value));
    }
    for (name, flag) in SWITCHES {
        variable(name).into_iter().for_each(|value| set(flag, switch(value)));
    }
    // Which name a client's certificate has to bear cannot be said here.
    let has_tls =
        switch(or("GRPC_SERVER_USE_TLS", "")) == "true" && variable("GRPC_CLIENT_TLS_SAN").is_none();
    if has_tls && FILES.iter().all(|(name, _)| variable(name).is_some()) {
        for (name, flag) in FILES {
            variable(name).into_iter().for_each(|value| set(flag, value));
        }
    }
    if let Some(level) = variable("LOG_LEVEL") {
        let level = level.to_ascii_lowercase();
        let level = match level.as_str() {
            "fatal" | "panic" => "error",
            "warning" => "warn",
            other => other,
        };
        set("log-level", level.to_owned());
    }
    variable("LOG_FORMAT").into_iter().for_each(|format| set("log-format", format));
    values
}

/// As Go reads it; what it does not read either is left for the flag to refuse.
pub(super) fn switch(value: String) -> String {
    match value.as_str() {
        "1" | "t" | "T" | "TRUE" | "True" => "true".to_owned(),
        "0" | "f" | "F" | "FALSE" | "False" => "false".to_owned(),
        _ => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(variables: &[(&str, &str)]) -> Vec<String> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        values(variable)
            .into_iter()
            .map(|(flag, values)| format!("--{flag}={}", values.0.join(",")))
            .collect()
    }

    #[test]
    fn variables_say_what_they_say_there() {
        let root = ("RUNTIME_ROOT", "/data/");
        let folder = "--ratelimit-config=/data/config";
        let tls = [
            ("GRPC_SERVER_USE_TLS", "true"),
            ("GRPC_SERVER_TLS_CERT", "c"),
            ("GRPC_SERVER_TLS_KEY", "k"),
            ("GRPC_CLIENT_TLS_CACERT", "a"),
        ];
        for (variables, expected) in [
            // Anybody's.
            (&[("PORT", "1"), ("LOG_LEVEL", "debug"), ("SHADOW_MODE", "true")][..], &[][..]),
            (&[root, ("PORT", "")], &[folder]),
            (
                &[("RUNTIME_SUBDIRECTORY", "ratelimit")],
                &["--ratelimit-config=/srv/runtime_data/current/ratelimit/config"],
            ),
            (
                &[root, ("RUNTIME_SUBDIRECTORY", "/s/"), ("RUNTIME_APPDIRECTORY", "a")],
                &["--ratelimit-config=/data/s/a"],
            ),
            (&[root, ("GRPC_PORT", "9")], &[folder, "--ratelimit-listen=0.0.0.0:9"]),
            (&[root, ("GRPC_HOST", "127.0.0.1")], &[folder, "--ratelimit-listen=127.0.0.1:8081"]),
            (&[root, ("GRPC_PORT", "9"), ("GRPC_UDS", "/r")], &[folder, "--ratelimit-listen=unix:/r"]),
            (&[root, ("HOST", "127.0.0.1")], &["--http-listen=127.0.0.1:8080", folder]),
            (&[root, ("SHADOW_MODE", "T")], &[folder, "--shadow-mode=true"]),
            (&[root, ("QUOTA_MODE", "0")], &["--quota-mode=false", folder]),
            (&[root, ("LIMIT_RESET_HEADER", "X")], &["--limit-reset-header=X", folder]),
            (
                &[root, ("LOG_LEVEL", "FATAL"), ("LOG_FORMAT", "json")],
                &["--log-format=json", "--log-level=error", folder],
            ),
            (
                &[("CONFIG_TYPE", "GRPC_XDS_SOTW"), root],
                &["--xds=localhost:18000", "--xds-node-id=default", "--xds-type=ratelimitconfig"],
            ),
            (
                &[
                    ("CONFIG_TYPE", "GRPC_XDS_SOTW"),
                    ("CONFIG_GRPC_XDS_SERVER_URL", "dns:///m:1"),
                    ("CONFIG_GRPC_XDS_NODE_ID", "n"),
                ],
                &["--xds=m:1", "--xds-node-id=n", "--xds-type=ratelimitconfig"],
            ),
            (&[root, tls[0], tls[1], tls[2]], &[folder]),
            (&[root, tls[1], tls[2], tls[3]], &[folder]),
            (&[root, tls[0], tls[1], tls[2], tls[3], ("GRPC_CLIENT_TLS_SAN", "s")], &[folder]),
            (
                &[root, tls[0], tls[1], tls[2], tls[3]],
                &[folder, "--xds-ca=a", "--xds-tls-cert=c", "--xds-tls-key=k"],
            ),
        ] {
            assert_eq!(said(variables), expected, "{variables:?}");
        }
    }

    /// Every flag that is set is one, and takes what it is given.
    #[test]
    fn flags_take_them() {
        let everything: Vec<(&str, &str)> = [
            ("RUNTIME_ROOT", "/data"),
            ("GRPC_PORT", "9"),
            ("PORT", "8"),
            ("GRPC_SERVER_USE_TLS", "1"),
            ("LOG_LEVEL", "WARN"),
            ("LOG_FORMAT", "json"),
        ]
        .into_iter()
        .chain(TEXTS.map(|(name, flag)| (name, if flag == "near-limit-ratio" { "0.7" } else { "X" })))
        .chain(SWITCHES.map(|(name, _)| (name, "True")))
        .chain(FILES.map(|(name, _)| (name, "f")))
        .collect();
        let xds = vec![("CONFIG_TYPE", "GRPC_XDS_SOTW")];
        for variables in [everything, xds] {
            let line = ["chancery".to_owned(), "ratelimit".to_owned()].into_iter().chain(said(&variables));
            super::super::command().try_get_matches_from(line).unwrap();
        }
    }
}
