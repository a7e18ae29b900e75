//! Tokens to the filters that verify them before their claims are counted by.
//!
//! A route brings its filters along: Envoy's `jwt_authn` and, behind it, one that asks for the claims, since a descriptor
//! that lacks its value would not be counted. The filter `jwt` runs them [`late`]. All of this was tried with Envoy 1.40.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
use envoy_types::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig};
use envoy_types::pb::envoy::config::rbac::v3::rbac::Action;
use envoy_types::pb::envoy::config::rbac::v3::{
    Permission, Policy, Principal, Rbac as Rules, SourcedMetadata, permission, principal,
};
use envoy_types::pb::envoy::config::route::v3::RouteMatch;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use envoy_types::pb::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtHeader, JwtProvider, JwtRequirement, JwtRequirementAndList, JwtRequirementOrList,
    RequirementRule,
};
use envoy_types::pb::envoy::extensions::filters::http::rbac::v3::Rbac;
use envoy_types::pb::envoy::r#type::matcher::v3::double_matcher::MatchPattern as DoublePattern;
use envoy_types::pb::envoy::r#type::matcher::v3::metadata_matcher::{PathSegment, path_segment};
use envoy_types::pb::envoy::r#type::matcher::v3::value_matcher::MatchPattern;
use envoy_types::pb::envoy::r#type::matcher::v3::{DoubleMatcher, MetadataMatcher, OrMatcher, ValueMatcher};
use envoy_types::pb::envoy::r#type::v3::DoubleRange;
use envoy_types::pb::google::protobuf::{Any, Empty};

use super::{late, proto};
use crate::descriptors::pack;
use crate::features::effects::RouteLimit;
use crate::features::jwt::{Provider, Token};
use crate::values::matching::TextMatch;
use crate::values::{LimitKey, claim};

/// Where `jwt_authn` puts what a token says, by the provider's name.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";

/// The first whole number that Envoy cannot tell from the next one.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// Whose tokens a route asks for, each once.
pub(super) struct Providers<'a>(Vec<&'a Provider>);

impl<'a> Providers<'a> {
    pub(super) fn of(limits: &'a [RouteLimit]) -> Self {
        let mut providers: Vec<&Provider> = Vec::new();
        for token in limits.iter().flat_map(|limit| &limit.tokens) {
            if !providers.contains(&&*token.provider) {
                providers.push(&token.provider);
            }
        }
        Self(providers)
    }

    /// A claim of a token, as a format string.
    pub(super) fn value(&self, token: &Token, claim: &str) -> String {
        let provider = self.name(token);
        match &claim::path(claim)[..] {
            // What reads metadata cannot be told of such a name, and CEL keeps six digits of a number.
            [name] if has_colon(name) => {
                format!(r#"%CEL(metadata.filter_metadata["{NAMESPACE}"]["{provider}"]["{name}"])%"#)
            }
            path => format!("%DYNAMIC_METADATA({NAMESPACE}:{provider}:{})%", path.join(":")),
        }
    }

    fn name(&self, token: &Token) -> String {
        let at = self.0.iter().position(|provider| *provider == &*token.provider);
        format!("provider-{}", at.unwrap_or(self.0.len()))
    }
}

fn has_colon(name: &str) -> bool {
    name.contains(':')
}

/// What the filter `jwt` is told by a route with these limits, if they ask for tokens.
pub(super) fn per_route(limits: &[RouteLimit], providers: &Providers<'_>) -> Option<Any> {
    if providers.0.is_empty() {
        return None;
    }
    let verified = filter(NAMESPACE, pack(&authentication(limits, providers)));
    let asked = claims(limits, providers).map(|rules| filter("envoy.filters.http.rbac", pack(&rules)));
    Some(late::per_route([verified].into_iter().chain(asked).collect()))
}

fn filter(name: &str, config: Any) -> TypedExtensionConfig {
    TypedExtensionConfig { name: name.to_owned(), typed_config: Some(config) }
}

/// Every provider's token has to be good, but for those that no limit insists on.
fn authentication(limits: &[RouteLimit], providers: &Providers<'_>) -> JwtAuthentication {
    let tokens = || limits.iter().flat_map(|limit| &limit.tokens);
    let mut named = HashMap::new();
    let mut required = Vec::new();
    for (at, provider) in providers.0.iter().enumerate() {
        let name = format!("provider-{at}");
        let by_name = RequiresType::ProviderName(name.clone());
        let optional = tokens().all(|token| token.optional || &*token.provider != *provider);
        required.push(if optional { or_without(by_name) } else { by_name });
        named.insert(name.clone(), jwt_provider(provider, name));
    }
    let requires = match required.pop() {
        Some(only) if required.is_empty() => only,
        last => RequiresType::RequiresAll(JwtRequirementAndList {
            requirements: required.into_iter().chain(last).map(requirement).collect(),
        }),
    };
    let everything = PathSpecifier::Prefix("/".to_owned());
    JwtAuthentication {
        providers: named,
        rules: vec![RequirementRule {
            r#match: Some(RouteMatch { path_specifier: Some(everything), ..RouteMatch::default() }),
            requirement_type: Some(RequirementType::Requires(requirement(requires))),
        }],
        ..JwtAuthentication::default()
    }
}

fn requirement(of: RequiresType) -> JwtRequirement {
    JwtRequirement { requires_type: Some(of) }
}

fn or_without(token: RequiresType) -> RequiresType {
    let either = [token, RequiresType::AllowMissingOrFailed(Empty {})];
    RequiresType::RequiresAny(JwtRequirementOrList { requirements: either.map(requirement).to_vec() })
}

fn jwt_provider(provider: &Provider, name: String) -> JwtProvider {
    let Provider { issuer, audiences, header, jwks } = provider;
    let header = match header {
        Some(name) => JwtHeader { name: name.clone(), ..JwtHeader::default() },
        None => JwtHeader { name: "authorization".to_owned(), value_prefix: "Bearer ".to_owned() },
    };
    let keys =
        DataSource { specifier: Some(Specifier::InlineString(jwks.to_string())), ..DataSource::default() };
    JwtProvider {
        issuer: issuer.to_string(),
        audiences: audiences.clone(),
        forward: true,
        // Without a place Envoy would look into the query too, which is in everybody's logs.
        from_headers: vec![header],
        payload_in_metadata: name,
        jwks_source_specifier: Some(JwksSourceSpecifier::LocalJwks(keys)),
        ..JwtProvider::default()
    }
}

/// Lets requests through whose tokens have the claims that limits insist on; the others are answered 403.
fn claims(limits: &[RouteLimit], providers: &Providers<'_>) -> Option<Rbac> {
    let mut rules: Vec<Permission> = Vec::new();
    for limit in limits {
        let claims = limit.key.parts().iter().filter_map(|part| match part {
            LimitKey::Jwt(of) => Some(&of.claim),
            _ => None,
        });
        for (claim, token) in claims.zip(&limit.tokens).filter(|(_, token)| !token.optional) {
            let rule = has_claim(providers.name(token), claim);
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if rules.is_empty() {
        return None;
    }
    let all = permission::Rule::AndRules(permission::Set { rules });
    let policy = Policy {
        permissions: vec![Permission { rule: Some(all) }],
        principals: vec![Principal { identifier: Some(principal::Identifier::Any(true)) }],
        ..Policy::default()
    };
    let rules = Rules {
        action: Action::Allow.into(),
        policies: HashMap::from([("claims".to_owned(), policy)]),
        ..Rules::default()
    };
    Some(Rbac { rules: Some(rules), ..Rbac::default() })
}

/// A claim counts as there if it has a value that can be counted by: a text that is not empty, a truth value, or a number of
/// which no digit is lost.
fn has_claim(provider: String, claim: &str) -> Permission {
    let path = claim::path(claim);
    let numbers = DoubleRange { start: 1.0 - LARGEST, end: LARGEST };
    let numbers = DoubleMatcher { match_pattern: Some(DoublePattern::Range(numbers)) };
    let text = proto::string_matcher(&TextMatch::Regex("(?s).+".to_owned()));
    let mut any = vec![MatchPattern::BoolMatch(true), MatchPattern::BoolMatch(false)];
    any.extend(text.map(MatchPattern::StringMatch));
    if !path.iter().any(|name| has_colon(name)) {
        any.push(MatchPattern::DoubleMatch(numbers));
    }
    let value_matchers = any.into_iter().map(|one| ValueMatcher { match_pattern: Some(one) }).collect();
    let segment = |key: String| PathSegment { segment: Some(path_segment::Segment::Key(key)) };
    let names = path.into_iter().map(str::to_owned);
    let matcher = MetadataMatcher {
        filter: NAMESPACE.to_owned(),
        path: [provider].into_iter().chain(names).map(segment).collect(),
        value: Some(ValueMatcher {
            match_pattern: Some(MatchPattern::OrMatch(OrMatcher { value_matchers })),
        }),
        ..MetadataMatcher::default()
    };
    let metadata = SourcedMetadata { metadata_matcher: Some(matcher), ..SourcedMetadata::default() };
    Permission { rule: Some(permission::Rule::SourcedMetadata(metadata)) }
}
