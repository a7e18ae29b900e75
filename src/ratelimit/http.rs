//! The service for those who speak no gRPC, in the shapes of envoyproxy/ratelimit.
//!
//! | | |
//! |---|---|
//! | `/json` | a request in protobuf JSON, answered 200, or 429 where it is over a limit; 400 where it is none, 500 where it cannot be decided |
//! | `/rlconfig` | the rules in force, a line each |
//! | `/healthcheck` | 200 `OK` |
//! | `/debug/ratelimits` | limits and rules, what was decided by them, the keys with the most hits, the counters |
//! | `/metrics` | metrics |

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Json, Router};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use prost::{Message as _, Name};
use tonic::Status;

use super::counters::Counters;
use super::envoyproxy::dump;
use super::service::RateLimit;
use crate::descriptors;
use crate::exposition::CONTENT_TYPE;

/// Health and metrics, which anybody may ask for.
pub fn for_machines<C: Counters>(service: RateLimit<C>) -> Router {
    Router::new()
        .route("/healthcheck", any(async || "OK"))
        .route("/metrics", get(metrics::<C>))
        .with_state(service)
}

/// Everything.
pub fn router<C: Counters>(service: RateLimit<C>) -> Router {
    let rlconfig = async |State(service): State<RateLimit<C>>| dump::text(&service.rules());
    Router::new()
        .route("/json", any(json::<C>))
        .route("/rlconfig", get(rlconfig))
        .route("/debug/ratelimits", get(async |State(service): State<RateLimit<C>>| Json(service.report())))
        .with_state(service.clone())
        .merge(for_machines(service))
}

async fn metrics<C: Counters>(State(service): State<RateLimit<C>>) -> Response {
    match service.metrics() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn json<C: Counters>(State(service): State<RateLimit<C>>, body: Bytes) -> Response {
    let request = match read(&body) {
        Ok(request) => request,
        Err(reason) => return (StatusCode::BAD_REQUEST, reason).into_response(),
    };
    match service.decide(&request).await {
        Ok(response) => write(&response),
        Err(status) => (refused(&status), status.message().to_owned()).into_response(),
    }
}

fn refused(status: &Status) -> StatusCode {
    match status.code() {
        tonic::Code::InvalidArgument => StatusCode::BAD_REQUEST,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn read(body: &[u8]) -> Result<RateLimitRequest, String> {
    let json = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let bytes = descriptors::ratelimit_from_json(&RateLimitRequest::full_name(), &json);
    let bytes = bytes.map_err(|error| error.to_string())?;
    RateLimitRequest::decode(bytes.as_slice()).map_err(|error| error.to_string())
}

fn write(response: &RateLimitResponse) -> Response {
    match descriptors::ratelimit_to_json(&RateLimitResponse::full_name(), &response.encode_to_vec()) {
        Ok(json) => {
            let status = match response.overall_code() {
                Code::Ok => StatusCode::OK,
                Code::OverLimit => StatusCode::TOO_MANY_REQUESTS,
                Code::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (status, [(header::CONTENT_TYPE, "application/json")], json.to_string()).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt as _;
    use serde_json::{Value, json};
    use tokio::sync::watch;

    use super::*;
    use crate::ratelimit::counters::memory::Memory;
    use crate::ratelimit::counters::{Ask, Outcome, Unavailable};
    use crate::ratelimit::envoyproxy::{Reading, Rules};
    use crate::ratelimit::service::Options;

    const RULES: &str = "
domain: dummy
descriptors:
- {key: perday, rate_limit: {unit: year, requests_per_unit: 1}}
- {key: free, shadow_mode: true, rate_limit: {unlimited: true}}
- {key: k, value: v, descriptors: [{key: l, quota_mode: true, rate_limit: {unit: second, requests_per_unit: 7}}]}";

    fn service<C: Counters>(counters: C) -> RateLimit<C> {
        let rules = Rules::read(&[("a.yaml".into(), RULES.into())], Reading::default()).unwrap();
        RateLimit::new(watch::channel(Arc::default()).1, Arc::new(counters), Arc::default())
            .with_rules(watch::channel(Arc::new(rules)).1, Options::default())
    }

    async fn ask<C: Counters>(service: &RateLimit<C>, path: &str, body: &str) -> (u16, String) {
        use tonic::codegen::Service as _;
        let request = axum::http::Request::post(path).body(axum::body::Body::from(body.to_owned())).unwrap();
        let request = if body.is_empty() {
            axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap()
        } else {
            request
        };
        let response = router(service.clone()).call(request).await.unwrap();
        let status = response.status().as_u16();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().into()).unwrap())
    }

    #[tokio::test]
    async fn a_request_in_json_is_decided_as_any() {
        let service = service(Memory::default());
        let request = r#"{"domain": "dummy", "descriptors": [{"entries": [{"key": "perday"}]}]}"#;
        let (status, body) = ask(&service, "/json", request).await;
        let limit = json!({"requestsPerUnit": 1, "unit": "YEAR"});
        let mut body: Value = serde_json::from_str(&body).unwrap();
        let reset = body["statuses"][0]["durationUntilReset"].take();
        assert!(reset.as_str().unwrap().ends_with('s'), "{reset}");
        body["statuses"][0].as_object_mut().unwrap().remove("durationUntilReset");
        assert_eq!(
            (status, body),
            (200, json!({"overallCode": "OK", "statuses": [{"code": "OK", "currentLimit": limit}]}))
        );
        let (status, body) = ask(&service, "/json", request).await;
        assert!(status == 429 && body.contains(r#""overallCode":"OVER_LIMIT""#), "{status} {body}");
        for (body, words) in [
            ("{", "EOF"),
            (r#"{"domian": "dummy"}"#, "domian"),
            (r#"{"descriptors": [{"entries": []}]}"#, "domain must not be empty"),
            (r#"{"domain": "dummy"}"#, "descriptor list must not be empty"),
        ] {
            let (status, said) = ask(&service, "/json", body).await;
            assert!(status == 400 && said.contains(words), "{body}: {status} {said}");
        }
    }

    /// What envoyproxy/ratelimit's own service answered to these, of the version of `scripts/install-envoyproxy-ratelimit`.
    #[tokio::test]
    async fn requests_are_read_as_there() {
        let service = service(Memory::default());
        let whole = |descriptor: &str| format!(r#"{{"domain": "dummy", "descriptors": [{descriptor}]}}"#);
        let limit =
            |unit: &str| whole(&format!(r#"{{"entries": [{{"key": "x"}}], "limit": {{"unit": {unit}}}}}"#));
        for (body, status) in [
            // Nothing is known of it.
            (whole("{}"), 200),
            (whole(r#"{"entries": [{"key": "x", "value": "é"}]}"#), 200),
            (whole(r#"{"entries": [{"key": "x"}], "hits_addend": 3}"#), 200),
            (whole(r#"{"entries": [{"key": "x"}], "hitsAddend": "3"}"#), 200),
            (r#"{"domain": "nowhere", "descriptors": [{}]}"#.to_owned(), 200),
            (r#"{"domain": "dummy", "descriptors": [{}], "hitsAddend": "4"}"#.to_owned(), 200),
            (r#"{"domain": "dummy", "descriptors": [{}], "hitsAddend": 1.0}"#.to_owned(), 200),
            (r#"{"domain": "dummy", "descriptors": [{}], "hitsAddend": -1}"#.to_owned(), 400),
            (r#"{"domain": "dummy", "descriptors": [{}], "hitsAddend": 1.5}"#.to_owned(), 400),
            (r#"{"domain": "dummy", "descriptors": [{}], "hitsAddend": 4294967296}"#.to_owned(), 400),
            (whole("null"), 400),
            (whole(r#"{"entries": [{"key": "x", "value": 7}]}"#), 400),
            (whole(r#"{"entries": [{"key": "x", "more": 1}]}"#), 400),
            // A limit of none is reached at once.
            (limit("3"), 429),
            (limit(r#""HOUR""#), 429),
            (limit(r#""FORTNIGHT""#), 400),
            (whole("{}") + " x", 400),
            ("[]".to_owned(), 400),
            ("null".to_owned(), 400),
            (" ".to_owned(), 400),
        ] {
            let (seen, said) = ask(&service, "/json", &body).await;
            assert_eq!(seen, status, "{body}: {said}");
        }
    }

    struct Away;

    impl Counters for Away {
        async fn decide(&self, _: &[Ask<'_>]) -> Result<Vec<Outcome>, Unavailable> {
            Err(Unavailable("away".into()))
        }
    }

    #[tokio::test]
    async fn what_cannot_be_decided_is_an_error() {
        let request = r#"{"domain": "dummy", "descriptors": [{"entries": [{"key": "perday"}]}]}"#;
        assert_eq!(ask(&service(Away), "/json", request).await.0, 500);
    }

    #[tokio::test]
    async fn rules_and_health_are_told() {
        let service = service(Memory::default());
        let lines = "dummy.free: unit=UNKNOWN requests_per_unit=0, shadow_mode: true, quota_mode: false\n\
                     dummy.k_v.l: unit=SECOND requests_per_unit=7, shadow_mode: false, quota_mode: true\n\
                     dummy.perday: unit=YEAR requests_per_unit=1, shadow_mode: false, quota_mode: false\n";
        assert_eq!(ask(&service, "/rlconfig", "").await, (200, lines.to_owned()));
        assert_eq!(ask(&service, "/healthcheck", "").await, (200, "OK".to_owned()));
        assert_eq!(ask(&service, "/elsewhere", "").await.0, 404);
        assert_eq!(ask(&service, "/healthcheck", "{}").await, (200, "OK".to_owned()), "asked in any way");
    }
}
