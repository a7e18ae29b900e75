use super::*;
use crate::model::limit::FailureMode;
use crate::options::{Place, RedisMode, TlsFiles};

fn read(args: &[&str]) -> Result<Cli, Refused> {
    parse(std::iter::once("chancery").chain(args.iter().copied()).map(OsString::from).collect())
}

fn serve(args: &[&str]) -> anyhow::Result<ServeOptions> {
    match read(&[&["serve"], args].concat()).map(|cli| cli.command) {
        Ok(Command::Serve(args)) => args.options(),
        other => anyhow::bail!("{other:?}"),
    }
}

fn with_file(text: &str, args: &[&str]) -> anyhow::Result<ServeOptions> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    serve(&[&["--config", file.path().to_str().unwrap()], args].concat())
}

#[test]
fn ratelimit_takes_the_variables_of_another() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "shadow-mode: true\nquota-mode: true").unwrap();
    let path = file.path().to_str().unwrap();
    let variable = |name: &str| match name {
        "RUNTIME_ROOT" => Some("/data".to_owned()),
        "QUOTA_MODE" => Some("false".to_owned()),
        "LOG_LEVEL" => Some("DEBUG".to_owned()),
        "REDIS_URL" => Some("theirs:1".to_owned()),
        "REDIS_TLS" => Some("true".to_owned()),
        "REDIS_TLS_CACERT" => Some("theirs.pem".to_owned()),
        _ => None,
    };
    let read = |args: &[&str]| {
        let args = std::iter::once("chancery").chain(args.iter().copied()).map(OsString::from);
        parse_with(args.collect(), variable).unwrap()
    };
    let cli = read(&["ratelimit", "--config", path]);
    assert_eq!(cli.log_level.as_deref(), Some("debug"));
    let text = format!("{:?}", cli.command);
    for said in ["/data/config", "shadow_mode: true", "quota_mode: false", "theirs:1", "theirs.pem"] {
        assert!(text.contains(said), "{said}: {text}");
    }
    let text = format!("{:?}", read(&["ratelimit", "--ratelimit-config=d", "--quota-mode"]).command);
    assert!(text.contains("\"d\"") && text.contains("quota_mode: true"), "{text}");
    let text = format!("{:?}", read(&["ratelimit", "--redis-url=redis://ours"]).command);
    assert!(text.contains("ours") && !text.contains("theirs"), "{text}");
    assert_eq!(read(&["serve"]).log_level, None, "of no other subcommand");
}

#[test]
fn the_description_is_sound() {
    command().debug_assert();
}

#[test]
fn every_flag_has_a_variable() {
    let command = command();
    for command in command.get_subcommands().chain([&command]) {
        for arg in command.get_arguments() {
            if let Some(long) = arg.get_long() {
                let name = arg.get_env().unwrap_or_default().to_string_lossy();
                assert!(name.starts_with("CHANCERY_"), "{} --{long}", command.get_name());
            }
        }
    }
}

#[test]
fn defaults_of_serve_are_those_of_the_settings() {
    let options = serve(&[]).unwrap();
    assert_eq!(options.settings, Settings::default());
    assert_eq!(options.manifests, None);
    assert_eq!(options.listen.xds.to_string(), "127.0.0.1:18000");
    assert_eq!(options.ratelimit, Place::Embedded);
}

#[test]
fn run_needs_no_privilege() {
    let Command::Run(args) = read(&["run", "--manifests", "d", "--envoy", "e"]).unwrap().command else {
        panic!()
    };
    let options = args.options().unwrap();
    assert_eq!((options.serve.settings.http_port, options.serve.settings.https_port), (8080, 8443));
    assert_eq!(options.envoy, PathBuf::from("e"));
    assert!(matches!(read(&["run"]), Err(Refused::Usage(_))));
}

#[test]
fn flags_are_taken() {
    let options = serve(&[
        "--manifests=m",
        "--http-port=1",
        "--default-ssl-certificate=a/b",
        "--watch-ingress-without-class",
        "--tls-session-resumption=false",
        "--cluster-domain=.Corp.local.",
        "--ratelimit=off",
        "--authz=off",
        "--watch-namespace=a,b",
        "--watch-namespace=c",
        "--publish-service=x/y",
        "--leader-election=false",
    ])
    .unwrap();
    assert_eq!(options.manifests, Some("m".into()));
    assert_eq!(options.settings.default_ssl_certificate, Some(("a".into(), "b".into())));
    assert!(options.settings.watch_ingress_without_class);
    assert_eq!(options.settings.cluster_domain, "corp.local");
    assert_eq!(options.ratelimit, Place::Off);
    assert_eq!(options.kubernetes.watch_namespaces, ["a", "b", "c"]);
    assert_eq!(options.kubernetes.publish_service, Some(("x".into(), "y".into())));
    assert!(!options.kubernetes.leader_election);
    for bad in [
        "--http-port=0",
        "--default-ssl-certificate=a",
        "--authz=x",
        "--cluster-domain=a b",
        "--xds-insecure=1",
    ] {
        assert!(serve(&[bad]).is_err(), "{bad}");
    }
}

#[test]
fn published_addresses() {
    let addresses = |args: &[&str]| serve(args).map(|options| options.kubernetes.publish_status_addresses);
    let list = "10.0.0.1, fd00::1,lb-1.example";
    let flag = format!("--publish-status-address={list}");
    assert_eq!(addresses(&[&flag]).unwrap(), ["10.0.0.1", "fd00::1", "lb-1.example"]);
    for bad in ["", "a b", "A.example", "a..b", "-a", "http://a", "10.0.0.1:80"] {
        assert!(addresses(&[&format!("--publish-status-address={bad}")]).is_err(), "{bad}");
    }
    assert!(addresses(&[&flag, "--publish-service=a/b"]).is_err(), "one of the two");
    assert!(serve(&[]).unwrap().kubernetes.leader_election);
}

#[test]
fn xds_leaves_the_machine_with_tls_only() {
    let tls = ["--xds-tls-cert=c", "--xds-tls-key=k", "--xds-ca=a"];
    let open = "--xds-listen=0.0.0.0:18000";
    assert!(serve(&[open]).unwrap_err().to_string().contains("--xds-insecure"));
    assert!(serve(&[open, tls[0], tls[1]]).unwrap_err().to_string().contains("go together"));
    assert!(serve(&[open, "--xds-insecure"]).unwrap().xds_tls.is_none());
    assert!(serve(&["--xds-listen=[::1]:0"]).is_ok());
    let limits = "--ratelimit-listen=0.0.0.0:18002";
    let told = ["--ratelimit-address=limits.chancery.svc:18002", "--ratelimit-tls=/s"];
    let refused = |args: &[&str]| serve(args).unwrap_err().to_string();
    assert!(refused(&[limits]).contains("--ratelimit-tls"));
    assert!(refused(&[&[limits], &tls[..]].concat()).contains("--ratelimit-tls"), "for xDS only");
    assert!(refused(&[&[limits], &told[..]].concat()).contains("--xds-tls-cert"));
    assert!(refused(&[&tls[..], &told[1..]].concat()).contains("--ratelimit-address"));
    assert!(refused(&["--ratelimit=off", told[1]]).contains("--ratelimit=off"));
    let options = serve(&[&[limits], &told[..], &tls[..]].concat()).unwrap();
    assert_eq!(options.ratelimit_tls.as_deref(), Some("/s"));
    for plain in [&[limits, "--xds-insecure"][..], &[limits, "--ratelimit=off"], &[limits, "--ratelimit=a:1"]]
    {
        assert_eq!(serve(plain).unwrap().ratelimit_tls, None, "{plain:?}");
    }
    let files = TlsFiles { certificate: "c".into(), key: "k".into(), authority: "a".into() };
    assert_eq!(serve(&[&[open], &tls[..]].concat()).unwrap().xds_tls, Some(files));
}

#[test]
fn what_runs_on_one_machine_needs_no_tls() {
    let run = |args: &[&str]| {
        let read = read(&[&["run", "--manifests=m", "--envoy=e"], args].concat());
        let Ok(Command::Run(args)) = read.map(|cli| cli.command) else { panic!() };
        args.options()
    };
    assert!(run(&[]).is_ok());
    let error = run(&["--xds-tls-cert=c", "--xds-tls-key=k", "--xds-ca=a"]).unwrap_err().to_string();
    assert!(error.contains("`serve`"), "{error}");
}

#[test]
fn the_file_stands_between_flags_and_defaults() {
    let text = "http-port: 81\nhttps-port: 444\nwatch-ingress-without-class: true\nwatch-namespace: [a, b]\nserver: x:1\nlog-level: warn\n";
    let options = with_file(text, &["--https-port=445"]).unwrap();
    assert_eq!((options.settings.http_port, options.settings.https_port), (81, 445));
    assert!(options.settings.watch_ingress_without_class);
    assert_eq!(options.kubernetes.watch_namespaces, ["a", "b"]);
    assert_eq!(with_file("", &[]).unwrap().settings, Settings::default());
}

#[test]
fn the_file_gives_what_is_required() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "manifests: m\nlog-format: json\nhttp-port: 7000\n").unwrap();
    let cli = read(&["run", "--config", file.path().to_str().unwrap(), "--envoy=e"]).unwrap();
    assert_eq!(cli.log_format, Format::Json);
    let Command::Run(args) = cli.command else { panic!() };
    let settings = args.options().unwrap().serve.settings;
    assert_eq!((settings.http_port, settings.https_port), (7000, 8443));
}

#[test]
fn a_bad_file_is_named_with_the_key() {
    for (text, words) in [
        ("htp-port: 1", "unknown key `htp-port`; did you mean `http-port`?"),
        ("config: x", "unknown key `config`"),
        ("zzz: 1", "keys are the names of flags"),
        ("http-port: many", "invalid value 'many' for '--http-port <PORT>'"),
        ("http-port: [1, 2]", "--http-port"),
        ("http-port: {a: 1}", "a value or a list of values"),
        ("- a", "cannot take flags from"),
    ] {
        let error = with_file(text, &[]).unwrap_err().to_string();
        assert!(error.contains(words), "{text}: {error}");
    }
    let error = serve(&["--config=/nowhere.yaml"]).unwrap_err().to_string();
    assert!(error.contains("/nowhere.yaml"), "{error}");
}

#[test]
fn flags_without_effect_are_named() {
    let named = |args: &[&str]| -> Vec<&str> {
        let Command::Serve(args) = read(&[&["serve"], args].concat()).unwrap().command else { panic!() };
        args.without_effect().into_iter().map(|(flag, _)| flag).collect()
    };
    assert!(named(&[]).is_empty());
    assert!(named(&["--authz=off", "--tls-session-resumption=false", "--ratelimit=off"]).is_empty());
    assert_eq!(
        named(&[
            "--authz=embedded",
            "--authz-listen=127.0.0.1:0",
            "--tls-session-resumption",
            "--publish-status-address=10.0.0.1",
            "--manifests=m",
            "--geoip-database=f",
            "--ratelimit=off",
            "--quota-token-file=t",
        ]),
        [
            "--geoip-database",
            "--quota-token-file",
            "--authz",
            "--authz-listen",
            "--tls-session-resumption",
            "--publish-status-address",
        ]
    );
    assert!(named(&["--publish-service=a/b", "--redis-url=redis://r"]).is_empty());
    assert_eq!(named(&["--ratelimit=r:1", "--redis-url=redis://r"]), ["--redis-url"]);
    assert_eq!(named(&["--publish-service=a/b", "--manifests=m"]), ["--publish-service"]);
}

/// Whoever asks for a limit over all replicas, or for requests to be let in by somebody, does not go without.
#[test]
fn protection_that_is_not_there_is_refused() {
    let error = serve(&["--authz=10.0.0.1:80"]).unwrap_err().to_string();
    assert!(error.starts_with("--authz=10.0.0.1:80 has no effect yet"), "{error}");
    assert!(with_file("authz: 10.0.0.1:80", &[]).is_err());
    for flag in ["--authz=embedded", "--authz=off", "--authz-listen=127.0.0.1:0"] {
        assert!(serve(&[flag]).is_ok(), "{flag}");
    }
}

#[test]
fn counters_are_shared_where_they_are_told() {
    assert_eq!(serve(&[]).unwrap().redis, None);
    let plain = serve(&["--redis-url=redis://:secret@r:1/2"]).unwrap().redis.unwrap();
    assert_eq!(
        (plain.mode, plain.deadline.as_millis(), plain.failure_mode),
        (RedisMode::Exact, 8, FailureMode::Local)
    );
    assert!(!format!("{plain:?}").contains("secret"));
    let flags =
        ["--redis-url=rediss://r", "--redis-mode=leased", "--redis-timeout=5", "--redis-failure-mode=closed"];
    let leased = serve(&[&flags[..], &["--redis-ca=ca.pem"]].concat()).unwrap().redis.unwrap();
    assert_eq!(
        (leased.mode, leased.deadline.as_millis(), leased.failure_mode),
        (RedisMode::Leased, 5, FailureMode::Closed)
    );
    assert_eq!((leased.authority, leased.identity), (Some("ca.pem".into()), None));
    let known = serve(&["--redis-url=rediss://r", "--redis-cert=c", "--redis-key=k"]).unwrap().redis.unwrap();
    assert_eq!(known.identity, Some(("c".into(), "k".into())));
    for bad in [
        &["--redis-url=r:1"][..],
        &["--redis-mode=leased"],
        &["--redis-url=redis://r", "--redis-ca=ca.pem"],
        &["--redis-url=redis://r", "--redis-timeout=0"],
        &["--redis-url=rediss://r", "--redis-cert=c"],
        &["--redis-url=redis://r", "--redis-cert=c", "--redis-key=k"],
    ] {
        assert!(serve(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn envoys_are_told_an_address() {
    let address = |args: &[&str]| serve(args).map(|options| options.ratelimit_address);
    assert_eq!(address(&[]).unwrap(), None);
    let given = "--ratelimit-address=limits.chancery.svc:18002";
    assert_eq!(address(&[given]).unwrap(), Some(("limits.chancery.svc".into(), 18002)));
    for bad in
        [&["--ratelimit-address=10.0.0.1"][..], &[given, "--ratelimit=off"], &[given, "--ratelimit=a:1"]]
    {
        assert!(address(bad).is_err(), "{bad:?}");
    }
}
