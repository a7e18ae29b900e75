//! Small manifests in, the interesting part of what Envoy is sent out.
//!
//! `golden/NAME.yaml` is the input and `golden/NAME.snap` the output; `golden/services.yaml` comes with each. A comment
//! `# show: TYPE NAME POINTER` picks a part: a name that ends in `~` is that of the one resource which begins so, and
//! the pointer is a JSON pointer into the resource, empty for the whole. `INSTA_UPDATE=always cargo test` accepts, but for
//! another output of an equal input, which needs a higher `REVISION`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use crate::compile::{Compiler, Published};
use crate::descriptors;
use crate::model::Certificate;
use crate::settings::{RateLimitService, Settings};
use crate::source::files;
use crate::store::Change;
use crate::values::Severity;
use crate::xds::TypeUrl;

const SERVICES: &str = "services.yaml";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/translate/golden")
}

/// The inputs, by name.
pub(super) fn inputs() -> Vec<PathBuf> {
    let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut inputs: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|e| e == "yaml") && !path.ends_with(SERVICES))
        .collect();
    inputs.sort();
    assert!(inputs.len() >= 25, "only {} inputs", inputs.len());
    inputs
}

pub(super) fn compiled(input: &Path) -> Published {
    let settings = Settings {
        http_port: 8080,
        https_port: 8443,
        on_demand_threshold: 1,
        ratelimit: Some(RateLimitService { host: "127.0.0.1".to_owned(), port: 8081, secrets: None }),
        ..Settings::default()
    };
    let certificate = Certificate { chain: b"chain".to_vec(), private_key: b"key".to_vec() };
    let mut compiler = Compiler::new(settings, certificate).unwrap();
    let loaded = files::load(&[folder().join(SERVICES), input.to_owned()]).unwrap();
    assert!(loaded.findings.is_empty(), "{input:?}: {:?}", loaded.findings);
    let mut changes: Vec<_> = loaded.applied.into_iter().map(Change::Applied).collect();
    changes.push(Change::Ready);
    compiler.apply(changes).clone()
}

fn part(published: &Published, wanted: &str) -> Value {
    let mut words = wanted.split_whitespace();
    let (short, name) = (words.next().unwrap(), words.next().unwrap());
    let type_url = TypeUrl::ALL.into_iter().find(|type_url| type_url.short() == short);
    let type_url = type_url.unwrap_or_else(|| panic!("{short} is no type"));
    let is_wanted = |own: &str| if name.ends_with('~') { own.starts_with(name) } else { own == name };
    let mut found = published.snapshot.iter(type_url).filter(|resource| is_wanted(resource.name()));
    let (Some(resource), None) = (found.next(), found.next()) else {
        let have: Vec<_> = published.snapshot.iter(type_url).map(|resource| resource.name()).collect();
        panic!("{wanted}: not one of {have:?}")
    };
    let whole = descriptors::to_json(type_url.as_str(), resource.body()).unwrap();
    let pointer = words.next().unwrap_or_default();
    whole.pointer(pointer).unwrap_or_else(|| panic!("{wanted}: not in {whole:#}")).clone()
}

/// Without the hashes at the ends of clusters' names, which change whenever a setting is added to clusters.
fn steady(value: Value) -> Value {
    static HASH: LazyLock<Regex> = LazyLock::new(|| Regex::new("~[0-9a-f]{16}$").unwrap());
    match value {
        Value::String(text) => HASH.replace(&text, "~").into(),
        Value::Array(items) => items.into_iter().map(steady).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, steady(value))).collect(),
        other => other,
    }
}

#[test]
fn golden() {
    for input in inputs() {
        let text = std::fs::read_to_string(&input).unwrap();
        let published = compiled(&input);
        let wanted: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("# show: ")).collect();
        assert!(!wanted.is_empty(), "{input:?} shows nothing");
        let shown: Vec<_> = wanted.iter().map(|of| json!({*of: steady(part(&published, of))})).collect();
        let findings = published.findings.values().flat_map(|found| found.iter());
        let findings: Vec<_> =
            findings.filter(|f| f.severity != Severity::Info).map(ToString::to_string).collect();
        let output = match findings.is_empty() {
            true => json!(shown),
            false => json!({"shown": shown, "findings": findings}),
        };
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(folder());
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let name = input.file_stem().unwrap().to_str().unwrap();
        settings.bind(|| insta::assert_yaml_snapshot!(name, output));
    }
    check_revisions();
}

/// Of each golden: its name, the hashes of its input and output, and the revision since which it is so.
const REVISIONS: &str = "revisions.txt";

/// Where equal input makes another output, the revision has to be another one, or Envoys that hold the old form by the same
/// version are never sent the new one.
fn check_revisions() {
    let path = folder().join(REVISIONS);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let known: BTreeMap<&str, (&str, &str, u32)> = text
        .lines()
        .map(|line| {
            let [name, input, output, revision] = *line.split(' ').collect::<Vec<_>>() else {
                panic!("{line}")
            };
            (name, (input, output, revision.parse().unwrap()))
        })
        .collect();
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let services = read(&folder().join(SERVICES));
    let mut lines = String::new();
    for path in inputs() {
        let name = path.file_stem().unwrap().to_str().unwrap();
        let input = format!("{:016x}", xxh3_64((read(&path) + &services).as_bytes()));
        // Without the head, which is insta's own.
        let snapshot = read(&path.with_extension("snap"));
        let output = snapshot.splitn(3, "---\n").nth(2).unwrap();
        let output = format!("{:016x}", xxh3_64(output.as_bytes()));
        let mut since = super::REVISION;
        if let Some((known_input, known_output, revision)) = known.get(name).filter(|known| known.0 == input)
        {
            if *known_output == output {
                since = *revision;
            } else {
                assert!(
                    *revision < since,
                    "{name}: {known_input} makes something else than at REVISION {since}: raise it"
                );
            }
        }
        lines += &format!("{name} {input} {output} {since}\n");
    }
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        std::fs::write(&path, lines).unwrap();
    } else {
        assert_eq!(lines, text, "{REVISIONS} is not of these goldens: INSTA_UPDATE=always cargo test golden");
    }
}

/// Every snapshot belongs to an input.
#[test]
fn no_golden_output_is_left_behind() {
    let names: BTreeSet<_> = inputs().iter().map(|input| input.file_stem().unwrap().to_owned()).collect();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let is_output = path.extension().is_some_and(|extension| extension == "snap");
        assert!(!is_output || names.contains(path.file_stem().unwrap()), "{path:?} has no input");
    }
}

fn types_in(value: &Value, types: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            types.extend(fields.get("@type").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| types_in(value, types));
        }
        Value::Array(items) => items.iter().for_each(|value| types_in(value, types)),
        _ => {}
    }
}

/// Whatever is sent can be printed, with every message inside, and nothing of it is lost on the way.
#[test]
fn every_type_is_printable() {
    let mut types = BTreeSet::new();
    for input in inputs() {
        let snapshot = compiled(&input).snapshot;
        for resource in TypeUrl::ALL.into_iter().flat_map(|type_url| snapshot.iter(type_url)) {
            let type_name = resource.type_url().as_str();
            let body = resource.body();
            let json = descriptors::to_json(type_name, body)
                .unwrap_or_else(|error| panic!("{input:?}: {} {}: {error}", type_name, resource.name()));
            types_in(&json, &mut types);
            types.insert(type_name.to_owned());
            let again = descriptors::from_json(type_name, &json).unwrap();
            assert_eq!(
                again.len(),
                body.len(),
                "{input:?}: {} is printed in part: {json:#}",
                resource.name()
            );
        }
    }
    // What the inputs are there for: a feature whose message is in none of them has no golden.
    for message in [
        "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit",
        "envoy.extensions.filters.http.cors.v3.CorsPolicy",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        "envoy.extensions.filters.http.lua.v3.Lua",
        "envoy.extensions.filters.http.ratelimit.v3.RateLimitPerRoute",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "envoy.extensions.transport_sockets.tls.v3.Secret",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
    ] {
        assert!(types.contains(&format!("type.googleapis.com/{message}")), "{message} is in no golden");
    }
}
