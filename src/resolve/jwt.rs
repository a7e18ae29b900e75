//! Claims of JSON web tokens that a RateLimitPolicy counts by.

use std::sync::Arc;

use super::policies::Problem;
use crate::crd::policy_jwt::{PolicyJwks, PolicyJwt};
use crate::crd::rate_limit_policy::{PolicyKey, PolicyLimit};
use crate::features::jwt::Provider;
pub(super) use crate::features::jwt::Token;
use crate::model::limit::Key;
use crate::store::View;
use crate::values::{TokenClaim, claim, header, jwks};

/// The entry of a Secret that is read where none is named.
const ENTRY: &str = "jwks.json";
pub(super) const AUTHORIZATION: &str = "authorization";

/// What requests with such tokens are told apart by.
///
/// # Errors
/// When the claim or the issuer is none.
pub(super) fn key(jwt: &PolicyJwt) -> Result<Key, Problem> {
    let problem = |field: &str, problem: String| Err((field.to_owned(), problem));
    if let Some(path) = jwt.unknown_path() {
        return problem(&format!("jwt.{path}"), "is not a field of a RateLimitPolicy".to_owned());
    }
    if !claim::is_claim(&jwt.claim) {
        return problem("jwt.claim", format!("{:?} names no claim: write {}", jwt.claim, claim::FORM));
    }
    if !is_issuer(&jwt.issuer) {
        let form = "write what tokens have as `iss`, at most 256 characters without spaces and %";
        return problem("jwt.issuer", format!("{:?} is no issuer: {form}", jwt.issuer));
    }
    Ok(Key::Jwt(TokenClaim { issuer: jwt.issuer.clone(), claim: jwt.claim.clone() }.into()))
}

/// The tokens that the claims in a limit's key are taken from, in the order of its parts.
///
/// # Errors
/// When one of them cannot be verified.
pub(super) fn tokens(
    view: &View<'_>,
    namespace: &str,
    limit: &PolicyLimit,
    optional: bool,
) -> Result<Vec<Token>, Problem> {
    let further = limit.and.iter().enumerate().map(|(at, key)| (format!("and[{at}]"), key));
    let parts = std::iter::once(("key".to_owned(), &limit.key)).chain(further);
    let jwts = parts.filter_map(|(field, key): (String, &PolicyKey)| Some((field, key.jwt.as_ref()?)));
    jwts.map(|(field, jwt)| match provider(view, namespace, jwt) {
        Ok(provider) => Ok(Token { provider: Arc::new(provider), optional }),
        Err((below, problem)) => Err((format!("{field}.jwt.{below}"), problem)),
    })
    .collect()
}

fn provider(view: &View<'_>, namespace: &str, jwt: &PolicyJwt) -> Result<Provider, Problem> {
    let header = match jwt.header.as_deref().map(str::to_ascii_lowercase) {
        Some(name) if !header::is_name(&name) || name.contains('%') => {
            let problem = "a header name has at most 128 characters, and no % among them";
            return Err(("header".to_owned(), problem.to_owned()));
        }
        Some(name) if name == AUTHORIZATION => None,
        name => name,
    };
    if let Some(at) = jwt.audiences.iter().position(String::is_empty) {
        return Err((format!("audiences[{at}]"), "is empty".to_owned()));
    }
    Ok(Provider {
        issuer: jwt.issuer.as_str().into(),
        audiences: jwt.audiences.clone(),
        header,
        jwks: keys(view, namespace, &jwt.jwks)
            .map_err(|(field, problem)| (format!("jwks{field}"), problem))?,
    })
}

fn keys(view: &View<'_>, namespace: &str, from: &PolicyJwks) -> Result<Arc<str>, Problem> {
    match (&from.secret_ref, &from.inline) {
        (None, Some(text)) => {
            let keys = jwks::public_keys(text.as_bytes()).map(Into::into);
            keys.ok_or_else(|| (".inline".to_owned(), jwks::NONE.to_owned()))
        }
        (Some(secret), None) => {
            let entry = secret.key.as_deref().unwrap_or(ENTRY);
            let found = view.jwks(namespace, &secret.name, entry);
            let found = found.unwrap_or_else(|| Err("does not exist".to_owned()));
            let problem = |problem| format!("Secret {namespace}/{} {problem}", secret.name);
            found.map(Into::into).map_err(|error| (".secretRef".to_owned(), problem(error)))
        }
        _ => Err((String::new(), "has one of `secretRef` and `inline`".to_owned())),
    }
}

fn is_issuer(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'%';
    (1..=256).contains(&text.len()) && text.bytes().all(is_plain)
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
