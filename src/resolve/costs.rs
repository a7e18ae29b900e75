//! What requests count for, by a RateLimitPolicy.

use super::policies::Problem;
use crate::crd::rate_limit_policy::{PolicyCost, PolicyLimit};
use crate::features::cost::{Cost, Told};
use crate::features::effects::{Answer, Guard, Listeners, Phase};
use crate::values::matching::{HeaderMatch, TextMatch};
use crate::values::{Origin, header};

/// What a request counts for against a limit.
///
/// # Errors
/// When it is not exactly one cost, or not well formed.
pub(super) fn of_limit(limit: &PolicyLimit) -> Result<Cost, Problem> {
    match &limit.cost {
        None => Ok(Cost::One),
        Some(cost) => of(cost).map_err(|(field, problem)| (format!("cost{field}"), problem)),
    }
}

/// The answer to requests whose header says no number: Envoy would not count them.
pub(super) fn no_number(header: &str, origin: &Origin) -> Guard {
    let given = HeaderMatch::new(header, TextMatch::Present);
    let number = HeaderMatch::new(header, TextMatch::Regex("[1-9][0-9]{0,8}".into()));
    let body = format!("the {header} header must be a whole number from 1 to 999999999\n");
    Guard {
        phase: Phase::Limits,
        listeners: Listeners::All,
        when: vec![given, number.inverted()],
        answer: Answer::Direct { status: 400, body: body.into_bytes() },
        origin: origin.clone(),
    }
}

fn of(cost: &PolicyCost) -> Result<Cost, Problem> {
    let PolicyCost { header, response_header, response_json, events, reserve, .. } = cost;
    let name = |field: &str, name: &str| match header::is_name(name) && !name.contains('%') {
        true => Ok(name.to_ascii_lowercase().into()),
        false => Err((
            field.to_owned(),
            "a header name has at most 128 characters, and no % among them".to_owned(),
        )),
    };
    let problem = |field: &str, problem: &str| Err((field.to_owned(), problem.to_owned()));
    let told = match (header, response_header, response_json) {
        (Some(_), None, None) if reserve.is_some() => {
            return problem(".reserve", "is for what the answer says, and not the request");
        }
        (None, Some(_), None) | (Some(_), None, None) if *events => {
            return problem(".events", "are read where `responseJson` says what of them");
        }
        (Some(header), None, None) => return name(".header", header).map(Cost::Header),
        (None, Some(header), None) => Told::Header(name(".responseHeader", header)?),
        (None, None, Some(path)) if is_json_path(path) => {
            Told::Json { path: path.as_str().into(), events: *events }
        }
        (None, None, Some(_)) => {
            return problem(
                ".responseJson",
                "is no path: write names of letters, digits, `-` and `_` with dots between them",
            );
        }
        _ => return problem("", "a cost is one of `header`, `responseHeader` and `responseJson`"),
    };
    match reserve.unwrap_or_default() {
        reserve if reserve <= Cost::MOST => Ok(Cost::Answer { told, reserve }),
        _ => problem(".reserve", "is more than 1000000000, the most that Envoy counts"),
    }
}

fn is_json_path(path: &str) -> bool {
    let is_name = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    path.len() <= 256 && path.split('.').all(is_name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn costs() {
        let answer = |told, reserve| Ok(Cost::Answer { told, reserve });
        let json = |path: &str, events| Told::Json { path: path.into(), events };
        for (cost, expected) in [
            (json!({"header": "X-Cost"}), Ok(Cost::Header("x-cost".into()))),
            (json!({"responseHeader": "X-Tokens"}), answer(Told::Header("x-tokens".into()), 0)),
            (
                json!({"responseJson": "usage.total_tokens", "reserve": 9}),
                answer(json("usage.total_tokens", false), 9),
            ),
            (json!({"responseJson": "n", "events": true}), answer(json("n", true), 0)),
            (json!({}), Err("")),
            (json!({"header": "a", "responseHeader": "b"}), Err("")),
            (json!({"responseJson": "a", "responseHeader": "b"}), Err("")),
            (json!({"header": "a", "reserve": 1}), Err(".reserve")),
            (json!({"responseHeader": "a", "reserve": 1_000_000_001}), Err(".reserve")),
            (json!({"responseHeader": "a", "events": true}), Err(".events")),
            (json!({"header": "a b"}), Err(".header")),
            (json!({"responseHeader": "a\"b"}), Err(".responseHeader")),
            (json!({"responseHeader": "a%b"}), Err(".responseHeader")),
            (json!({"responseJson": "a..b"}), Err(".responseJson")),
            (json!({"responseJson": "a\"b"}), Err(".responseJson")),
            (json!({"responseJson": ""}), Err(".responseJson")),
        ] {
            let found = of(&serde_json::from_value(cost.clone()).unwrap());
            assert_eq!(found.map_err(|(field, _)| field), expected.map_err(str::to_owned), "{cost}");
        }
    }
}
