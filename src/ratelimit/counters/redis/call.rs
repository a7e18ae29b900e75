//! One call of the script: what it is told of each ask, and what it answers. Pure.

use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envoy_types::pb::envoy::extensions::common::ratelimit::v3::rate_limit_descriptor::Entry;
use redis::{Cmd, ErrorKind, RedisError, Script, ServerErrorKind, Value};
use ring::digest::{SHA256, digest};

use crate::model::limit::{Algorithm, Limit};
use crate::ratelimit::algorithms::State;
use crate::ratelimit::counters::key::{identity, identity_of_grant, identity_of_key};
use crate::ratelimit::counters::{Ask, Hits, Outcome, Role};

/// The largest number that the script counts with exactly, and the longest span of time.
const MAX: u64 = 1 << 53;
const MAX_MS: u64 = 1 << 48;

const SCRIPT: &str = include_str!("count.lua");
/// Redis's name for it.
static SCRIPT_NAME: LazyLock<String> = LazyLock::new(|| Script::new(SCRIPT).get_hash().to_owned());

/// The name of a counter in Redis: `chancery:{KEY}:COUNTER`, both hashes, since values such as keys of an API belong into
/// no other store and are as long as a client likes. They have no secret, so that every replica has the same, and are
/// cryptographic, so that nobody can choose values that share a counter. Counters of one key are in one slot of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name(pub(super) Arc<str>);

impl Name {
    pub(super) fn of(limit: &Limit, key: &[Entry]) -> Self {
        let (tag, counter) = (identity_of_key(key), identity(limit, key, 1));
        Self(format!("chancery:{{{}}}:{}", hash(&tag), hash(&counter)).into())
    }

    /// The name of what a key was granted of a limit, whatever its numbers: in the slot of its counter.
    pub(super) fn of_grant(limit: &Limit, key: &[Entry]) -> Self {
        let (tag, grant) = (identity_of_key(key), identity_of_grant(limit, key));
        Self(format!("chancery:{{{}}}:grant:{}", hash(&tag), hash(&grant)).into())
    }

    /// What a cluster goes by.
    pub(super) fn tag(&self) -> &str {
        self.0.split_once('}').map_or(&*self.0, |(tag, _)| tag)
    }
}

fn hash(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(&digest(&SHA256, bytes).as_ref()[..16])
}

/// What is wanted of a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Hits(Hits),
    /// Hits that came so many parts of the algorithm's span ago, and are charged whatever there is left.
    Past {
        hits: u64,
        age: u64,
    },
    /// As much as is wise to lend, from what is needed to a whole block.
    Block {
        needed: u64,
        block: u64,
        /// May be lent even if little is left.
        free: u64,
    },
    /// What is left of a block is given back, if its window has not ended by this time.
    GiveBack {
        left: u64,
        until: u64,
    },
    /// What was taken for a request that does not go through is given back, to the counter and to the grant.
    Undo {
        counted: u64,
        granted: u64,
    },
}

/// What the script is told of one counter.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) name: Name,
    pub(super) algorithm: Algorithm,
    pub(super) wanted: Wanted,
    pub(super) role: Role,
    /// What pays before the counter, if the key may have such a grant.
    pub(super) grant: Option<Name>,
}

impl Question {
    pub(super) fn of(ask: &Ask<'_>) -> Self {
        Self {
            name: Name::of(ask.limit, ask.key),
            algorithm: ask.limit.algorithm,
            wanted: Wanted::Hits(ask.hits),
            role: ask.role,
            grant: None,
        }
    }

    fn write(&self, call: &mut Cmd, now: u64) {
        let (kind, requests, numbers) = parameters(&self.algorithm, now);
        let (hit, n, more, d) = match self.wanted {
            Wanted::Hits(Hits::Take(n)) => (b't', n, 0, numbers[3]),
            Wanted::Hits(Hits::Charge(n)) => (b'c', n, 0, numbers[3]),
            Wanted::Hits(Hits::Return(n)) => (b'r', n, 0, numbers[3]),
            Wanted::Past { hits, age } => (b'c', hits, age, numbers[3]),
            Wanted::Block { needed, block, free } => (b'l', block, needed, free),
            Wanted::GiveBack { left, until } => (b'g', left, until, numbers[3]),
            Wanted::Undo { counted, granted } => (b'r', counted, granted, numbers[3]),
        };
        // A capital says that there is a grant.
        let hit = [if self.grant.is_some() { hit.to_ascii_uppercase() } else { hit }];
        let role = match self.role {
            Role::Binding => -1,
            Role::Shadow => -2,
            Role::Quota(group) => i64::try_from(group).unwrap_or(i64::MAX),
        };
        call.arg(kind).arg(requests);
        for number in [numbers[0], numbers[1], numbers[2], d] {
            call.arg(number.min(MAX - 1));
        }
        call.arg(&hit[..]).arg(n.min(MAX_MS)).arg(role).arg(more.min(MAX - 1));
    }
}

/// An algorithm in numbers: which, its hits, and up to four more.
fn parameters(algorithm: &Algorithm, now: u64) -> (u8, u32, [u64; 4]) {
    match *algorithm {
        Algorithm::Gcra { requests, period_ms, burst } => {
            (0, requests, [period_ms.min(MAX_MS), burst.into(), 0, 0])
        }
        Algorithm::FixedWindow { requests, window_ms } => (1, requests, [window_ms.min(MAX_MS), 0, 0, 0]),
        Algorithm::AlignedWindow { requests, window_ms } => (2, requests, [window_ms.min(MAX_MS), 0, 0, 0]),
        Algorithm::SlidingWindow { requests, window_ms } => (3, requests, [window_ms.min(MAX_MS), 0, 0, 0]),
        Algorithm::Calendar { requests, unit, time_zone } => {
            let period = time_zone.period(unit, now);
            let before = time_zone.period(unit, period.start.saturating_sub(1));
            let after = time_zone.period(unit, period.end);
            (4, requests, [before.start, period.start, period.end, after.end])
        }
        Algorithm::Concurrency { limit, lease_ms } => (5, limit, [lease_ms.min(MAX_MS), 0, 0, 0]),
    }
}

/// What the script says of one counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) outcome: Outcome,
    /// How much the counter was charged or got back, if it was allowed. What is lacking a grant has paid.
    pub(super) charged: u64,
    /// Milliseconds until the state is none.
    pub(super) idle_ms: u64,
    pub(super) state: State,
}

/// What the script says, and the time that it said so at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) now: u64,
    pub(super) answers: Vec<Answer>,
}

/// What a call is about beside its questions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Terms {
    /// The time to count at, if it is not Redis's own.
    pub(super) at: Option<u64>,
    /// The time by Redis's clock, more or less.
    pub(super) near: u64,
    /// Whether each question is for itself.
    pub(super) each: bool,
}

/// The milliseconds that a state outlives its use. Where time is told, none goes by itself.
const SPARE_MS: u64 = 1_000;
const TOLD_SPARE_MS: u64 = 3_600_000;

/// The call that asks these of a server that knows the script.
pub(super) fn by_name(questions: &[Question], terms: Terms) -> Cmd {
    call("EVALSHA", &SCRIPT_NAME, questions, terms)
}

/// The same of one that does not. It does from then on.
pub(super) fn in_full(questions: &[Question], terms: Terms) -> Cmd {
    call("EVAL", SCRIPT, questions, terms)
}

/// Whether the server does not know the script, as after its start.
pub(super) fn is_unknown(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn call(command: &str, script: &str, questions: &[Question], terms: Terms) -> Cmd {
    // What comes before the questions, and what each of them is.
    const HEAD: usize = 6;
    const EACH: usize = 11;
    const BYTES: usize = 160;
    let spare = if terms.at.is_some() { TOLD_SPARE_MS } else { SPARE_MS };
    let bytes = script.len() + BYTES * (questions.len() + 1);
    let grants = questions.iter().filter_map(|question| question.grant.as_ref());
    let mut call = Cmd::with_capacity(HEAD + EACH * questions.len(), bytes);
    call.arg(command).arg(script).arg(questions.len() + grants.clone().count());
    for name in questions.iter().map(|question| &question.name).chain(grants) {
        call.arg(&*name.0);
    }
    call.arg(terms.at.unwrap_or(0)).arg(spare).arg(u8::from(terms.each));
    for question in questions {
        question.write(&mut call, terms.at.unwrap_or(terms.near));
    }
    call
}

/// Reads what the script answered; none if it is no answer to so many questions.
pub(super) fn read(value: &Value, questions: usize) -> Option<Reply> {
    const EACH: usize = 6;
    let Value::Array(values) = value else { return None };
    let (now, rest) = values.split_first()?;
    let now = number(now)?;
    let answers: Option<Vec<Answer>> = rest.chunks(EACH).map(answer).collect();
    let answers = answers.filter(|answers| answers.len() == questions)?;
    Some(Reply { now, answers })
}

fn answer(values: &[Value]) -> Option<Answer> {
    let [allowed, remaining, reset, charged, idle, state] = values else { return None };
    // A time that is never.
    let time = |value: &Value| number(value).map(|ms| if ms >= MAX / 2 { u64::MAX } else { ms });
    let outcome =
        Outcome { allowed: number(allowed)? == 1, remaining: number(remaining)?, reset_ms: time(reset)? };
    Some(Answer { outcome, charged: number(charged)?, idle_ms: time(idle)?, state: read_state(state)? })
}

fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

fn read_state(value: &Value) -> Option<State> {
    let Value::BulkString(text) = value else { return None };
    let mut numbers = std::str::from_utf8(text).ok()?.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next().unwrap_or(Ok(0)).ok();
    let mut state = State { at: next()?, used: next()?, ..State::default() };
    for count in &mut state.earlier {
        *count = u32::try_from(next()?).ok()?;
    }
    Some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::limit::Key;

    fn entry(value: &str) -> [Entry; 1] {
        [Entry { key: "key".into(), value: value.into() }]
    }

    #[test]
    fn counters_of_a_key_have_names_of_their_own_in_one_slot() {
        let limit = |id: &str, requests| {
            Limit::new(id.into(), Key::ClientAddress, Algorithm::FixedWindow { requests, window_ms: 1 })
        };
        let names = [
            Name::of(&limit("a", 1), &entry("k")),
            Name::of(&limit("b", 1), &entry("k")),
            Name::of(&limit("a", 2), &entry("k")),
            Name::of(&limit("a", 1), &entry("l")),
        ];
        for (at, name) in names.iter().enumerate() {
            assert!(!names[..at].contains(name), "{name:?}");
            assert_eq!(name.tag() == names[0].tag(), at < 3, "{name:?}");
            assert_eq!(name.0.len(), "chancery:{}:".len() + 44);
        }
        assert_eq!(Name::of(&limit("a", 1), &entry("k")), names[0]);
    }

    #[test]
    fn grants_are_of_a_limit_and_a_key_and_beside_the_counter() {
        let limit = |id: &str, requests| {
            Limit::new(id.into(), Key::ClientAddress, Algorithm::FixedWindow { requests, window_ms: 1 })
        };
        let grant = Name::of_grant(&limit("a", 1), &entry("k"));
        assert_eq!(grant.tag(), Name::of(&limit("a", 1), &entry("k")).tag());
        assert_eq!(grant, Name::of_grant(&limit("a", 2), &entry("k")));
        assert_ne!(grant, Name::of_grant(&limit("b", 1), &entry("k")));
        assert_ne!(grant, Name::of_grant(&limit("a", 1), &entry("l")));
    }

    #[test]
    fn what_is_no_answer_is_not_read() {
        let whole = |numbers: &[i64], state: &str| {
            let mut values: Vec<Value> = numbers.iter().map(|number| Value::Int(*number)).collect();
            values.push(Value::BulkString(state.into()));
            Value::Array(values)
        };
        let reply = read(&whole(&[7, 1, 2, 3, 4, 5], "6 7 8"), 1).unwrap();
        let outcome = Outcome { allowed: true, remaining: 2, reset_ms: 3 };
        let state = State { at: 6, used: 7, earlier: [8, 0, 0, 0, 0, 0, 0, 0] };
        assert_eq!(reply, Reply { now: 7, answers: vec![Answer { outcome, charged: 4, idle_ms: 5, state }] });
        assert_eq!(read(&whole(&[7, 1, 2, 3, 4, 5], ""), 1).unwrap().answers[0].state, State::default());
        for (value, questions) in [
            (whole(&[7, 1, 2, 3, 4, 5], ""), 2),
            (whole(&[7, 1, 2, 3, 4], ""), 1),
            (whole(&[7, 1, 2, 3, 4, 5], "x"), 1),
            (whole(&[7, 1, -2, 3, 4, 5], ""), 1),
            (Value::Nil, 0),
        ] {
            assert_eq!(read(&value, questions), None, "{value:?}");
        }
    }
}
