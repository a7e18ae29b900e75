//! What was measured with a real API server, as a part of the document.

use super::record::{Layout, Record, Series, Statuses};
use super::report::{Rows, count, mib, ms};

/// The numbers of hosts that the bars are about.
const FEW: usize = 1_000;
const MANY: usize = 10_000;

/// The bars and the tables; nothing if nothing was measured.
pub(super) fn text(records: &[Record], statuses: Option<&Statuses>) -> String {
    let edited: Vec<_> = records.iter().filter(|record| record.endpoint.is_some()).collect();
    if edited.is_empty() && statuses.is_none() {
        return String::new();
    }
    let mut bars = Rows::new(&["bar", "measured", ""]);
    bars_of_edits(&mut bars, &edited);
    let written = statuses.map(|statuses| written(&mut bars, statuses)).unwrap_or_default();
    let tables = if edited.is_empty() {
        String::new()
    } else {
        format!("{}\n{}\n", edits(&edited), processes(&edited))
    };
    format!(
        "## With a real API server\n\nThe clock runs from the API server's answer to the edit to the end of the first response \
         served the new way. Under churn a route of another host changes each second, and another Service's endpoint each two. \
         The pusher has the same watch and the same xDS server, and sends what was made before; \
         under churn the two take turns, and the other one is stopped meanwhile.\n\n{}\n{tables}{written}",
        bars.text,
    )
}

type Of = fn(&Record) -> Option<&Series>;

const SERIES: [(&str, Of); 4] = [
    ("route", |record| record.route.as_ref()),
    ("endpoint", |record| record.endpoint.as_ref()),
    ("route under churn", |record| record.route_churned.as_ref()),
    ("endpoint under churn", |record| record.endpoint_churned.as_ref()),
];

/// The bars of how statuses are written, and what was measured.
fn written(bars: &mut Rows, statuses: &Statuses) -> String {
    let all = statuses.ingresses;
    let last = statuses.median(|it| it.last);
    let (writes, unchanged) = (statuses.most(|it| it.writes), statuses.most(|it| it.unchanged));
    let name = count(all);
    bars.bar(&format!("start → last of {name} Ingresses has its status ≤ 2 s"), &ms(last), last <= 2_000.0);
    bars.bar(&format!("writes for that ≤ {name}"), &count(writes), writes <= all);
    bars.bar("no write by a start when nothing changed", &count(unchanged), unchanged == 0);
    let mut rows = Rows::new(&[
        "Ingresses",
        "last status",
        "rounds",
        "CPU, control plane",
        "CPU, API server",
        "writes",
        "by a second start",
    ]);
    rows.row(&[
        &name,
        &ms(last),
        &statuses.rounds.len().to_string(),
        &ms(statuses.median(|it| it.control_plane_cpu)),
        &ms(statuses.median(|it| it.api_server_cpu)),
        &count(writes),
        &count(unchanged),
    ]);
    format!(
        "Ingresses without a status, and a control plane that starts, with `--publish-status-address`, and takes the Lease: \
         the median until a watch shows the last one's, and the most writes of statuses and Events that the API server \
         counts. The second start finds all as it should be. What an API server does for a write is most of it: its CPU, with \
         etcd's, stands beside.\n\n{}\n",
        rows.text
    )
}

fn bars_of_edits(rows: &mut Rows, records: &[&Record]) {
    let find = |layout, hosts| {
        records.iter().find(|record| record.layout == layout && record.hosts == hosts).copied()
    };
    let Some(many) = find(Layout::Scoped, MANY) else { return };
    for (name, of) in [SERIES[0], SERIES[2]] {
        let Some(series) = of(many) else { continue };
        let (median, p99) = (series.percentile(0.5), series.percentile(0.99));
        rows.bar(&format!("{name}, 10,000 hosts: median ≤ 4 ms"), &ms(median), median <= 4.0);
        rows.bar(&format!("{name}, 10,000 hosts: p99 ≤ 20 ms"), &ms(p99), p99 <= 20.0);
        if let Some(few) = find(Layout::Scoped, FEW).and_then(of) {
            let growth = median / few.percentile(0.5);
            rows.factor(&format!("{name}: growth from 1,000 to 10,000 hosts"), growth, 1.3);
        }
    }
    for (name, of) in [SERIES[1], SERIES[3]] {
        let pushed = find(Layout::Pusher, MANY).and_then(of);
        let (Some(series), Some(pushed)) = (of(many), pushed) else { continue };
        let factor = series.percentile(0.5) / pushed.percentile(0.5);
        rows.factor(&format!("{name}, 10,000 hosts: median over a pusher's"), factor, 1.2);
    }
    if let Some(route) = &many.route {
        let (ours, envoy) = (route.control_plane_cpu, route.envoy_cpu);
        rows.bar("CPU of a route's edit, control plane ≤ 3 ms", &ms(ours), ours <= 3.0);
        rows.bar("CPU of a route's edit, Envoy ≤ 5 ms", &ms(envoy), envoy <= 5.0);
    }
    let (peak, start) = (many.memory.control_plane_peak, many.median_start());
    rows.bar("control plane's memory at 10,000 hosts, peak ≤ 150 MiB", &mib(peak), peak <= 150.0);
    rows.bar("start → last of 10,000 hosts served ≤ 1.5 s", &ms(start), start <= 1_500.0);
    let lost: usize = records.iter().map(|record| record.lost).sum();
    rows.bar("no request lost", &lost.to_string(), lost == 0);
}

fn edits(records: &[&Record]) -> String {
    let mut rows = Rows::new(&[
        "",
        "hosts",
        "edit",
        "p50",
        "p90",
        "p99",
        "max",
        "edits",
        "CPU, control plane",
        "CPU, Envoy",
    ]);
    for record in records {
        for (name, of) in SERIES {
            let Some(series) = of(record) else { continue };
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| ms(series.percentile(share)));
            // Under churn nobody can tell whose edit used it.
            let cpu = |cpu| if series.unpolled > 0 { ms(cpu) } else { String::new() };
            rows.row(&[
                record.layout.name(),
                &count(record.hosts),
                name,
                &p50,
                &p90,
                &p99,
                &max,
                &series.served.len().to_string(),
                &cpu(series.control_plane_cpu),
                &cpu(series.envoy_cpu),
            ]);
        }
    }
    rows.text
}

fn processes(records: &[&Record]) -> String {
    let mut rows = Rows::new(&[
        "",
        "hosts",
        "last host served",
        "starts",
        "memory loaded",
        "at the end",
        "peak",
        "Envoy's peak",
    ]);
    for record in records {
        rows.row(&[
            record.layout.name(),
            &count(record.hosts),
            &ms(record.median_start()),
            &record.starts.len().to_string(),
            &mib(record.memory_loaded.control_plane),
            &mib(record.memory.control_plane),
            &mib(record.memory.control_plane_peak),
            &mib(record.memory.envoy_peak),
        ]);
    }
    rows.text
}
