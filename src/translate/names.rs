//! Names by which resources refer to each other.

/// Header that holds a connection manager's own name: the first fragment of the scope key.
pub const LISTENER_HEADER: &str = "x-chancery-listener";
/// Header that holds the host: the second fragment of the scope key.
pub const SCOPE_HEADER: &str = "x-chancery-scope";

/// The listener for plain HTTP, its connection manager's scope, and its statistics.
pub const HTTP: &str = "http";
/// The listener for TLS.
pub const HTTPS: &str = "https";
/// The listeners that serve hosts of routing objects.
pub const LISTENERS: [&str; 2] = [HTTP, HTTPS];

/// The RouteConfiguration of rules without a host: a name that no host can have.
pub const ANY_HOST: &str = "(any)";
/// The request's host without its port, as a format string: what the `fallback` filter leaves on the way to a wildcard.
pub const HOST_WITHOUT_PORT: &str = "%DYNAMIC_METADATA(chancery:host)%";
/// The extension configuration that finds wildcard hosts.
pub const FALLBACK: &str = "fallback";
/// The filter whose default chain holds the limit of request bodies.
pub const BODY_SIZE: &str = "body_size";
/// The filter that asks another service whether to let a request in.
pub const EXTERNAL_AUTH: &str = "external_auth";
/// The filter that runs rate limit filters with answers that no filter of the listener's own has.
pub const RATE_LIMIT_OTHERS: &str = "ratelimit-others";
/// The filter that runs those by which a route has tokens verified.
pub const JWT: &str = "jwt";
/// The same, of limits that count what another service has let in.
pub const RATE_LIMIT_OTHERS_AFTER_AUTH: &str = "ratelimit-others-after-auth";
/// The cluster of the rate limit service.
pub const RATE_LIMIT_CLUSTER: &str = "chancery_ratelimit";
/// The secret for every name that has none of its own.
pub const DEFAULT_SECRET: &str = "*";
/// What is asked for where a client sends no SNI. To delta xDS `*` would mean every secret.
pub const NO_SNI: &str = "default";

/// There is no cluster of this name: what gets there is answered 503.
pub const NO_CLUSTER: &str = "chancery_none";
