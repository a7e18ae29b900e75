//! What the formats accept, and that they name what they refuse.

use super::Check;
use crate::case::Case;
use crate::case::step::{Action, JsonExpected};
use crate::case::values::{Counted, Pattern, Span};
use crate::manifest::objects;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::time::Duration;

pub(super) const CHECKS: &[Check] = &[
    ("formats::unknown_keys_are_named", unknown_keys_are_named),
    ("formats::unknown_values_are_named", unknown_values_are_named),
    ("formats::a_step_has_one_action", a_step_has_one_action),
    ("formats::scalars_keep_their_text", scalars_keep_their_text),
    ("formats::durations", durations),
    ("formats::bounds_of_counts", bounds_of_counts),
    ("formats::text_between_slashes_is_a_regex", text_between_slashes_is_a_regex),
    ("formats::manifests_keep_their_text", manifests_keep_their_text),
    ("formats::lists_are_opened", lists_are_opened),
    ("formats::gateways_open_their_ports", gateways_open_their_ports),
    ("formats::own_cases_are_well_formed", own_cases_are_well_formed),
];

/// A minimal case; `case` goes on its top level, `step` into its only step.
fn case(case: &str, step: &str) -> String {
    format!("name: a\n{case}\nsteps:\n  - {step}\n")
}

const REQUEST: &str = "request: {host: a.example}";

fn refused(text: &str, named: &str) -> Result<()> {
    let Err(error) = Case::parse(text, Path::new(".")) else { anyhow::bail!("accepted:\n{text}") };
    let error = format!("{error:#}");
    ensure!(error.contains(named), "`{named}` is not named by `{error}` for:\n{text}");
    Ok(())
}

fn unknown_keys_are_named() -> Result<()> {
    let top = [
        ("wurst: 1", "wurst"),
        ("manifests: [{fil: a}]", "fil"),
        ("backends: {a/b:1: {replica: 1}}", "replica"),
        ("backends: {a/b:1: {auth: {header: a, allow: {}, deny: {}}}}", "deny"),
        ("certs: {a/b: {dnss: [a]}}", "dnss"),
        ("geoip: {127.0.0.1/32: {city: Bonn}}", "city"),
    ];
    for (text, named) in top {
        refused(&case(text, REQUEST), named)?;
    }
    let steps = [
        ("requests: {}", "requests"),
        ("request: {hots: a}", "hots"),
        ("request: {grpc: {service: a, method: b, package: c}}", "package"),
        ("request: {}\n    expect: {stauts: 200}", "stauts"),
        ("request: {}\n    expect: {seen: {query: a}}", "query"),
        ("request: {}\n    expect: {duration: {avg: 1s}}", "avg"),
        ("request: {}\n    expect: {tls: {cipher: a}}", "cipher"),
        ("apply: a\n    during: {request: {}, expect: {}, rates: 1}", "rates"),
    ];
    steps.iter().try_for_each(|(step, named)| refused(&case("", step), named))
}

fn unknown_values_are_named() -> Result<()> {
    let top = [
        ("modes: [file]", "file"),
        ("services: [postgres]", "postgres"),
        ("backends: {a/b:1: {protocol: http3}}", "http3"),
        ("backends: {a/b:1: {status: 42}}", "42"),
        ("backends: {a/b:1: {delay: soon}}", "soon"),
        ("backends: {a:1: {}}", "a:1"),
        ("backends: {'a/b:1,port=x': {}}", "port=x"),
        ("certs: {b: {}}", "`b`"),
        ("geoip: {127.0.0.1/33: {country: DE}}", "127.0.0.1/33"),
    ];
    for (text, named) in top {
        refused(&case(text, REQUEST), named)?;
    }
    let steps = [
        ("request: {scheme: ftp}", "ftp"),
        ("request: {http: 3}", "3"),
        ("request: {from: 10.0.0.1}", "10.0.0.1"),
        ("request: {cookies: maybe}", "maybe"),
        ("request: {timeout: 10}", "10"),
        ("request: {}\n    expect: {status: ok}", "ok"),
        ("request: {}\n    expect: {statuses: {200: '>10'}}", ">10"),
        ("request: {}\n    expect: {body: '/(/'}", "/(/"),
        ("request: {}\n    expect: {error: broken}", "broken"),
        ("request: {}\n    expect: {tls: {version: '1.1'}}", "1.1"),
        ("request: {}\n    expect: {sticky: false}", "sticky"),
        ("restart: nginx", "nginx"),
        ("delete: web", "web"),
        ("wait: 2", "2"),
    ];
    steps.iter().try_for_each(|(step, named)| refused(&case("", step), named))
}

fn a_step_has_one_action() -> Result<()> {
    let steps = [
        ("about: nothing", "action"),
        ("request: {}\n    wait: 1s", "`request` and `wait`"),
        ("wait: 1s\n    expect: {status: 200}", "`wait`"),
        ("request: {}\n    expect: {exit: 0}", "expect.exit"),
        ("command: [a]\n    expect: {status: 200}", "expect.status"),
        ("request: {}\n    during: {request: {}, expect: {}}", "during"),
        ("apply: a\n    during: {request: {count: 2}, expect: {}}", "rate"),
    ];
    steps.iter().try_for_each(|(step, named)| refused(&case("", step), named))?;
    refused("name: a\nsteps: []", "steps")?;
    refused("name: a\nname: b\nsteps: []", "`name` stands twice")
}

fn scalars_keep_their_text() -> Result<()> {
    let text = case(
        "",
        "request: {headers: {a: 1.10, b: yes, c: 007, d: [on, 2]}, http: 1.1}\n    expect: {headers: {e: null, f: 0x1}}",
    );
    let case = Case::parse(&text, Path::new("."))?;
    let Action::Request(request) = &case.steps[0].action else { anyhow::bail!("not a request") };
    let sent: Vec<&str> = request.headers.values().flat_map(|values| &values.0).map(String::as_str).collect();
    ensure!(sent == ["1.10", "yes", "007", "on", "2"], "{sent:?}");
    let headers =
        case.steps[0].expect.as_ref().and_then(|expect| expect.headers.as_ref()).context("headers")?;
    ensure!(headers["e"].is_none() && headers["f"].as_ref().is_some_and(|pattern| pattern.matches("0x1")));
    let text =
        "name: a\nsteps:\n  - {admin: /a, expect: {json: {/n: 1, /t: '1', /b: true, /z: null, /r: /x/}}}";
    let case = Case::parse(text, Path::new("."))?;
    let json = case.steps[0].expect.as_ref().and_then(|expect| expect.json.as_ref()).context("json")?;
    let values: Vec<String> = json
        .values()
        .map(|expected| match expected {
            JsonExpected::Value(value) => value.to_string(),
            JsonExpected::Regex(regex) => regex.to_string(),
        })
        .collect();
    ensure!(values == ["true", "1", "/x/", "\"1\"", "null"], "{values:?}");
    Ok(())
}

fn durations() -> Result<()> {
    let good =
        [("2s", 2000), ("1500ms", 1500), ("1m", 60_000), ("1m30s", 90_000), ("0.5s", 500), ("1h", 3_600_000)];
    for (text, millis) in good {
        let span: Span = text.parse().map_err(anyhow::Error::msg)?;
        ensure!(span.0 == Duration::from_millis(millis), "{text}: {span:?}");
    }
    ["", "2", "s", "2x", "2 s", "-1s"].iter().try_for_each(|text| {
        ensure!(text.parse::<Span>().is_err(), "`{text}` is accepted");
        Ok(())
    })
}

fn bounds_of_counts() -> Result<()> {
    let cases = [("10", 10, 11), (">=10", 11, 9), ("<=12", 12, 13), ("8..12", 8, 7), ("8..12", 12, 13)];
    for (text, inside, outside) in cases {
        let bounds: Counted = text.parse().map_err(anyhow::Error::msg)?;
        ensure!(bounds.holds(inside) && !bounds.holds(outside), "{text}");
        ensure!(bounds.to_string() == text, "{text} is shown as {bounds}");
    }
    Ok(())
}

fn text_between_slashes_is_a_regex() -> Result<()> {
    let cases = [
        ("/a.c/", "xabcx", true),
        ("/^\\/predict\\/$/", "/predict/", true),
        ("/predict", "/predict/x", false),
        ("/", "/", true),
        ("/", "a", false),
        ("a.c", "abc", false),
    ];
    for (pattern, text, matches) in cases {
        let parsed: Pattern = pattern.parse().map_err(anyhow::Error::msg)?;
        ensure!(parsed.matches(text) == matches, "{pattern} and {text}");
    }
    Ok(())
}

fn manifests_keep_their_text() -> Result<()> {
    let first = "# why\nkind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {x: 'yes', y: |-\n---\n";
    let text = format!(
        "{first}kind: IngressClass\napiVersion: networking.k8s.io/v1\nmetadata: {{name: c, namespace: odd}}\n--- # last\nkind: Pod\nmetadata:\n  name: p\n  namespace: n\nspec: [not: {{closed\n---\n# nothing\n"
    );
    let found = objects(&text);
    let names: Vec<String> = found
        .iter()
        .map(|object| {
            format!("{}/{}/{}", object.kind, object.namespace.as_deref().unwrap_or("-"), object.name)
        })
        .collect();
    ensure!(names == ["ConfigMap/default/a", "IngressClass/-/c", "Pod/n/p"], "{names:?}");
    ensure!(first.starts_with(&found[0].text), "{:?}", found[0].text);
    ensure!(found[2].value.is_null() && found[2].text.contains("not: {closed"), "{:?}", found[2]);
    Ok(())
}

fn lists_are_opened() -> Result<()> {
    let text = "kind: List\napiVersion: v1\nitems:\n- {kind: Secret, apiVersion: v1, metadata: {name: a, namespace: n}}\n- {kind: Service, apiVersion: v1, metadata: {name: b, namespace: n}, spec: {ports: [{port: 80}]}}\n";
    let found = objects(text);
    ensure!(found.len() == 2 && found[1].is_service("n", "b"), "{found:?}");
    ensure!(found[1].value["spec"]["ports"][0]["port"] == 80, "{}", found[1].text);
    Ok(())
}

fn gateways_open_their_ports() -> Result<()> {
    let istio = "kind: Gateway\napiVersion: networking.istio.io/v1\nmetadata: {name: a}\nspec: {servers: [{port: {number: 8081}}, {port: {number: 80}}]}";
    let ports: Vec<u16> = objects(istio)[0].gateway_ports().into_iter().collect();
    ensure!(ports == [80, 8081], "{ports:?}");
    let service =
        "kind: Service\napiVersion: v1\nmetadata: {name: a}\nspec: {servers: [{port: {number: 8081}}]}";
    ensure!(objects(service)[0].gateway_ports().is_empty());
    Ok(())
}

/// A case for one mode only says why; a file that no case names begins with `_`.
fn own_cases_are_well_formed() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/cases");
    for file in crate::suite::case_files(&folder)? {
        let case = Case::load(&file).with_context(|| file.display().to_string())?;
        let has_reason = case.reason.is_some() || case.modes.is_none_or(|modes| modes.len() == 2);
        ensure!(has_reason, "{}: modes without a reason", file.display());
    }
    Ok(())
}
