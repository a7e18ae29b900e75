//! What rules match, and where they send or answer.

use super::table;

#[test]
fn order() {
    table(&[
        (
            "listed order, not by specificity; nothing after what takes everything",
            "
- {match: [{uri: {prefix: /x}}], route: [{destination: {host: a}}]}
- {match: [{uri: {exact: /x/y}}], route: [{destination: {host: b}}]}
- {route: [{destination: {host: b}}]}
- {match: [{uri: {exact: /late}}], route: [{destination: {host: a}}]}",
            &["prefix /x -> shop/a/80", "exact /x/y -> shop/b/80", "prefix / -> shop/b/80"],
            &["spec.http[3].match[0] NeverReached"],
        ),
        (
            "`.*` takes everything, inside one rule too",
            "- {match: [{uri: {regex: .*}}, {uri: {prefix: /a}}], route: [{destination: {host: a}}]}",
            &["regex .* -> shop/a/80"],
            &["spec.http[0].match[1] NeverReached"],
        ),
        (
            "what takes everything goes to the end, what does not stays; an empty prefix is not such",
            "
- {match: [{uri: {regex: /.*}}], route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /}, method: {exact: GET}}], route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: ''}}], route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /}, ignoreUriCase: true}], route: [{destination: {host: a}}]}
- {route: [{destination: {host: b}}]}",
            &[
                "regex /.* -> shop/a/80",
                "prefix / :method=GET -> shop/a/80",
                "prefix  -> shop/a/80",
                "prefix / -> shop/a/80",
            ],
            &["spec.http[4] NeverReached"],
        ),
        (
            "what takes everything on one listener leaves the other",
            "
- {match: [{port: 80}], redirect: {scheme: https}}
- {match: [{uri: {prefix: /x}}, {port: 8080, uri: {prefix: /y}}, {port: 9999}], route: [{destination: {host: a}}]}
- {route: [{destination: {host: b}}]}
- {match: [{port: 443}], route: [{destination: {host: a}}]}",
            &[
                "https: prefix /x -> shop/a/80",
                "http: prefix / -> 301 https://…",
                "https: prefix / -> shop/b/80",
            ],
            &[
                "spec.http[1].match[2].port PortNotServed",
                "spec.http[1].match[1] NeverReached",
                "spec.http[3].match[0] NeverReached",
            ],
        ),
    ]);
}

#[test]
fn matches() {
    table(&[
        (
            "paths",
            "
- match:
  - {uri: {exact: /A}}
  - {uri: {prefix: /a}}
  - {uri: {regex: '/a/[0-9]+'}, ignoreUriCase: true}
  - {uri: {exact: /A}, ignoreUriCase: true}
  - {uri: {prefix: /a}, ignoreUriCase: true}
  - {uri: {exact: a}}
  - {uri: {regex: '('}}
  - {uri: {regex: ''}}
  - {uri: {exact: /a, prefix: /a}}
  - {uri: {exact: /a//b}}
  - {uri: {prefix: /a/.}}
  - {uri: {}}
  route: [{destination: {host: a}}]",
            &[
                "exact /A -> shop/a/80",
                "prefix /a -> shop/a/80",
                "regex /a/[0-9]+ -> shop/a/80",
                "iexact /A -> shop/a/80",
                "iprefix /a -> shop/a/80",
                "exact a -> shop/a/80",
                "exact /a//b -> shop/a/80",
                "prefix /a/. -> shop/a/80",
                "prefix / -> shop/a/80",
            ],
            &[
                "spec.http[0].match[5].uri NeverMatches",
                "spec.http[0].match[6].uri InvalidRegex",
                "spec.http[0].match[7].uri InvalidRegex",
                "spec.http[0].match[8].uri InvalidMatch",
                "spec.http[0].match[9].uri NeverMatches",
            ],
        ),
        (
            "headers by name, then those that must not be, then pseudo headers",
            "
- match:
  - headers: {x-b: {exact: '1'}, X-A: {prefix: v}, x-c: {regex: 'a|b'}, x-d: {}, x-e: {regex: '*'}, ':method': {exact: GET}}
    withoutHeaders: {x-f: {exact: q}, x-g: {}}
    method: {regex: 'GET|PUT'}
    authority: {exact: 'api.example.com:8080'}
    scheme: {exact: https}
  route: [{destination: {host: a}}]",
            &["prefix / :method=GET x-a^=v x-b=1 x-c~=a|b x-d x-e !x-f=q !x-g :method~=GET|PUT \
               :authority=api.example.com:8080 :scheme=https -> shop/a/80"],
            &[],
        ),
        (
            "query parameters",
            "
- match: [{queryParams: {d: {}, a: {exact: ''}, b: {prefix: x}, c: {regex: 'y+'}}}]
  route: [{destination: {host: a}}]",
            &["prefix / ?a= ?b^=x ?c~=y+ ?d -> shop/a/80"],
            &[],
        ),
        (
            "a match with a condition that cannot be honoured is left out, the rest of the rule stays",
            "
- match:
  - headers: {'@request.auth.claims.sub': {exact: me}}
  - headers: {x: {prefix: ''}, z: {regex: '(?=a)'}}
  - queryParams: {'': {exact: x}}
  - sourceLabels: {app: x}
  - sourceNamespace: other
  - {gateways: [mesh], uri: {prefix: /mesh}}
  - {gateways: [gw], sourceNamespace: other, uri: {prefix: /gw}}
  - {uri: {prefix: /ok}, statPrefix: s, name: it}
  route: [{destination: {host: a}}]",
            &["prefix /gw -> shop/a/80", "prefix /ok -> shop/a/80"],
            &[
                "spec.http[0].match[0].headers.@request.auth.claims.sub InvalidMatch",
                "spec.http[0].match[1].headers.x InvalidMatch",
                "spec.http[0].match[1].headers.z InvalidMatch",
                "spec.http[0].match[2].queryParams. InvalidMatch",
                "spec.http[0].match[3] SourceNotMatched",
                "spec.http[0].match[4] SourceNotMatched",
                "spec.http[0].match[5].gateways MeshOnly",
                "spec.http[0].match[6].gateways GatewaysNotRead",
            ],
        ),
    ]);
}

#[test]
fn destinations() {
    table(&[
        (
            "names and ports",
            "
- {match: [{uri: {prefix: /1}}], route: [{destination: {host: c.ml.svc.cluster.local}}]}
- {match: [{uri: {prefix: /2}}], route: [{destination: {host: c.ml.svc, port: {number: 8080}}}]}
- {match: [{uri: {prefix: /3}}], route: [{destination: {host: c.ml}}]}
- {match: [{uri: {prefix: /4}}], route: [{destination: {host: two, port: {number: 81}}}]}
- {match: [{uri: {prefix: /5}}], route: [{destination: {host: out}}]}
- {match: [{uri: {prefix: /6}}], route: [{destination: {host: a, subset: v2}}]}",
            &[
                "prefix /1 -> ml/c/8080",
                "prefix /2 -> ml/c/8080",
                "prefix /3 -> ml/c/8080",
                "prefix /4 -> shop/two/81",
                "prefix /5 -> api.example.net:443",
                "prefix /6 -> shop/a/80",
            ],
            &["spec.http[5].route[0].destination.subset NotSupported"],
        ),
        (
            "what does not exist is answered 503",
            "
- {match: [{uri: {prefix: /1}}], route: [{destination: {host: none}}]}
- {match: [{uri: {prefix: /2}}], route: [{destination: {host: two}}]}
- {match: [{uri: {prefix: /3}}], route: [{destination: {host: c.ml, port: {number: 9000}}}]}
- {match: [{uri: {prefix: /4}}], route: [{destination: {host: api.example.com}}]}
- {match: [{uri: {prefix: /5}}], route: [{destination: {host: a, port: {number: 0}}}]}
- {match: [{uri: {prefix: /6}}], route: [{destination: {host: a, port: {number: 70000}}}]}
- {match: [{uri: {prefix: /7}}], route: [{destination: {host: none}, weight: 1}, {destination: {host: x}, weight: 1}]}",
            &[
                "prefix /1 -> 503",
                "http: prefix /2 -> shop/two/80",
                "https: prefix /2 -> 503",
                "prefix /3 -> 503",
                "prefix /4 -> 503",
                "prefix /5 -> 503",
                "prefix /6 -> 503",
                "prefix /7 -> 503",
            ],
            &[
                "spec.http[0].route[0].destination ServiceNotFound",
                "spec.http[1].route[0].destination PortNotFound",
                "spec.http[2].route[0].destination PortNotFound",
                "spec.http[3].route[0].destination.host ServiceNotFound",
                "spec.http[4].route[0].destination.port.number InvalidPort",
                "spec.http[5].route[0].destination.port.number InvalidPort",
                "spec.http[6].route[0].destination ServiceNotFound",
                "spec.http[6].route[1].destination ServiceNotFound",
            ],
        ),
        (
            "weights",
            "
- {match: [{uri: {prefix: /1}}], route: [{destination: {host: a}, weight: 80}, {destination: {host: none}, weight: 0}, {destination: {host: b}, weight: 20}, {destination: {host: c.ml}}]}
- {match: [{uri: {prefix: /2}}], route: [{destination: {host: a}, weight: 0}]}
- {match: [{uri: {prefix: /3}}], route: [{destination: {host: a}, weight: 3}, {destination: {host: none}, weight: 1}]}
- {match: [{uri: {prefix: /4}}], route: [{destination: {host: a}, weight: -1}, {destination: {host: b}, weight: 2}]}
- {match: [{uri: {prefix: /5}}], route: [{destination: {host: a}}, {destination: {host: b}, weight: 0}]}
- {match: [{uri: {prefix: /6}}], route: [{destination: {host: a}, weight: -1}]}
- {match: [{uri: {prefix: /7}}], route: [{destination: {host: a}, weight: 2147483648}, {destination: {host: b}, weight: 2}]}
- {match: [{uri: {prefix: /8}}], route: [{destination: {host: a}, weight: 2147483647}, {destination: {host: b}, weight: 2147483647}, {destination: {host: b}, weight: 2147483647}]}",
            &[
                "prefix /1 -> shop/a/80*80 shop/b/80*20",
                "prefix /2 -> shop/a/80",
                "prefix /3 -> shop/a/80*3 shop/none/0*1",
                "prefix /4 -> 503",
                "prefix /5 -> 503",
                "prefix /6 -> shop/a/80",
                "prefix /7 -> 503",
                "prefix /8 -> 503",
            ],
            &[
                "spec.http[2].route[1].destination ServiceNotFound",
                "spec.http[3].route[0].weight InvalidWeight",
                "spec.http[4].route InvalidWeight",
                "spec.http[5].route[0].weight InvalidWeight",
                "spec.http[6].route[0].weight InvalidWeight",
                "spec.http[7].route InvalidWeight",
            ],
        ),
    ]);
}

#[test]
fn headers() {
    table(&[
        (
            "taken away, set, added; by name",
            "
- match: [{uri: {prefix: /1}}]
  headers:
    request: {add: {x-b: '2'}, set: {x-z: '1', X-A: 50%}, remove: [x-gone]}
    response: {remove: [server], set: {x-who: '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%'}}
  route: [{destination: {host: a}}]",
            &["prefix /1 -> shop/a/80 | request -x-gone x-a=50%% x-z=1 x-b+=2 \
               | response -server x-who=%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"],
            &["spec.http[0].headers.request.set.X-A PercentSign"],
        ),
        (
            "of destinations: of the only one after the rule's, of several with their share",
            "
- match: [{uri: {prefix: /1}}]
  headers: {request: {set: {x: rule}}}
  route: [{destination: {host: a}, headers: {request: {set: {x: one, host: a.io}}, response: {remove: [z]}}}]
- match: [{uri: {prefix: /2}}]
  headers: {request: {set: {x: rule}}}
  route:
  - {destination: {host: a}, weight: 1, headers: {request: {set: {x: one, host: a.io}}}}
  - {destination: {host: b}, weight: 1, headers: {response: {add: {z: two}}}}",
            &[
                "prefix /1 -> shop/a/80 | host a.io | request x=rule x=one | response -z",
                "prefix /2 -> shop/a/80*1 (request x=one :authority=a.io) shop/b/80*1 (response z+=two) \
                 | request x=rule",
            ],
            &[],
        ),
        (
            "the authority",
            "
- {match: [{uri: {prefix: /1}}], headers: {request: {set: {':authority': s.io}, add: {Host: a.io}}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /2}}], headers: {request: {add: {Host: a.io}}}, route: [{destination: {host: a}}]}
- {match: [{uri: {prefix: /3}}], rewrite: {authority: r.io}, headers: {request: {set: {host: s.io}}}, route: [{destination: {host: a}, headers: {request: {set: {host: d.io}}}}]}
- {match: [{uri: {prefix: /4}}], rewrite: {authority: r.io}, route: [{destination: {host: a}, weight: 1, headers: {request: {set: {host: d.io}}}}, {destination: {host: b}, weight: 1}]}
- {match: [{uri: {prefix: /5}}], route: [{destination: {host: a}, headers: {request: {set: {host: d.io}}}}]}",
            &[
                "prefix /1 -> shop/a/80 | host s.io",
                "prefix /2 -> shop/a/80 | host a.io",
                "prefix /3 -> shop/a/80 | host r.io",
                "prefix /4 -> shop/a/80*1 shop/b/80*1 | host r.io",
                "prefix /5 -> shop/a/80 | host d.io",
            ],
            &[
                "spec.http[2].headers AuthorityTwice",
                "spec.http[2].route[0].headers AuthorityTwice",
                "spec.http[3].route[0].headers AuthorityTwice",
            ],
        ),
        (
            "what Envoy refuses",
            "
- headers:
    request: {set: {':path': /x, 'a b': c, Transfer-Encoding: chunked}, remove: [host, ':method', '']}
    response: {set: {host: x, content-length: '1'}, add: {x: \"a\\nb\"}, remove: [':status', ok]}
  route: [{destination: {host: a}}]",
            &["prefix / -> shop/a/80 | response -ok"],
            &[
                "spec.http[0].headers.request.remove[0] InvalidHeader",
                "spec.http[0].headers.request.remove[1] InvalidHeader",
                "spec.http[0].headers.request.remove[2] InvalidHeader",
                "spec.http[0].headers.request.set.:path InvalidHeader",
                "spec.http[0].headers.request.set.Transfer-Encoding InvalidHeader",
                "spec.http[0].headers.request.set.a b InvalidHeader",
                "spec.http[0].headers.response.remove[0] InvalidHeader",
                "spec.http[0].headers.response.set.content-length InvalidHeader",
                "spec.http[0].headers.response.set.host InvalidHeader",
                "spec.http[0].headers.response.add.x InvalidHeader",
            ],
        ),
    ]);
}

#[test]
fn redirects_and_direct_responses() {
    table(&[
        (
            "redirects",
            "
- {match: [{uri: {prefix: /1}}], redirect: {uri: /new, authority: b}}
- {match: [{uri: {prefix: /2}}], redirect: {scheme: https, redirectCode: 308}}
- {match: [{uri: {prefix: /3}}], redirect: {authority: 'b:80', redirectCode: 307}}
- {match: [{uri: {prefix: /4}}], redirect: {authority: b, port: 85}}
- {match: [{uri: {prefix: /5}}], redirect: {scheme: https, port: 443}}
- {match: [{uri: {prefix: /6}}], redirect: {scheme: https, derivePort: FROM_REQUEST_PORT}}
- {match: [{uri: {prefix: /7}}], redirect: {authority: b, port: 80}}
- {match: [{uri: {prefix: /8}}], redirect: {authority: b, derivePort: FROM_PROTOCOL_DEFAULT}}
- {match: [{uri: {prefix: /9}, port: 80}], redirect: {authority: b, derivePort: FROM_REQUEST_PORT}}
- {match: [{uri: {prefix: /10}}], redirect: {authority: '[2001:db8::1]'}}
- {match: [{uri: {prefix: /11}}], redirect: {authority: 'b.io.:81'}}",
            &[
                "prefix /1 -> 301 …://b/new",
                "prefix /2 -> 308 https://…",
                "prefix /3 -> 307 …://b:80…",
                "prefix /4 -> 301 …://b:85…",
                "prefix /5 -> 301 https://…",
                "http: prefix /6 -> 301 https://…:8080…",
                "https: prefix /6 -> 301 https://…:8443…",
                "http: prefix /7 -> 301 …://b…",
                "https: prefix /7 -> 301 …://b:80…",
                "prefix /8 -> 301 …://b…",
                "http: prefix /9 -> 301 …://b:8080…",
                "prefix /10 -> 301 …://[2001:db8::1]…",
                "prefix /11 -> 301 …://b.io.:81…",
            ],
            &[],
        ),
        (
            "redirects that Istio refuses",
            "
- {match: [{uri: {prefix: /1}}], redirect: {uri: /x, redirectCode: 317}}
- {match: [{uri: {prefix: /2}}], redirect: {uri: /x, redirectCode: 400}}
- {match: [{uri: {prefix: /3}}], redirect: {}}
- {match: [{uri: {prefix: /4}}], redirect: {scheme: ftp}}
- {match: [{uri: {prefix: /5}}], redirect: {port: 70000}}
- {match: [{uri: {prefix: /6}}], redirect: {derivePort: X}}
- {match: [{uri: {prefix: /8}}], redirect: {authority: x y%}}
- {match: [{uri: {prefix: /9}}], redirect: {authority: 'b:0'}}
- {match: [{uri: {prefix: /7}}], redirect: {uri: /x}, route: [{destination: {host: a}}], fault: {abort: {httpStatus: 500}}, rewrite: {uri: /}, corsPolicy: {}}",
            &["prefix /7 -> 301 …://…/x"],
            &[
                "spec.http[0].redirect.redirectCode InvalidRedirect",
                "spec.http[1].redirect.redirectCode InvalidRedirect",
                "spec.http[2].redirect InvalidRedirect",
                "spec.http[3].redirect.scheme InvalidRedirect",
                "spec.http[4].redirect.port InvalidRedirect",
                "spec.http[5].redirect.derivePort InvalidRedirect",
                "spec.http[6].redirect.authority InvalidRedirect",
                "spec.http[7].redirect.authority InvalidRedirect",
                "spec.http[8].route InvalidRule",
                "spec.http[8].rewrite InvalidRule",
                "spec.http[8].corsPolicy InvalidRule",
                "spec.http[8].fault InvalidRule",
            ],
        ),
        (
            "direct responses, with headers",
            "
- {match: [{uri: {prefix: /1}}], directResponse: {status: 200, body: {string: hello}}, headers: {response: {set: {x: z}}}}
- {match: [{uri: {prefix: /2}}], directResponse: {status: 418, body: {bytes: aGk=}}}
- {match: [{uri: {prefix: /3}}], directResponse: {status: 204}}
- {match: [{uri: {prefix: /4}}], directResponse: {status: 600}}
- {match: [{uri: {prefix: /5}}], directResponse: {status: 200, body: {bytes: '%'}}}
- {match: [{uri: {prefix: /6}}], redirect: {uri: /x}, headers: {response: {set: {x: z}}}}",
            &[
                "prefix /1 -> 200 hello | response x=z",
                "prefix /2 -> 418 hi",
                "prefix /3 -> 204",
                "prefix /5 -> 200",
                "prefix /6 -> 301 …://…/x | response x=z",
            ],
            &[
                "spec.http[3].directResponse.status InvalidDirectResponse",
                "spec.http[4].directResponse.body.bytes InvalidDirectResponse",
            ],
        ),
        (
            "rules that do nothing",
            "
- {delegate: {name: x}}
- {match: [{uri: {prefix: /}}]}
- {route: []}",
            &[],
            &["spec.http[0].delegate NotSupported", "spec.http[1] InvalidRule", "spec.http[2] InvalidRule"],
        ),
    ]);
}
