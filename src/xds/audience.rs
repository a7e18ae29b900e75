//! Who is sent what.

use super::TypeUrl;

/// What a client is, which says what it is sent: nobody is sent what is of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Audience {
    /// An Envoy: all that traffic is carried by.
    Envoy,
    /// A rate limit service: limits, and nothing else.
    RateLimit,
}

impl Audience {
    /// The `node.user_agent_name` of our own rate limit service.
    pub const RATE_LIMIT_USER_AGENT: &str = "chancery-ratelimit";

    /// What a client is, by the name of its software and the type that it asked first, for those that do not say: the
    /// service of envoyproxy/ratelimit says nothing, and asks for nothing but limits.
    pub fn new(user_agent_name: &str, asked: TypeUrl) -> Self {
        match user_agent_name {
            "envoy" => Self::Envoy,
            Self::RATE_LIMIT_USER_AGENT => Self::RateLimit,
            _ => asked.audience(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envoy_is_one_whatever_it_asks() {
        for (user_agent, asked, expected) in [
            ("envoy", TypeUrl::Cluster, Audience::Envoy),
            ("envoy", TypeUrl::LimitSet, Audience::Envoy),
            ("chancery-ratelimit", TypeUrl::LimitSet, Audience::RateLimit),
            ("chancery-ratelimit", TypeUrl::Secret, Audience::RateLimit),
            ("", TypeUrl::Listener, Audience::Envoy),
            ("", TypeUrl::LimitSet, Audience::RateLimit),
            ("grpc-go", TypeUrl::LimitSet, Audience::RateLimit),
        ] {
            assert_eq!(Audience::new(user_agent, asked), expected, "{user_agent} {asked}");
        }
    }
}
