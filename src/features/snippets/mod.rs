//! `configuration-snippet`, `server-snippet` and the ConfigMap's `http-snippet`: the part of nginx's language by which API
//! keys are limited, and no more.
//!
//! ```text
//! limit_req_zone $http_x_api_key zone=free:10m rate=10r/m;
//! map $http_x_api_key $tier { default free; "~^pro_" pro; }
//! if ($http_x_api_key = "") { return 401 "a key is required"; }
//! if ($tier = "free") { limit_req zone=free burst=5 nodelay; }
//! add_header X-Tier $tier;
//! proxy_set_header X-User $upstream_http_x_user;
//! ```
//!
//! nginx takes zones and maps at its `http` level alone, and no `limit_req` within an `if`; what manifests mean by that is
//! plain, so it is done: so is what they mean by headers of an upstream's answer where there is none yet but that of
//! `auth-url`, a rate among them (`rate=$upstream_http_x_rate_limit`). A snippet with anything else in it has no effect at all, or, where it keeps somebody out, refuses
//! all requests: `protective` tells which.
//!
//! What a map says depends on the request, so routes are split: one for each outcome, in order.

mod http;
mod location;
mod syntax;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use self::http::{Declared, Map};
use self::location::{Condition, Piece, Statement};
use super::PREFIX;
use super::effects::{Answer, Guard, HeaderOperation, Listeners, Phase};
use crate::values::matching::HeaderMatch;
use crate::values::{LimitKey, ObjectKey, Origin};

/// The annotations that are read, the outer one first.
const ANNOTATIONS: [&str; 2] = ["server-snippet", "configuration-snippet"];
/// The key of the ConfigMap that is read.
pub const KEY: &str = "http-snippet";
/// How many routes one may become.
const MOST_BRANCHES: usize = 64;

/// What an object's snippets do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snippets {
    /// For each kind of request what is done with it: the first that matches counts. None if there is nothing to do.
    pub branches: Vec<Branch>,
    /// What is read otherwise than nginx would.
    pub notes: Vec<(Origin, String)>,
    /// Annotations that are read, by what stands behind the prefix.
    read: Vec<&'static str>,
    /// Annotations that are not read, by what stands behind the prefix, and why.
    pub unread: BTreeMap<&'static str, String>,
}

impl Snippets {
    /// Whether an annotation, by what stands behind the prefix, is read as a snippet.
    pub fn acts(&self, name: &str) -> bool {
        self.read.contains(&name)
    }
}

/// What is done with requests of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Branch {
    /// What tells them.
    pub when: Vec<HeaderMatch>,
    /// Answers.
    pub guards: Vec<Guard>,
    /// Limits.
    pub limits: Vec<ZoneLimit>,
    /// Changes of what the upstream gets.
    pub request_headers: Vec<HeaderOperation>,
    /// Changes of response headers.
    pub response_headers: Vec<HeaderOperation>,
}

/// How often something may be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rate {
    /// So often for every key.
    Fixed {
        /// Requests in a period.
        requests: u32,
        /// The period in milliseconds.
        period_ms: u64,
    },
    /// As this header says, which the answer of `auth-url` sets: `100r/m`. Not limited where it says none.
    Told(Arc<str>),
}

/// nginx's `limit_req` by a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneLimit {
    /// The zone and the burst, within what declares the zone.
    pub id: String,
    /// What it counts by.
    pub key: LimitKey,
    /// How often.
    pub rate: Rate,
    /// How many more may come at once.
    pub burst: u32,
    /// The status of a refusal, if a snippet says so.
    pub status: Option<u16>,
    /// The snippet that limits.
    pub origin: Origin,
}

/// Whether an `http-snippet` is one that is read.
///
/// # Errors
/// Why it is not.
pub fn check(text: &str) -> Result<(), String> {
    declared(text, &Origin::new(&ObjectKey::new(crate::values::Kind::ConfigMap, "", ""), KEY)).map(|_| ())
}

/// What the `http` level declares; nothing else is read there.
fn declared(text: &str, origin: &Origin) -> Result<Declared, String> {
    let mut declared = Declared::default();
    for directive in syntax::parse(text)? {
        let at = |problem: String| format!("line {}: {problem}", directive.line);
        if !declared.take(&directive, origin).map_err(at)? {
            return Err(at(format!("`{}` is not read", directive.words[0])));
        }
    }
    Ok(declared)
}

/// Reads the snippets of an object, by what the ConfigMap declares. `answered` are the headers that the upstream has of the
/// answer of `auth-url` alone, in lower case.
pub fn read(
    object: &ObjectKey,
    annotations: Option<&BTreeMap<String, String>>,
    config_map: Option<(&ObjectKey, &BTreeMap<String, String>)>,
    answered: &[String],
) -> Snippets {
    let mut snippets = Snippets::default();
    let given = ANNOTATIONS.iter().filter_map(|name| {
        let key = format!("{PREFIX}{name}");
        Some((*name, annotations?.get(&key)?, Origin::new(object, key)))
    });
    let given: Vec<_> = given.filter(|(_, text, _)| !text.trim().is_empty()).collect();
    if given.is_empty() {
        return snippets;
    }
    let http = config_map.and_then(|(config_map, data)| {
        declared(data.get(KEY)?, &Origin::new(config_map, format!("data.{KEY}"))).ok()
    });
    let mut known = Declared { answered: answered.to_vec(), ..http.unwrap_or_default() };
    let mut all = Vec::new();
    for (name, text, origin) in given {
        match statements(text, &origin, &known) {
            Ok((statements, now, notes)) => {
                known = now;
                snippets.read.push(name);
                all.extend(statements.into_iter().map(|statement| (statement, origin.clone())));
                snippets.notes.extend(notes.into_iter().map(|note| (origin.clone(), note)));
            }
            Err(problem) => {
                snippets.unread.insert(name, problem);
            }
        }
    }
    match branches(&all, &known) {
        Ok(branches) => snippets.branches = branches,
        Err(problem) => {
            snippets.notes.clear();
            let read = std::mem::take(&mut snippets.read);
            snippets.unread.extend(read.into_iter().map(|name| (name, problem.clone())));
        }
    }
    snippets
}

/// The statements of one snippet, what is declared with it, and what is read otherwise than nginx would.
type Said = (Vec<Statement>, Declared, Vec<String>);

fn statements(text: &str, origin: &Origin, known: &Declared) -> Result<Said, String> {
    let directives = syntax::parse(text)?;
    let mut known = known.clone();
    let mut notes = Vec::new();
    let mut rest = Vec::new();
    for directive in directives {
        let before = (known.zones.len(), known.maps.len());
        if !known.take(&directive, origin).map_err(|problem| format!("line {}: {problem}", directive.line))? {
            rest.push(directive);
        } else if before != (known.zones.len(), known.maps.len()) {
            notes.push(format!(
                "nginx takes {} in the ConfigMap's http-snippet alone; here it holds for this Ingress",
                directive.words[0]
            ));
        }
    }
    let read = rest.iter().map(|directive| {
        let problem = |problem| format!("line {}: {problem}", directive.line);
        location::statement(directive, &known, &mut |note| notes.push(note)).map_err(problem)
    });
    let read = read.collect::<Result<Vec<_>, _>>()?;
    Ok((read, known, notes))
}

/// What a request may be told by: the value of a map, or whether a header matches. The first outcome that matches counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Map(String),
    /// The statement that asks.
    Header(usize),
}

/// The answers to questions.
type Answers<'a> = BTreeMap<&'a Question, String>;

fn branches(all: &[(Statement, Origin)], known: &Declared) -> Result<Vec<Branch>, String> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let questions = questions(all);
    let mut combined: Vec<(Vec<HeaderMatch>, Answers<'_>)> = vec![Default::default()];
    for question in &questions {
        let outcomes = outcomes(question, all, known);
        if combined.len() * outcomes.len() > MOST_BRANCHES {
            return Err(format!("it tells more than {MOST_BRANCHES} kinds of requests"));
        }
        let mut further = Vec::new();
        for (when, answers) in &combined {
            for (matcher, answer) in &outcomes {
                let mut answers = answers.clone();
                answers.insert(question, answer.clone());
                further.push((when.iter().chain(matcher).cloned().collect(), answers));
            }
        }
        combined = further;
    }
    Ok(combined.into_iter().map(|(when, answers)| branch(when, &answers, all, known)).collect())
}

fn questions(all: &[(Statement, Origin)]) -> BTreeSet<Question> {
    let mut questions = BTreeSet::new();
    let of_value = |questions: &mut BTreeSet<Question>, statement: &Statement| {
        if let Statement::Header { value, .. } | Statement::RequestHeader { value, .. } = statement {
            let maps = value.iter().filter_map(|piece| match piece {
                Piece::Map(name) => Some(Question::Map(name.clone())),
                Piece::Text(_) => None,
            });
            questions.extend(maps);
        }
    };
    for (at, (statement, _)) in all.iter().enumerate() {
        of_value(&mut questions, statement);
        if let Statement::If { condition, then } = statement {
            then.iter().for_each(|inner| of_value(&mut questions, inner));
            match condition {
                Condition::Map { name, .. } => {
                    questions.insert(Question::Map(name.clone()));
                }
                // An answer asks by itself.
                Condition::Header(_)
                    if then.iter().all(|inner| matches!(inner, Statement::Return { .. })) => {}
                Condition::Header(_) => {
                    questions.insert(Question::Header(at));
                }
            }
        }
    }
    questions
}

fn outcomes(
    question: &Question,
    all: &[(Statement, Origin)],
    known: &Declared,
) -> Vec<(Option<HeaderMatch>, String)> {
    match question {
        Question::Map(name) => {
            let Some(Map { entries, default }) = known.maps.get(name) else { return Vec::new() };
            let entries = entries.iter().map(|(matcher, value)| (Some(matcher.clone()), value.clone()));
            entries.chain([(None, default.clone())]).collect()
        }
        Question::Header(at) => {
            let Some((Statement::If { condition: Condition::Header(matcher), .. }, _)) = all.get(*at) else {
                return Vec::new();
            };
            vec![(Some(matcher.clone()), HOLDS.to_owned()), (None, String::new())]
        }
    }
}

/// The answer to a question of a header that matches.
const HOLDS: &str = "holds";

fn branch(
    when: Vec<HeaderMatch>,
    answers: &Answers<'_>,
    all: &[(Statement, Origin)],
    known: &Declared,
) -> Branch {
    let mut branch = Branch { when, ..Branch::default() };
    for (at, (statement, origin)) in all.iter().enumerate() {
        let Statement::If { condition, then } = statement else {
            branch.add(statement, None, origin, answers, known);
            continue;
        };
        let (holds, asked) = match condition {
            Condition::Map { name, value, equal } => (
                answers.get(&Question::Map(name.clone())).is_some_and(|said| (said == value) == *equal),
                None,
            ),
            Condition::Header(matcher) => match answers.get(&Question::Header(at)) {
                Some(answer) => (answer == HOLDS, None),
                None => (true, Some(matcher)),
            },
        };
        if holds {
            then.iter().for_each(|inner| branch.add(inner, asked, origin, answers, known));
        }
    }
    branch
}

impl Branch {
    /// Adds what a statement does. `asked` is a condition that is still to be asked.
    fn add(
        &mut self,
        statement: &Statement,
        asked: Option<&HeaderMatch>,
        origin: &Origin,
        answers: &Answers<'_>,
        known: &Declared,
    ) {
        match statement {
            Statement::Limit { zone, burst } => {
                let Some(declared) = known.zones.get(zone) else { return };
                let limit = ZoneLimit {
                    id: format!("{}/zone/{zone}/burst/{burst}", declared.origin.object),
                    key: declared.key.clone(),
                    rate: declared.rate.clone(),
                    burst: *burst,
                    status: known.status,
                    origin: origin.clone(),
                };
                // nginx refuses a zone that is named twice.
                if self.limits.iter().all(|other| other.id != limit.id) {
                    self.limits.push(limit);
                }
            }
            Statement::Return { status, body } => self.guards.push(Guard {
                phase: Phase::Rewrite,
                listeners: Listeners::All,
                when: asked.into_iter().cloned().collect(),
                answer: Answer::Direct { status: *status, body: body.clone().into_bytes() },
                origin: origin.clone(),
            }),
            Statement::Header { name, value } => {
                let text = text(value, answers);
                if !text.is_empty() {
                    self.response_headers.push(HeaderOperation::Add(name.clone(), text));
                }
            }
            // An empty value is no header, as to nginx.
            Statement::RequestHeader { name, value } => {
                let text = text(value, answers);
                self.request_headers.push(match text.is_empty() {
                    true => HeaderOperation::Remove(name.clone()),
                    false => HeaderOperation::Set(name.clone(), text),
                });
            }
            Statement::If { .. } => {}
        }
    }
}

/// An Envoy format string of these.
fn text(value: &[Piece], answers: &Answers<'_>) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Map(name) => {
            let said = answers.get(&Question::Map(name.clone()));
            crate::values::header::escape_format(said.map_or("", String::as_str))
        }
    };
    value.iter().map(piece).collect()
}
