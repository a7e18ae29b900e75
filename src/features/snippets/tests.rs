//! What is read of snippets, what becomes of it, and what is left to others.

use proptest::prelude::*;

use super::*;
use crate::values::Kind;
use crate::values::matching::TextMatch;

type Texts = BTreeMap<String, String>;

fn object() -> ObjectKey {
    ObjectKey::new(Kind::Ingress, "ml", "api")
}

fn read_with(snippet: &str, http: &str) -> Snippets {
    let config_map = ObjectKey::new(Kind::ConfigMap, "ingress-nginx", "zones");
    let annotations: Texts = [(format!("{PREFIX}configuration-snippet"), snippet.to_owned())].into();
    let data: Texts = [(KEY.to_owned(), http.to_owned())].into();
    read(&object(), Some(&annotations), Some((&config_map, &data)), &ANSWERED.map(str::to_owned))
}

/// Why it is not read.
fn unread(snippet: &str) -> String {
    let snippets = read_with(snippet, ZONES);
    assert_eq!(snippets.branches, [], "{snippet}");
    snippets.unread.get("configuration-snippet").unwrap_or_else(|| panic!("{snippet} is read")).clone()
}

/// Headers of the answer of `auth-url`.
const ANSWERED: [&str; 2] = ["x-rate-limit", "x-user-id"];

const ZONES: &str = r#"
    # Zones by tier
    limit_req_zone $http_x_api_key zone=free:10m rate=10r/m;
    limit_req_zone $http_x_api_key zone=pro:10m rate=100r/s;
    limit_req_zone $binary_remote_addr zone=ip:1m rate=5r/s;
    map $http_x_api_key $tier {
      default      free;
      "~^pro_.*"   pro;
      vip          pro;
    }
"#;

#[test]
fn tiers_are_branches() {
    let snippets = read_with(
        r#"
        if ($http_x_api_key = "") { return 401 '{"error": "key"}'; }
        if ($tier = "free") { limit_req zone=free burst=5 nodelay; }
        if ($tier = "pro") { limit_req zone=pro burst=20 nodelay; }
        add_header X-Tier $tier;
        "#,
        ZONES,
    );
    assert_eq!((&snippets.unread, &snippets.notes), (&BTreeMap::new(), &Vec::new()));
    let said: Vec<_> = snippets
        .branches
        .iter()
        .map(|branch| {
            let limits: Vec<_> = branch.limits.iter().map(|limit| (limit.id.as_str(), limit.burst)).collect();
            (branch.when.iter().map(|when| when.value.clone()).collect::<Vec<_>>(), limits)
        })
        .collect();
    let free = vec![("ConfigMap/ingress-nginx/zones/zone/free/burst/5", 5)];
    let pro = vec![("ConfigMap/ingress-nginx/zones/zone/pro/burst/20", 20)];
    let regex = |text: &str| vec![TextMatch::Regex(text.to_owned())];
    assert_eq!(
        said,
        [(regex("(?i)vip"), pro.clone()), (regex("(?s:.*)(?:^pro_.*)(?s:.*)"), pro), (vec![], free),]
    );
    for (branch, tier) in snippets.branches.iter().zip(["pro", "pro", "free"]) {
        assert_eq!(branch.response_headers, [HeaderOperation::Add("x-tier".into(), tier.into())]);
        let [guard] = &branch.guards[..] else { panic!("{:?}", branch.guards) };
        assert_eq!(guard.when, [http::is_empty("x-api-key")]);
        assert_eq!(guard.answer, Answer::Direct { status: 401, body: br#"{"error": "key"}"#.to_vec() });
    }
}

#[test]
fn what_asks_for_nothing_is_one_branch() {
    let snippets =
        read_with("limit_req zone=ip burst=3 nodelay; limit_req zone=free; add_header X-A 100%;", ZONES);
    let [branch] = &snippets.branches[..] else { panic!("{:?}", snippets.branches) };
    assert_eq!(branch.when, []);
    assert_eq!(branch.limits.len(), 2);
    let rate = |requests, period_ms| Rate::Fixed { requests, period_ms };
    assert_eq!((&branch.limits[0].key, &branch.limits[0].rate), (&LimitKey::ClientAddress, &rate(5, 1_000)));
    assert_eq!((branch.limits[1].burst, &branch.limits[1].rate), (0, &rate(10, 60_000)));
    assert_eq!(branch.response_headers, [HeaderOperation::Add("x-a".into(), "100%%".into())]);
    assert_eq!(snippets.notes, []);
}

#[test]
fn conditions_on_headers() {
    let snippets = read_with(
        r#"if ($http_x_plan ~* "^gold") { limit_req zone=pro; }
           if ($http_x_plan !~ silver) { add_header X-Plan "$http_x_plan/$tier"; }
           if ($http_x_debug) { return 403; }
           if ($http_x_plan != "a") { return 404 no; }"#,
        ZONES,
    );
    assert_eq!(snippets.unread, BTreeMap::new());
    // Three outcomes of the map, two of each condition that says more than an answer.
    assert_eq!(snippets.branches.len(), 12);
    let all: Vec<_> =
        snippets.branches.iter().map(|branch| (branch.limits.len(), branch.response_headers.len())).collect();
    assert_eq!(all[..4], [(1, 1), (1, 0), (0, 1), (0, 0)]);
    assert_eq!(
        snippets.branches[0].response_headers,
        [HeaderOperation::Add("x-plan".into(), "%REQ(x-plan)%/pro".into())]
    );
    let whens: Vec<_> = snippets.branches[0].guards.iter().map(|guard| guard.when.clone()).collect();
    assert_eq!(
        whens,
        [vec![http::is_empty("x-debug").inverted()], vec![HeaderMatch::exact("x-plan", "a").inverted()],]
    );
}

#[test]
fn zones_in_the_snippet_are_the_ingresss_own() {
    let snippets = read_with(
        "limit_req_zone $http_x_api_key zone=own:10m rate=100r/m;\nlimit_req zone=own burst=20;\nlimit_req_status 429;",
        "",
    );
    let limit = &snippets.branches[0].limits[0];
    assert_eq!((limit.id.as_str(), limit.status), ("Ingress/ml/api/zone/own/burst/20", Some(429)));
    let notes: Vec<_> = snippets.notes.iter().map(|(_, note)| note.as_str()).collect();
    assert!(notes[0].contains("http-snippet") && notes[1].contains("nodelay"), "{notes:?}");
}

#[test]
fn the_answer_of_auth_url_says_rates_and_headers() {
    let snippets = read_with(
        r#"limit_req_zone $http_x_api_key zone=told:10m rate=$upstream_http_x_rate_limit;
           limit_req zone=told burst=10 nodelay;
           proxy_set_header X-User-ID $upstream_http_x_user_id;
           proxy_set_header X-Who "user $upstream_http_x_user_id of $http_x_team";
           proxy_set_header X-Debug "";"#,
        "",
    );
    let [branch] = &snippets.branches[..] else { panic!("{snippets:?}") };
    let limits: Vec<_> = branch.limits.iter().map(|limit| (limit.rate.clone(), limit.burst)).collect();
    assert_eq!(limits, [(Rate::Told("x-rate-limit".into()), 10)]);
    let set = |name: &str, value: &str| HeaderOperation::Set(name.into(), value.into());
    let who = set("x-who", "user %REQ(x-user-id)% of %REQ(x-team)%");
    let debug = HeaderOperation::Remove("x-debug".into());
    assert_eq!(branch.request_headers, [set("x-user-id", "%REQ(x-user-id)%"), who, debug]);
}

#[test]
fn what_is_not_read_is_said() {
    for (snippet, why) in [
        ("deny all;", "line 1: `deny` is not read"),
        ("limit_req zone=free;\nproxy_pass http://x;", "line 2: `proxy_pass`"),
        ("limit_req zone=nope;", "no limit_req_zone declares the zone nope"),
        ("limit_req zone=free burst=many;", "whole number"),
        ("limit_req zone=free dry;", "dry"),
        ("limit_req burst=1;", "names a zone"),
        ("return 301 https://x.io;", "return 301"),
        ("return 444;", "return 444"),
        ("return 200 $host;", "variable"),
        ("return https://x.io;", "return https"),
        ("add_header Content-Length 1;", "Content-Length"),
        ("add_header X-A $host;", "$host"),
        ("add_header X-A '${http_a}';", "variable $ is not read"),
        ("add_header X-A;", "`add_header`"),
        ("if ($host = a) { return 403; }", "condition"),
        ("if ($http_a > 1) { return 403; }", "condition"),
        ("if ($http_a = $http_b) { return 403; }", "condition"),
        ("if (-f /etc/passwd) { return 403; }", "condition"),
        ("if ($tier ~ a) { return 403; }", "condition"),
        ("if $http_a { return 403; }", "condition"),
        ("if ($http_a ~ '(?=x)') { return 403; }", "regular expression"),
        ("if ($http_a ~ 'a)(b') { return 403; }", "regular expression"),
        ("if ($http_a) { if ($http_b) { return 403; } }", "within"),
        ("if ($http_a) { deny all; }", "`deny`"),
        ("map $http_a $b { default $http_c; }", "plain text"),
        ("map $host $b { default c; }", "$host"),
        ("map $http_a $b { include /etc/x; }", "include"),
        ("map $http_a $b { volatile; }", "volatile"),
        ("map $http_a $b { ~( c; }", "regular expression"),
        ("limit_req_zone $uri zone=a:1m rate=1r/s;", "$uri"),
        ("limit_req_zone $http_a zone=a rate=1r/s;", "form"),
        (
            "limit_req_zone $http_a zone=a:1m rate=$upstream_http_x; limit_req zone=a;",
            "auth-response-headers",
        ),
        ("limit_req_zone $http_a zone=a:1m rate=$http_x;", "form"),
        ("proxy_set_header X-A $upstream_http_x;", "$upstream_http_x"),
        ("proxy_set_header Host a.example.com;", "Host"),
        ("proxy_set_header Proxy-Connection close;", "Proxy-Connection"),
        ("proxy_set_header X-A;", "`proxy_set_header`"),
        ("proxy_set_header X-Envoy-Max-Retries 9;", "X-Envoy-Max-Retries"),
        ("add_header X-A $upstream_http_x_user_id;", "$upstream_http_x_user_id"),
        ("limit_req_zone $http_a zone=a:1m rate=0r/s;", "form"),
        ("limit_req_zone $http_a zone=free:1m rate=1r/s;", "twice"),
        ("limit_req_zone $http_a zone=a:1m rate=1r/s sync;", "sync"),
        ("limit_req_status 200;", "200"),
        ("limit_req zone=free", "line 1"),
    ] {
        let said = unread(snippet);
        assert!(said.contains(why), "{snippet}: {said}");
    }
    let many: String = (0..7).map(|n| format!("if ($http_a{n}) {{ add_header X-A {n}; }}")).collect();
    assert!(unread(&many).contains("more than 64"));
}

#[test]
fn one_snippet_of_two() {
    let annotations: Texts = [
        (format!("{PREFIX}server-snippet"), "limit_req_zone $http_a zone=a:1m rate=1r/s;".to_owned()),
        (format!("{PREFIX}configuration-snippet"), "limit_req zone=a;".to_owned()),
    ]
    .into();
    let snippets = read(&object(), Some(&annotations), None, &[]);
    assert_eq!((snippets.branches.len(), snippets.unread.len()), (1, 0));
    assert_eq!(read(&object(), Some(&Texts::new()), None, &[]), Snippets::default());
}

#[test]
fn the_http_level() {
    assert_eq!(check(ZONES), Ok(()));
    assert_eq!(check("limit_req_status 429;"), Ok(()));
    for text in
        ["limit_req zone=free;", "server { }", "map $http_a $b { default c; } map $http_a $b { default c; }"]
    {
        assert!(check(text).is_err(), "{text}");
    }
    // What the ConfigMap says wrongly declares nothing.
    let snippets =
        read_with("limit_req zone=free;", "limit_req_zone $http_a zone=free:1m rate=1r/s; nonsense;");
    assert!(snippets.unread["configuration-snippet"].contains("no limit_req_zone"));
}

proptest! {
    /// Snippets are written by anybody.
    #[test]
    fn nothing_panics(
        parts in prop::collection::vec(prop::sample::select(vec![
            "if", "(", "$http_a", "$tier", "=", "!=", "~", "\"\"", ")", "{", "}", ";", "return", "401", "limit_req",
            "zone=free", "zone=", "burst=5", "nodelay", "map", "default", "~^a", "limit_req_zone", "zone=z:1m",
            "rate=1r/s", "add_header", "X-A", "rate=$upstream_http_x_rate_limit", "proxy_set_header", "$upstream_http_x_user_id", "$", "%", "'", "\\",
        ]), 0..24),
    ) {
        let snippets = read_with(&parts.join(" "), ZONES);
        prop_assert!(snippets.branches.is_empty() || snippets.unread.is_empty());
    }
}
