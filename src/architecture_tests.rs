//! Dependencies point one way. This reads what every source file imports, and holds it against the tables below.
//!
//! Tests may import what they like: files and folders named so, and the `mod tests` at the end of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

/// Each module of the crate, and the others that it may know. `app` puts everything together.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("values", &[]),
    ("descriptors", &[]),
    ("settings", &[]),
    ("clock", &[]),
    ("parallel", &[]),
    ("settled", &[]),
    ("exposition", &[]),
    ("telemetry", &[]),
    ("crd", &[]),
    // A policy also says what the field of a custom resource of the same meaning means.
    ("features", &["values", "crd"]),
    ("messages", &[]),
    ("model", &["values", "features", "messages"]),
    ("store", &["values", "crd"]),
    ("source", &["values", "crd", "parallel", "store"]),
    ("options", &["settings", "model"]),
    ("tls", &["values", "options", "settled"]),
    ("resolve", &["values", "crd", "features", "model", "settings", "store"]),
    ("translate", &["values", "descriptors", "features", "messages", "model", "settings", "xds"]),
    ("xds", &[]),
    ("fleet", &["xds"]),
    ("state", &["xds"]),
    // It checks the ConfigMap as a whole, and keeps equal effects once.
    (
        "compile",
        &[
            "values",
            "parallel",
            "descriptors",
            "features",
            "model",
            "settings",
            "store",
            "resolve",
            "translate",
            "xds",
        ],
    ),
    // The table of kinds, to name them as an API server does, and the shape that definitions of our own give a status.
    ("status", &["values", "crd", "options", "compile", "source"]),
    ("ratelimit", &["values", "options", "descriptors", "exposition", "messages", "model", "settled", "tls"]),
    // Handles of what others hold, to be read.
    (
        "admin",
        &["values", "descriptors", "exposition", "model", "xds", "compile", "fleet", "ratelimit", "tls"],
    ),
    ("cli", &["values", "settings", "options", "telemetry", "xds"]),
];

/// Files that know a module more than the table says, and why.
const ALSO: &[(&str, &str, &str)] = &[
    ("xds/server.rs", "clock", "a stream tells when it sent what, and when it was acknowledged"),
    ("admin/dump.rs", "translate", "finds the certificate of a server name as sessions do"),
    ("admin/csds.rs", "translate", "finds the certificate of a server name as sessions do"),
    ("cli/bootstrap.rs", "translate", "prints what a pure function makes of flags"),
    ("cli/translate.rs", "admin", "prints resources as the debug endpoint does, without private keys"),
    ("cli/ratelimit.rs", "ratelimit", "is the rate limit service"),
    ("cli/ratelimit.rs", "tls", "is the rate limit service"),
    ("cli/counters.rs", "model", "reads what becomes of requests without them"),
    ("ratelimit/counters/redis/link.rs", "clock", "guesses Redis's clock until that has said"),
    ("ratelimit/counters/memory.rs", "clock", "some windows go by the wall clock"),
    ("ratelimit/quota/desk.rs", "clock", "a grant ends with a window of the calendar"),
    ("tls/follow.rs", "clock", "a certificate has to be valid now"),
    (
        "source/files/follow.rs",
        "clock",
        "a file written this moment may be written again within the same tick",
    ),
    ("cli/status.rs", "clock", "prints how long ago something was"),
    ("status/mod.rs", "clock", "Leases, conditions and Events bear times"),
];

/// Crates that only some modules use.
const CRATES: &[(&str, &[&str])] = &[
    ("kube", &["source", "status"]),
    ("k8s_openapi", &["crd", "store", "source", "resolve", "status"]),
    ("envoy_types", &["descriptors", "translate", "xds", "ratelimit"]),
    ("k8s_pb", &["source"]),
    ("prost", &["descriptors", "source", "translate", "xds", "state", "ratelimit"]),
    ("prost_reflect", &["descriptors"]),
    ("tonic", &["xds", "ratelimit", "app"]),
    ("tokio", &["source", "xds", "fleet", "status", "tls", "ratelimit", "admin", "app", "cli"]),
    ("futures", &["source", "xds", "status", "tls", "ratelimit", "admin", "app"]),
    ("axum", &["ratelimit", "admin"]),
    ("hyper_util", &["ratelimit", "cli"]),
    ("redis", &["options", "ratelimit"]),
    ("notify", &["source"]),
    ("clap", &["cli", "options", "telemetry"]),
    ("anyhow", &["app", "cli", "main"]),
];

/// Files that use a crate more, and why.
const CRATES_ALSO: &[(&str, &str, &str)] = &[
    ("admin/csds.rs", "envoy_types", "answers in the messages of a protocol of Envoy's"),
    ("admin/csds.rs", "tonic", "is a gRPC service"),
    ("crd/rate_limit_policy.rs", "kube", "derives the resource's definition; there is no client in it"),
];

/// Modules whose functions give equal output for equal input.
const PURE: &[&str] = &[
    "values",
    "features",
    "model",
    "crd",
    "store",
    "resolve",
    "translate",
    "compile",
    "xds/session",
    "settings",
    "status/analysis",
    "status/events",
    "status/lease",
    "status/plan",
];

/// What a pure function has no use for.
const IMPURE: &str = r"\b(SystemTime::now|Instant::now|Timestamp::now|std::fs|std::env|env::var|TcpStream|TcpListener|UdpSocket|std::process|std::thread|rand::|getrandom|generate\(\))";

/// Files outside `app` that begin something which runs beside them, and why that cannot outlive them.
const SPAWNS: &[(&str, &str)] = &[
    ("parallel.rs", "scoped threads, which end with the call"),
    ("source/files/follow.rs", "inotify blocks; the task is awaited where it begins"),
    ("ratelimit/counters/redis/own.rs", "connections of one thread, which end with its runtime"),
    ("ratelimit/envoyproxy/follow.rs", "reading files blocks; the task is awaited where it begins"),
    ("ratelimit/calls.rs", "connections of one thread, which end with its runtime"),
    ("ratelimit/threads.rs", "threads, whose end is awaited where they are started"),
    ("ratelimit/saved.rs", "writing files blocks; the task is awaited where it begins"),
    ("tls/follow.rs", "reading files blocks; the task is awaited where it begins"),
];

struct File {
    /// Its path below `src`.
    path: String,
    /// Without comments and tests.
    code: String,
}

impl File {
    /// Its module within the crate: `xds`, `session`, `send`.
    fn modules(&self) -> Vec<&str> {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        let path = path.strip_suffix("/mod").unwrap_or(path);
        if path == "lib" { Vec::new() } else { path.split('/').collect() }
    }

    /// The module of the crate that it is part of.
    fn top(&self) -> &str {
        self.modules().first().copied().unwrap_or("lib")
    }

    fn is_in(&self, module: &str) -> bool {
        let path = self.path.strip_suffix(".rs").unwrap_or(&self.path);
        path == module || path.starts_with(&format!("{module}/"))
    }

    /// The paths of modules that it declares for tests only.
    fn modules_for_tests(&self) -> Vec<String> {
        static DECLARED: LazyLock<Regex> =
            LazyLock::new(|| Regex::new(r"#\[cfg\(test\)\]\s+(?:pub(?:\(\w+\))? )?mod (\w+);").unwrap());
        let parent = self.modules().join("/");
        let declared = DECLARED.captures_iter(&self.code);
        declared.map(|found| format!("{parent}/{}", &found[1]).trim_start_matches('/').to_owned()).collect()
    }

    /// The modules of the crate that it names.
    fn knows(&self) -> BTreeSet<String> {
        static CRATE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\bcrate::(\w+|\{)").unwrap());
        static SUPER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\b((?:super::)+)(\w+)").unwrap());
        let mut known = BTreeSet::new();
        for found in CRATE.captures_iter(&self.code) {
            match &found[1] {
                "{" => known.extend(group(&self.code[found.get(0).unwrap().end()..])),
                name => known.extend([name.to_owned()]),
            }
        }
        let depth = self.modules().len();
        for found in SUPER.captures_iter(&self.code) {
            if found[1].matches("super").count() == depth {
                known.insert(found[2].to_owned());
            }
        }
        known.remove(self.top());
        known
    }
}

/// The first names of a `use` group's members, from behind its brace on.
fn group(text: &str) -> Vec<String> {
    let mut depth = 0;
    let mut members = vec![String::new()];
    for character in text.chars() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => members.push(String::new()),
            _ => {}
        }
        members.last_mut().expect("one at least").push(character);
    }
    let first = |member: &String| {
        let name = member.trim_start_matches([',', ' ', '\n']);
        name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
    };
    members.iter().map(first).filter(|name| !name.is_empty()).collect()
}

/// Every source file but tests.
fn files() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && name != "tests" {
                folders.push(path);
            } else if name.ends_with(".rs") && !name.ends_with("tests.rs") {
                let below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
                files.push(File { path: below, code: std::fs::read_to_string(path).unwrap() });
            }
        }
    }
    let for_tests: Vec<_> = files.iter().flat_map(File::modules_for_tests).collect();
    files.retain(|file| !for_tests.iter().any(|module| file.is_in(module)));
    files.iter_mut().for_each(|file| file.code = code(&file.code));
    assert!(files.len() > 100, "only {} files are found", files.len());
    files
}

fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

fn assert_none(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn the_table_has_every_module() {
    let library = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let module = Regex::new(r"(?m)^(?:pub )?mod (\w+);").unwrap();
    let declared: BTreeSet<_> = module.captures_iter(&library).map(|found| found[1].to_owned()).collect();
    let in_table = MAY_KNOW.iter().map(|(module, _)| (*module).to_owned());
    let tabled: BTreeSet<_> = in_table.chain(["app", "architecture_tests"].map(str::to_owned)).collect();
    assert_eq!(declared, tabled);
}

/// Without the exceptions: a module never knows one that knows it, however far around.
#[test]
fn the_table_points_one_way() {
    let table: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    let mut settled: BTreeSet<&str> = BTreeSet::new();
    while settled.len() < table.len() {
        let next = table.iter().find(|(module, known)| {
            !settled.contains(*module) && known.iter().all(|known| settled.contains(known))
        });
        let (module, _) = next.unwrap_or_else(|| panic!("a circle beyond {settled:?}"));
        settled.insert(module);
    }
}

#[test]
fn modules_know_only_what_they_may() {
    let table: BTreeMap<_, _> = MAY_KNOW.iter().copied().collect();
    let mut violations = Vec::new();
    for file in files() {
        let Some(allowed) = table.get(file.top()) else { continue };
        for known in file.knows() {
            let also = ALSO.iter().any(|(path, module, _)| *path == file.path && *module == known);
            if !also && !allowed.contains(&known.as_str()) {
                violations.push(format!("src/{} knows {known}, which {} may not", file.path, file.top()));
            }
        }
    }
    assert_none(violations);
}

#[test]
fn crates_stay_where_they_belong() {
    let mut violations = Vec::new();
    let files = files();
    for (name, modules) in CRATES {
        let used = Regex::new(&format!(r"(?:^|[^\w:]){name}::")).unwrap();
        for file in files.iter().filter(|file| !modules.contains(&file.top()) && used.is_match(&file.code)) {
            if !CRATES_ALSO.iter().any(|(path, of, _)| *path == file.path && of == name) {
                violations.push(format!("src/{} uses {name}, which belongs to {modules:?}", file.path));
            }
        }
    }
    assert_none(violations);
}

#[test]
fn pure_code_reads_nothing_but_its_arguments() {
    let impure = Regex::new(IMPURE).unwrap();
    let mut violations = Vec::new();
    for file in files().iter().filter(|file| PURE.iter().any(|module| file.is_in(module))) {
        for found in impure.find_iter(&file.code) {
            violations.push(format!("src/{} is pure and says {}", file.path, found.as_str()));
        }
    }
    assert_none(violations);
}

/// `app` spawns and joins; what runs elsewhere ends with the call that began it.
#[test]
fn only_app_spawns() {
    let spawn = Regex::new(r"\bspawn(_blocking|_local)?\(").unwrap();
    let spawns = |file: &&File| spawn.is_match(&file.code) && !file.is_in("app");
    let found = files();
    let found: BTreeSet<_> = found.iter().filter(spawns).map(|file| file.path.as_str()).collect();
    assert_eq!(found, SPAWNS.iter().map(|(path, _)| *path).collect());
}

#[test]
fn exceptions_are_still_needed() {
    let files = files();
    let file =
        |path: &str| files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}"));
    for (path, module, why) in ALSO {
        assert!(file(path).knows().contains(*module), "{path} no longer knows {module} ({why})");
    }
    for (path, name, why) in CRATES_ALSO {
        assert!(file(path).code.contains(name), "{path} no longer uses {name} ({why})");
    }
}

#[test]
fn imports_are_read() {
    let file = |path: &str, code: &str| File { path: path.to_owned(), code: code.to_owned() };
    let known = |path: &str, code: &str| file(path, code).knows().into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(known("a/b.rs", "use crate::x::{y, z};"), "x");
    assert_eq!(known("a/b.rs", "use crate::{x::{self, y}, z, a::c};"), "x z");
    assert_eq!(known("a/b.rs", "fn f(v: crate::x::Y) { super::super::w::g(super::c) }"), "w x");
    assert_eq!(known("a/mod.rs", "use super::x::Y; use self::b;"), "x");
    assert_eq!(known("a.rs", "use super::x;"), "x");
    assert_eq!(
        code("// crate::a\nuse b;\n  /// [`crate::c`]\n#[cfg(test)]\nmod tests {\ncrate::d"),
        "use b;\n"
    );
}
