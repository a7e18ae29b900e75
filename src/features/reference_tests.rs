//! `docs/annotations.md` is made of the table. `UPDATE_DOCS=1 cargo test` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use super::{ANNOTATIONS, Annotation, PREFIX, protective, unsupported};

const INTRODUCTION: &str = "\
# Annotations

<!-- Made from the table in src/features/mod.rs; `UPDATE_DOCS=1 cargo test` writes it anew. -->

What Chancery reads of an Ingress's annotations, each with the meaning that ingress-nginx gives it. Every key begins
with `nginx.ingress.kubernetes.io/`. A value that is not of the accepted form is a finding, which `chancery check`
prints and the debug endpoint shows, and has no effect; of a limit or of auth-url, the routes then answer 503. A key that nobody knows
is a finding too. Where a ConfigMap key is named, the
ingress-nginx ConfigMap (`--configmap`) sets the default of every Ingress.
";

const SNIPPETS: &str = r#"
# Snippets

Of nginx's language the part is read by which API keys are limited, in `configuration-snippet`, in `server-snippet` (which
acts on the routes of its own Ingress here) and, for zones, maps and the status, in the ConfigMap's `http-snippet`. A snippet
with anything else in it is not read at all, and `chancery check` says which line stands in the way.

```nginx
limit_req_zone $http_x_api_key zone=free:10m rate=10r/m;     # or $binary_remote_addr; r/s or r/m
limit_req_status 429;                                        # 503 without it, or limit-req-status-code
map $http_x_api_key $tier { default free; "~^pro_" pro; }    # equal text first, then expressions in order
if ($http_x_api_key = "") { return 401 '{"error": "no key"}'; }
if ($tier = free) { limit_req zone=free burst=5 nodelay; }   # also !=, ~, ~*, !~, !~* of headers
add_header X-Tier $tier;
limit_req_zone $http_x_api_key zone=told:10m rate=$upstream_http_x_rate_limit;
proxy_set_header X-User $upstream_http_x_user_id;            # also $http_NAME, variables of maps, and text
```

All Ingresses that limit by a zone of the ConfigMap with one burst share its counters. As in nginx, a request whose key is
empty is not counted: an `if` has to refuse it. A burst without `nodelay` is let through at once, since nothing can be made
to wait.

`$upstream_http_NAME` is a header of the answer of `auth-url`, and has to be among its `auth-response-headers`. A rate that it
says (`100r/m`; also `r/s`, `r/h`, `r/d`) counts for each key by itself, after `auth-url` has let the request in; a key of
which it says none, or says it otherwise, is not limited.
"#;

fn reference() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push('\n');
    for feature in ANNOTATIONS {
        let links = feature.iter().map(|Annotation { name, .. }| format!("[`{name}`](#{name})"));
        writeln!(text, "- {}", links.collect::<Vec<_>>().join(", ")).unwrap();
    }
    for annotation in ANNOTATIONS.iter().flat_map(|feature| feature.iter()) {
        let Annotation { name, value, default, example, text: says, config_map } = annotation;
        write!(text, "\n## {name}\n\n{says}\n\n| | |\n|---|---|\n").unwrap();
        for (column, value) in [("accepted", *value), ("default", default)] {
            writeln!(text, "| {column} | {} |", value.replace('|', "\\|")).unwrap();
        }
        if let Some(config_map) = config_map {
            writeln!(text, "| ConfigMap key | `{config_map}` |").unwrap();
        }
        write!(text, "\n```yaml\n{PREFIX}{name}: \"{}\"\n```\n", example.replace('\\', "\\\\")).unwrap();
    }
    text.push_str(SNIPPETS);
    text.push_str(
        "\n# Without effect yet\n\nThese annotations of ingress-nginx are known and have no effect; each is a finding. \
         Where one of them keeps somebody out,\nthe routes of the object answer 503, since they would be open without \
         it.\n\n",
    );
    for name in unsupported::NAMES {
        let refused = if protective::annotation(name, "", true) {
            ": the routes answer 503"
        } else if protective::annotation(name, DENYING, true) {
            ": the routes answer 503 if it keeps somebody out"
        } else if protective::beside_auth_url(name) {
            ": the routes answer 503 beside `auth-url`"
        } else {
            ""
        };
        writeln!(text, "- `{name}`{refused}").unwrap();
    }
    text.push_str(
        "\nA snippet that is not read keeps somebody out if it has `deny`, `include`, `auth_request`, `auth_basic`, `limit_req`, `limit_conn`, \
         `return` with a status from 400\nor the like, one of ModSecurity if it says `SecRuleEngine On`.\n\n\
         # The ConfigMap\n\nA key of the ingress-nginx ConfigMap that no annotation above names has no effect, which \
         is a finding. Some keys keep somebody out:\nwith one of them the routes of every Ingress answer 503, but of \
         those whose own annotation stands in for it (a list of addresses\nof its own, `auth-url`, `enable-global-auth` or \
         `enable-modsecurity` \"false\"). VirtualServices are served all the same.\n\n",
    );
    for name in protective::KEYS {
        assert!(protective::key(name, DENYING, true), "{name}");
        let refused = if protective::key(name, "x", true) { "" } else { ", if it keeps somebody out" };
        writeln!(text, "- `{name}`{refused}").unwrap();
    }
    text
}

/// A value with which whatever can keep somebody out does.
const DENYING: &str = "deny all; SecRuleEngine On";

#[test]
fn the_annotation_reference_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/annotations.md");
    let reference = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/annotations.md is stale: run `UPDATE_DOCS=1 cargo test` and commit it"
    );
}
