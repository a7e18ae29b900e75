//! What rules ask for beside a destination.

use super::table;

#[test]
fn timeouts_and_retries() {
    table(&[
        (
            "timeouts",
            "
- {match: [{uri: {prefix: /1}}], timeout: 10s, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /2}}], timeout: 1h30m, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /3}}], timeout: 0s, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /4}}], timeout: 1500us, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /5}}], timeout: '5', route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /6}}], timeout: 99999999h, route: [{destination: {host: a}}]}",
            &[
                "prefix /1 -> shop/a/80 | timeout 10s",
                "prefix /2 -> shop/a/80 | timeout 5400s",
                "prefix /3 -> shop/a/80",
                "prefix /4 -> shop/a/80",
                "prefix /5 -> shop/a/80",
                "prefix /6 -> shop/a/80",
            ],
            &[
                "spec.http[2].timeout InvalidDuration",
                "spec.http[3].timeout InvalidDuration",
                "spec.http[4].timeout InvalidDuration",
                "spec.http[5].timeout InvalidDuration",
            ],
        ),
        (
            "retries",
            "
- {match: [{uri: {prefix: /1}}], retries: {attempts: 0}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /2}}], retries: {}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /3}}], retries: {attempts: 3, perTryTimeout: 3s, backoff: 10ms}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /4}}], retries: {attempts: 1, retryOn: '5xx, 503,', retryRemoteLocalities: true, retryIgnorePreviousHosts: false}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /5}}], retries: {attempts: 1, retryOn: 'reset,nonsense'}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /6}}], retries: {attempts: -1}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /7}}], retries: {attempts: 0, retryOn: 5xx}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /8}}], retries: {attempts: 1, perTryTimeout: 0s}, route: [{destination: {host: a}}]}",
            &[
                "prefix /1 -> shop/a/80 | no retries",
                "prefix /2 -> shop/a/80 | no retries",
                "prefix /3 -> shop/a/80 | retries 3 on connect-failure,refused-stream,unavailable,cancelled,\
                 retriable-status-codes try 3s pause 10ms",
                "prefix /4 -> shop/a/80 | retries 1 on 5xx,retriable-status-codes [503] same hosts other localities",
                "prefix /5 -> shop/a/80 | retries 1 on reset,nonsense",
                "prefix /6 -> shop/a/80 | no retries",
                "prefix /7 -> shop/a/80 | no retries",
                "prefix /8 -> shop/a/80 | retries 1 on connect-failure,refused-stream,unavailable,cancelled,\
                 retriable-status-codes",
            ],
            &[
                "spec.http[4].retries.retryOn UnknownRetryCondition",
                "spec.http[5].retries.attempts InvalidRetries",
                "spec.http[6].retries RetriesDisabled",
                "spec.http[7].retries.perTryTimeout InvalidDuration",
            ],
        ),
    ]);
}

#[test]
fn rewrites_and_mirrors() {
    table(&[
        (
            "rewrites",
            r"
- {match: [{uri: {prefix: /1}}], rewrite: {uri: /, authority: up.io}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /2}}], rewrite: {uriRegexRewrite: {match: '/(\d+)/(.*)', rewrite: '/\2/\1'}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /3}}], rewrite: {uriRegexRewrite: {match: '(', rewrite: x}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /4}}], rewrite: {uriRegexRewrite: {match: '(.)', rewrite: '\2'}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /5}}], rewrite: {uri: /x, uriRegexRewrite: {match: x, rewrite: z}}, route: [{destination: {host: a}}]}",
            &[
                "prefix /1 -> shop/a/80 | path / | host up.io",
                r"prefix /2 -> shop/a/80 | path s//(\d+)/(.*)//\2/\1/",
                "prefix /3 -> shop/a/80",
                "prefix /4 -> shop/a/80",
                "prefix /5 -> shop/a/80 | path /x",
            ],
            &[
                "spec.http[2].rewrite.uriRegexRewrite.match InvalidRegex",
                "spec.http[3].rewrite.uriRegexRewrite.rewrite InvalidRewrite",
                "spec.http[4].rewrite.uriRegexRewrite RewriteTwice",
            ],
        ),
        (
            "mirrors",
            "
- {match: [{uri: {prefix: /1}}], mirror: {host: b}, mirrorPercentage: {value: 15.5}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /2}}], mirror: {host: b}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /3}}], mirror: {host: b}, mirrorPercentage: {value: 0}, mirrorPercent: 5, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /4}}], mirror: {host: b}, mirrorPercent: 5, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /5}}], mirrors: [{destination: {host: none}}, {destination: {host: b}}, {destination: {host: c.ml}, percentage: {value: 1}}], route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /6}}], mirror: {host: b}, mirrorPercentage: {value: 101}, route: [{destination: {host: a}}]}",
            &[
                "prefix /1 -> shop/a/80 | copy 155000 to shop/b/80",
                "prefix /2 -> shop/a/80 | copy 1000000 to shop/b/80",
                "prefix /3 -> shop/a/80",
                "prefix /4 -> shop/a/80 | copy 50000 to shop/b/80",
                "prefix /5 -> shop/a/80 | copy 1000000 to shop/b/80 | copy 10000 to ml/c/8080",
                "prefix /6 -> shop/a/80",
            ],
            &[
                "spec.http[4].mirrors[0] ServiceNotFound",
                "spec.http[5].mirrorPercentage InvalidPercentage",
            ],
        ),
    ]);
}

#[test]
fn faults_and_cors() {
    table(&[
        (
            "faults",
            "
- {match: [{uri: {prefix: /1}}], fault: {delay: {fixedDelay: 3s, percentage: {value: 50}}, abort: {grpcStatus: UNAVAILABLE, percentage: {value: 0.1}}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /2}}], fault: {abort: {httpStatus: 418}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /3}}], fault: {delay: {fixedDelay: 1s, percent: 10}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /4}}], fault: {abort: {httpStatus: 100, percentage: {value: 1}}, delay: {exponentialDelay: 1s}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /5}}], fault: {abort: {grpcStatus: NOPE, percentage: {value: 1}}}, directResponse: {status: 200}}",
            &[
                "prefix /1 -> shop/a/80 | delay 500000 by 3s | abort 1000 with grpc 14",
                "prefix /2 -> shop/a/80",
                "prefix /3 -> shop/a/80 | delay 100000 by 1s",
                "prefix /4 -> shop/a/80",
                "prefix /5 -> 200",
            ],
            &[
                "spec.http[3].fault.delay.exponentialDelay UnknownField",
                "spec.http[1].fault.abort NoPercentage",
                "spec.http[3].fault.delay InvalidFault",
                "spec.http[3].fault.abort InvalidFault",
                "spec.http[4].fault.abort.grpcStatus InvalidFault",
            ],
        ),
        (
            "cors",
            "
- match: [{uri: {prefix: /1}}]
  corsPolicy: {allowOrigins: [{regex: 'https://.*'}, {exact: 'https://x.io'}, {}, {regex: '('}], maxAge: 10s, allowMethods: [GET, 'A B'], allowHeaders: [x-a], exposeHeaders: [x-b], allowCredentials: true, unmatchedPreflights: IGNORE}
  route: [{destination: {host: a}}]
- {match: [{uri: {prefix: /2}}], corsPolicy: {allowOrigin: ['*'], maxAge: 10ms, unmatchedPreflights: FORWARD}, route: [{destination: {host: a}}]}",
            &[
                "prefix /1 -> shop/a/80 | cors ~=https://.* =https://x.io methods GET headers x-a expose x-b age 10s \
                 credentials true forward false",
                "prefix /2 -> shop/a/80 | cors =* forward true",
            ],
            &[
                "spec.http[0].corsPolicy.allowOrigins[2] InvalidOrigin",
                "spec.http[0].corsPolicy.allowOrigins[3] InvalidOrigin",
                "spec.http[0].corsPolicy.allowMethods[1] InvalidName",
                "spec.http[1].corsPolicy.maxAge InvalidDuration",
            ],
        ),
    ]);
}
