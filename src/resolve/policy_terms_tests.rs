//! What holds for all limits of a policy.

use serde_json::{Value, json};

use super::*;
use crate::model::limit::{Body, FailureMode};

#[test]
fn answers() {
    let limits = json!([{"key": {"clientAddress": true}, "requests": 1, "window": "1s"}]);
    let answer = |more: Value| {
        let resolved = policy(json!({}), limits.clone(), more);
        let refusal = resolved.host.as_ref().unwrap().routes[0].effects.rate_limits[0].refusal.clone();
        (refusal.status, refusal.headers, refusal.fail_closed, found(&resolved).join(" "))
    };
    assert_eq!(answer(json!({})), (429, vec![], false, String::new()));
    assert_eq!(answer(json!({"failureMode": "open"})), (429, vec![], false, String::new()));
    assert_eq!(answer(json!({"failureMode": "local"})), (429, vec![], false, String::new()));
    assert_eq!(answer(json!({"failureMode": "ajar"})), (429, vec![], true, "spec.failureMode".to_owned()));
    let headers = vec![("x-why".to_owned(), "100%".to_owned())];
    let given = json!({"answer": {"status": 403, "headers": {"X-Why": "100%"}}, "failureMode": "closed"});
    assert_eq!(answer(given), (403, headers, true, String::new()));
    let broken = json!({"answer": {"status": 499, "headers": {"a b": "c"}}});
    let fields = "spec.answer.status spec.answer.headers.a b".to_owned();
    assert_eq!(answer(broken), (429, vec![], false, fields));
}

#[test]
fn bodies_of_answers() {
    let text = |kind: &str, text: &str| Some(Body::Text { content_type: kind.into(), text: text.into() });
    for (answer, body, headers, found) in [
        (json!({}), None, 0, None),
        (json!({"body": "no more"}), text("text/plain", "no more"), 0, None),
        (json!({"body": "{\"a\": 1}"}), text("application/json", "{\"a\": 1}"), 0, None),
        (
            json!({"body": "<p>", "headers": {"Content-Type": "text/html", "x-a": "b"}}),
            text("text/html", "<p>"),
            1,
            None,
        ),
        (json!({"json": true, "headers": {"content-type": "text/html"}}), Some(Body::Json), 0, None),
        (json!({"headers": {"content-type": "text/html"}}), None, 1, None),
        (json!({"body": "a", "json": true}), None, 0, Some("spec.answer.body")),
        (json!({"body": "a".repeat(4097)}), None, 0, Some("spec.answer.body")),
    ] {
        let resolved = host_with(json!({
            "targetRef": {"kind": "VirtualService", "name": "api"},
            "limits": [{"key": {"clientAddress": true}, "requests": 1, "window": "1m"}],
            "answer": answer,
        }));
        let host = resolved.host.unwrap();
        assert_eq!(host.limits[0].body, body, "{answer}");
        assert_eq!(host.routes[0].effects.rate_limits[0].refusal.headers.len(), headers, "{answer}");
        let fields: Vec<_> = said(&resolved.findings).map(|it| it.1).collect();
        assert_eq!(fields, found.map(str::to_owned).into_iter().collect::<Vec<_>>(), "{answer}");
    }
}

#[test]
fn failure_modes() {
    for (written, shadow, mode, closed, found) in [
        (json!(null), false, None, false, 0),
        (json!("open"), false, Some(FailureMode::Open), false, 0),
        (json!("closed"), false, Some(FailureMode::Closed), true, 0),
        (json!("local"), false, Some(FailureMode::Local), false, 0),
        (json!("ajar"), false, Some(FailureMode::Closed), true, 1),
        // What refuses nothing does not when it cannot count either.
        (json!("closed"), true, None, false, 0),
    ] {
        let resolved = host_with(json!({
            "targetRef": {"kind": "VirtualService", "name": "api"},
            "limits": [{"key": {"clientAddress": true}, "requests": 1, "window": "1m"}],
            "failureMode": written,
            "shadow": shadow,
        }));
        let host = resolved.host.unwrap();
        assert_eq!(host.limits[0].failure_mode, mode, "{written}");
        assert_eq!(host.routes[0].effects.rate_limits[0].refusal.fail_closed, closed, "{written}");
        assert_eq!(said(&resolved.findings).count(), found, "{written}");
    }
}

#[test]
fn headers_as_openai_has_them() {
    let (requests, tokens) = (Some(Counted::Requests), Some(Counted::Tokens));
    for (written, shadow, counted, removed, found) in [
        (json!(null), false, [None, None, None], 0, 0),
        (json!("openai"), false, [requests, tokens, tokens], 6, 0),
        (json!("openai"), true, [None, None, None], 0, 0),
        (json!("anthropic"), false, [None, None, None], 0, 1),
    ] {
        let limit = |cost: Value| json!({"key": {"clientAddress": true}, "requests": 1, "window": "1m", "cost": cost});
        let resolved = host_with(json!({
            "targetRef": {"kind": "VirtualService", "name": "api"},
            "limits": [limit(json!(null)), limit(json!({"responseJson": "usage.total_tokens"})), limit(json!({"header": "n"}))],
            "limitHeaders": written,
            "shadow": shadow,
        }));
        let host = resolved.host.unwrap();
        let told: Vec<_> = host.limits.iter().map(|limit| limit.openai_headers).collect();
        assert_eq!(told, counted, "{written}");
        let effects = &host.routes[0].effects;
        assert_eq!(effects.response_headers.len(), removed, "{written}");
        assert_eq!(said(&resolved.findings).count(), found, "{written}");
    }
}
