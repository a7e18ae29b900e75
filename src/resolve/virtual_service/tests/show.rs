//! A route as one line.

use std::fmt::Write as _;

use crate::features::effects::{
    Answer, Effects, HeaderOperation, Listeners, PathRewrite, Redirect, RedirectPath,
};
use crate::features::fault::Abort;
use crate::features::retries::Retries;
use crate::model::route::Variant;
use crate::model::{Action, Destination, Host, Match, PathMatch, Route};
use crate::values::matching::TextMatch;

/// The routes of a host, without the one that ends every host.
pub(super) fn routes(host: &Host) -> Vec<String> {
    host.routes.iter().filter(|route| route.variant != Variant::NotFound).map(|it| route(host, it)).collect()
}

fn route(host: &Host, route: &Route) -> String {
    let mut line = match route.listeners {
        Listeners::All => String::new(),
        Listeners::Http => "http: ".to_owned(),
        Listeners::Https => "https: ".to_owned(),
    };
    line += &matches(&route.matches);
    line += " ->";
    match &route.action {
        Action::Answer(answer) => line += &self::answer(answer),
        Action::Forward(shares) => shares.iter().for_each(|it| line += &share(host, it, shares.len() > 1)),
    }
    line += &effects(&route.effects, matches!(route.action, Action::Forward(_)));
    for mirror in &route.mirrors {
        let millionths = route.effects.mirrors[mirror.mirror].value.millionths;
        let _ = write!(line, " | copy {millionths} to {}", backend(host, mirror.backend));
    }
    line
}

fn matches(matches: &Match) -> String {
    let kind = match &matches.path {
        PathMatch::Exact(_) => "exact",
        PathMatch::ExactIgnoreCase(_) => "iexact",
        PathMatch::Prefix(_) => "prefix",
        PathMatch::PrefixIgnoreCase(_) => "iprefix",
        PathMatch::Regex(_) => "regex",
        PathMatch::Segments(_) | PathMatch::NginxRegex(_) => unreachable!("not of a VirtualService"),
    };
    let mut text = format!("{kind} {}", matches.path.text());
    for header in &matches.headers {
        let not = if header.invert { "!" } else { "" };
        let _ = write!(text, " {not}{}{}", header.name, value(&header.value));
    }
    for parameter in &matches.query_parameters {
        let _ = write!(text, " ?{}{}", parameter.name, value(&parameter.value));
    }
    text
}

fn value(value: &TextMatch) -> String {
    match value {
        TextMatch::Exact(text) => format!("={text}"),
        TextMatch::Prefix(text) => format!("^={text}"),
        TextMatch::Regex(text) => format!("~={text}"),
        TextMatch::Present => String::new(),
    }
}

fn backend(host: &Host, index: usize) -> &str {
    host.backends[index].name.split('~').next().unwrap_or_default()
}

fn share(host: &Host, share: &Destination, several: bool) -> String {
    let mut text = format!(" {}", backend(host, share.backend));
    if several {
        let _ = write!(text, "*{}", share.weight);
    }
    let headers =
        operations("request", &share.request_headers) + &operations("response", &share.response_headers);
    if headers.is_empty() { text } else { format!("{text} ({})", headers.trim_start_matches(" | ")) }
}

fn answer(answer: &Answer) -> String {
    match answer {
        Answer::Direct { status, body } => {
            format!(" {status} {}", String::from_utf8_lossy(body)).trim_end().into()
        }
        Answer::Redirect(redirect) => {
            let Redirect { scheme, host, port, without_port: _, path, status } = &**redirect;
            let path = match path {
                RedirectPath::Keep => "…",
                RedirectPath::Whole(path) => path,
                RedirectPath::WithoutTrailingSlash | RedirectPath::Regex { .. } | RedirectPath::Nothing => {
                    unreachable!("not of a VirtualService")
                }
            };
            let port = port.map(|port| format!(":{port}")).unwrap_or_default();
            let own = |text: &Option<String>| text.clone().unwrap_or("…".to_owned());
            format!(" {status} {}://{}{port}{path}", own(scheme), own(host)).replace("……", "…")
        }
    }
}

fn operations(of: &str, operations: &[HeaderOperation]) -> String {
    let mut text = String::new();
    for operation in operations {
        let _ = match operation {
            HeaderOperation::Set(name, value) => write!(text, " {name}={value}"),
            HeaderOperation::Add(name, value) => write!(text, " {name}+={value}"),
            HeaderOperation::Remove(name) => write!(text, " -{name}"),
        };
    }
    if text.is_empty() { text } else { format!(" | {of}{text}") }
}

/// What differs from a rule that says nothing.
fn effects(effects: &Effects, forwards: bool) -> String {
    let mut text = String::new();
    let mut add = |part: String| {
        let _ = write!(text, " | {part}");
    };
    if let Some(timeout) = &effects.timeout {
        add(format!("timeout {:?}", timeout.value));
    }
    match &effects.retries {
        Some(retries) if retries.value == Retries::istio() => {}
        Some(retries) => add(self::retries(&retries.value)),
        None if forwards => add("no retries".to_owned()),
        None => {}
    }
    match effects.path_rewrite.as_ref().map(|rewrite| &rewrite.value) {
        Some(PathRewrite::Prefix(path)) => add(format!("path {path}")),
        Some(PathRewrite::Regex { pattern, substitution }) => {
            add(format!("path s/{pattern}/{substitution}/"))
        }
        Some(PathRewrite::Target(_)) => unreachable!("not of a VirtualService"),
        None => {}
    }
    if let Some(host) = &effects.host_rewrite {
        add(format!("host {}", host.value));
    }
    if let Some(fault) = &effects.fault {
        if let Some((delay, share)) = &fault.value.delay {
            add(format!("delay {share} by {delay:?}"));
        }
        match &fault.value.abort {
            Some((Abort::Http(status), share)) => add(format!("abort {share} with {status}")),
            Some((Abort::Grpc(code), share)) => add(format!("abort {share} with grpc {code}")),
            None => {}
        }
    }
    if let Some(cors) = &effects.cors {
        let cors = &cors.value;
        let origins: Vec<_> = cors.origins.iter().map(value).collect();
        let mut part = format!("cors {}", origins.join(" "));
        for (name, list) in
            [("methods", &cors.methods), ("headers", &cors.headers), ("expose", &cors.expose_headers)]
        {
            if !list.is_empty() {
                let _ = write!(part, " {name} {}", list.join(","));
            }
        }
        let _ = cors.max_age.map(|age| write!(part, " age {age:?}"));
        let _ = cors.credentials.map(|on| write!(part, " credentials {on}"));
        let _ = cors.forward_unmatched_preflights.map(|on| write!(part, " forward {on}"));
        add(part);
    }
    text + &operations("request", &effects.request_headers)
        + &operations("response", &effects.response_headers)
}

fn retries(retries: &Retries) -> String {
    let mut text = format!("retries {} on {}", retries.attempts, retries.on.join(","));
    if !retries.statuses.is_empty() {
        let _ = write!(text, " {:?}", retries.statuses);
    }
    let _ = retries.per_try_timeout.map(|timeout| write!(text, " try {timeout:?}"));
    let _ = retries.back_off.map(|pause| write!(text, " pause {pause:?}"));
    if !retries.previous_hosts {
        text += " same hosts";
    }
    if retries.previous_priorities {
        text += " other localities";
    }
    text
}
