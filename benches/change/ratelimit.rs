//! What the benches of the rate limit service measured, for the report.

use std::collections::BTreeMap;

use super::kept::{Answers, Away, Contender, Kept, Load, Round, Soak};
use super::records;
use super::report::{Rows, count, ms};

/// Where most is compared.
const USUAL: Load = Load { rules: 1, keys: 10_000, rate: None };
const HOT_KEY: Load = Load { keys: 1, ..USUAL };
const SENT: Load = Load { rate: Some(10_000), ..USUAL };

/// What holds the bar that is no matter of speed.
const WINDOW_TEST: &str = "ratelimit::algorithms::sliding_window::tests::comes_near_the_log_of_every_hit";

/// Bars, and a table of all contenders; nothing where nothing was measured.
pub(super) fn text(machine: &str) -> anyhow::Result<String> {
    let (kept, bytes, soak, away) = (Kept::read()?, bytes_a_key()?, Soak::read()?, Away::read()?);
    let (Some(kept), false, Some(soak), Some(away)) = (kept, bytes.is_empty(), soak, away) else {
        println!("the rate limit service: not all of it was measured; its section stays as it was");
        return Ok(String::new());
    };
    let mut bars = Rows::new(&["bar", "measured", ""]);
    decisions(&kept, &mut bars);
    latency(&kept, &mut bars);
    for (name, of, most) in [("gcra", "GCRA", 96), ("sliding-window", "sliding window of 8 parts", 160)] {
        if let Some(bytes) = bytes.get(name) {
            let bar = format!("memory of 1,000,000 keys, {of}, ≤ {most} bytes each");
            bars.bar(&bar, &format!("{bytes} bytes"), *bytes <= most);
        }
    }
    flood(&soak, &mut bars);
    while_away(&away, &mut bars);
    bars.row(&[
        "sliding window under Poisson, on and off, sine and boundary traffic: in no window above 1.08 × the limit",
        &format!("test `{WINDOW_TEST}`"),
        "see `make test`",
    ]);
    Ok(format!("## Rate limit service\n\n{}\n{}", bars.text, contenders(&kept, machine)))
}

fn of(kept: &Kept, contender: Contender, load: Load) -> Option<&Round> {
    kept.rows.iter().find(|(known, of, _)| (*known, *of) == (contender, load)).map(|(.., round)| round)
}

/// Of decisions for each second of CPU time.
fn decisions(kept: &Kept, bars: &mut Rows) {
    use Contender::{Envoyproxy, Exact, Leased, Limitador, Memory, Noop};
    let rules = |rules| (Memory, Load { rules, ..USUAL });
    for (bar, (one, load), (other, beside), least) in [
        ("one rule: of a server that decides nothing", rules(1), (Noop, USUAL), 0.88),
        ("one rule: of the limitador library", rules(1), (Limitador, USUAL), 1.9),
        ("100 rules: of one rule", rules(100), rules(1), 0.9),
        ("10,000 rules: of one rule", rules(10_000), rules(1), 0.9),
        ("in memory: of envoyproxy/ratelimit", (Memory, USUAL), (Envoyproxy, USUAL), 4.0),
        ("exact in Redis: of envoyproxy/ratelimit", (Exact, USUAL), (Envoyproxy, USUAL), 2.0),
        ("leased of Redis: of envoyproxy/ratelimit", (Leased, USUAL), (Envoyproxy, USUAL), 3.5),
        ("a hot key leased of Redis: of envoyproxy/ratelimit", (Leased, HOT_KEY), (Envoyproxy, HOT_KEY), 3.5),
    ] {
        if let (Some(one), Some(other)) = (of(kept, one, load), of(kept, other, beside)) {
            let ratio = one.per_cpu_second / other.per_cpu_second;
            bars.bar(&format!("{bar} ≥ {least} ×"), &format!("{ratio:.2} ×"), ratio >= least);
        }
    }
}

/// A latency says something of a server that keeps up.
fn latency(kept: &Kept, bars: &mut Rows) {
    let keeps_up = |round: &Round| round.per_second >= 0.95 * SENT.rate.map_or(f64::NAN, f64::from);
    if let (Some(ours), Some(noop)) = (of(kept, Contender::Memory, SENT), of(kept, Contender::Noop, SENT)) {
        let bar = "10,000 requests a second, p99: over a server that decides nothing ≤ 1.5 ×";
        let ratio = ours.p99 / noop.p99;
        let holds = keeps_up(ours) && keeps_up(noop) && ratio <= 1.5;
        bars.bar(bar, &format!("{ratio:.2} ×"), holds);
    }
}

/// Of keys that fill the table of counters and go on.
fn flood(soak: &Soak, bars: &mut Rows) {
    let Soak { minutes, decisions, counters, full, most, before, during, limit, .. } = soak;
    let keys = [*decisions, *counters].map(|number| count(number as usize));
    let bar = format!(
        "{minutes} minutes of new keys, {} for {} counters: memory once they are full grows by ≤ 2 %",
        keys[0], keys[1]
    );
    bars.bar(&bar, &format!("{full:.1} to {most:.1} MiB"), *most <= 1.02 * full);
    let bar = format!(
        "meanwhile, of one user that was there before and one that came then, let through: ≤ {limit} each"
    );
    bars.bar(&bar, &format!("{before} and {during}"), before.max(during) <= limit);
}

/// Whether Redis answers or not. The first calls of one that is away may wait for it, and be answered in its place.
fn while_away(away: &Away, bars: &mut Rows) {
    for fault in ["paused", "slow", "killed"] {
        let rows: Vec<_> = away.rows.iter().filter(|(known, ..)| known == fault).collect();
        let each: Vec<_> =
            rows.iter().map(|(_, mode, answers)| format!("{mode} {}", ms(answers.p999))).collect();
        let as_said = |mode: &str, answers: &Answers| match mode {
            "closed" => answers.failed as f64 >= 0.99 * answers.calls as f64,
            _ => answers.failed == 0,
        };
        let holds = !rows.is_empty()
            && rows.iter().all(|(_, mode, answers)| answers.p999 <= 10.0 && as_said(mode, answers));
        let bar = format!("Redis is {fault}: answers by the failure mode, p99.9 ≤ 10 ms");
        bars.bar(&bar, &each.join(", "), holds);
    }
}

fn contenders(kept: &Kept, machine: &str) -> String {
    let mut table = Rows::new(&[
        "server",
        "rules",
        "keys",
        "requests",
        "decisions for a second of its CPU",
        "Redis's CPU for each",
        "decisions a second",
        "p50",
        "p99",
    ]);
    for (contender, load, round) in &kept.rows {
        let Load { rules, keys, rate } = load;
        let rules = if *contender == Contender::Noop { "-".to_owned() } else { count(*rules as usize) };
        let requests =
            rate.map_or("128 under way".to_owned(), |rate| format!("{} a second", count(rate as usize)));
        let [per_cpu, per_second] =
            [round.per_cpu_second, round.per_second].map(|number| count(number.round() as usize));
        let redis = round.redis.map_or("-".to_owned(), |micros| format!("{micros:.1} µs"));
        let (p50, p99) = (ms(round.p50), ms(round.p99));
        let keys = count(*keys as usize);
        table.row(&[contender.name(), &rules, &keys, &requests, &per_cpu, &redis, &per_second, &p50, &p99]);
    }
    format!(
        "Medians of {} rounds in turn, on {}, {machine}: the server on one core; the client, and Redis, on another. Requests have a \
         descriptor of two entries, a route with a rule and a user; 4 connections. Those that are sent so many a second are \
         sent when they are due whether answers came or not, and their latency counts from then. limitador is its library \
         behind tonic's gRPC server, as is the one that decides nothing; envoyproxy/ratelimit is its service as it is by default, without its statistics.\n\n{}\n",
        kept.rounds,
        &kept.at[..10],
        table.text
    )
}

/// By algorithm; nothing if nothing was measured.
fn bytes_a_key() -> anyhow::Result<BTreeMap<String, usize>> {
    Ok(records::read("bytes_a_key.json")?.unwrap_or_default())
}
