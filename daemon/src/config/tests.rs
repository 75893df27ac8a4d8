//! How the sources together become a configuration, and how every fault reads.

use std::cell::Cell;

use proptest::prelude::*;

use super::environment::variable;
use super::profile::PRESETS;
use super::setting::SETTINGS;
use nexusd_wire::control::OverflowPolicy;

use super::*;

/// A key of a cluster.
const SECRET: &str = "nobody knows it, nobody at all";

fn os(texts: &[&str]) -> Vec<OsString> {
    std::iter::once("nexusd").chain(texts.iter().copied()).map(OsString::from).collect()
}

fn pairs(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    variables.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// Flags, variables, and the text of the file if any of the two names one.
fn invoke(
    args: &[&str],
    variables: &[(&str, &str)],
    file: &str,
) -> Result<Invocation, ConfigError> {
    Config::from_sources(os(args), pairs(variables), |_| Ok(file.to_owned()))
}

fn configure(args: &[&str], variables: &[(&str, &str)], file: &str) -> Result<Config, ConfigError> {
    match invoke(args, variables, file)? {
        // Where the values come from is a test of its own.
        Invocation::Run(config) => Ok(Config { sources: Sources::default(), ..*config }),
        Invocation::Print(text) => panic!("a configuration, not {text:?}"),
    }
}

fn fault(args: &[&str], variables: &[(&str, &str)], file: &str) -> String {
    let sentence = configure(args, variables, file).expect_err("a fault").to_string();
    assert!(!sentence.contains('\n'), "one line: {sentence:?}");
    sentence
}

/// A TOML string; JSON escapes the same characters the same way.
fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

fn help() -> String {
    match invoke(&["--help"], &[], "") {
        Ok(Invocation::Print(text)) => text,
        other => panic!("the help, not {other:?}"),
    }
}

#[test]
fn without_sources_the_documented_defaults_hold() {
    let config = configure(&[], &[], "").expect("the defaults");
    assert_eq!(config, Config::default());
    let shown: Vec<_> = config.settings().collect();
    for (name, value) in [
        ("cluster", "default"),
        ("bind", "0.0.0.0"),
        ("app-port", "5672"),
        ("mesh-port", "5671"),
        ("discovery", "multicast"),
        ("cluster-key", "none"),
        ("advertise", "auto"),
        ("interface", "all"),
        ("mcast-addr", "239.255.42.1"),
        ("mcast-port", "5670"),
        ("expected-peers", "0"),
        ("max-links", "4096"),
        ("peers", "none"),
        ("peer-retry-count", "10"),
        ("peer-retry-interval", "2s"),
        ("peer-retry-max-interval", "1m"),
        ("peer-retry-backoff-factor", "2.0"),
        ("peer-retry-jitter", "0.2"),
        ("unix-socket", "auto"),
        ("memory-limit", "384M"),
        ("max-payload", "4M"),
        ("max-connections", "10000"),
        ("max-topics", "2000000"),
        ("max-connections-per-source", "0"),
        ("accept-rate-per-source", "0"),
        ("publish-rate-per-source", "0"),
        ("subscriber-queue-limit", "10000"),
        ("subscriber-queue-bytes", "16M"),
        ("backpressure-policy", "drop-oldest"),
        ("block-timeout-ms", "5s"),
        ("message-buffer-size", "5"),
        ("max-buffer-memory", "50M"),
        ("paused-subscription-ttl", "5m"),
        ("default-message-ttl", "0ms"),
        ("ttl-reaper-interval", "1s"),
        ("profile", "medium"),
        ("drain-timeout", "10s"),
        ("shards", "auto"),
        ("spin-us", "0"),
        ("io", "auto"),
        ("log-level", "info"),
        ("log-format", "text"),
    ] {
        assert!(shown.contains(&(name, value.to_owned())), "{name}: {shown:?}");
    }
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let file = "app-port = 1003\nmax-topics = 1003\ncluster = 'file'";
    let variables = [("NEXUSD_APP_PORT", "1002"), ("NEXUSD_MAX_TOPICS", "1002")];
    let args = ["--config", "nexusd.toml", "--app-port", "1001"];
    let config = configure(&args, &variables, file).expect("three sources");
    assert_eq!(config.app_port, 1001);
    assert_eq!(config.limits.topics, 1002);
    assert_eq!(config.cluster, "file");
    assert_eq!(config.limits.connections, 10_000);
}

#[test]
fn it_is_known_where_each_value_comes_from() {
    let file = "app-port = 1003\nmax-topics = 1003\ncluster = 'file'";
    let variables = [("NEXUSD_APP_PORT", "1002"), ("NEXUSD_MAX_TOPICS", "1002")];
    let args = ["--config", "nexusd.toml", "--app-port", "1001"];
    let Ok(Invocation::Run(config)) = invoke(&args, &variables, file) else {
        panic!("a configuration");
    };
    let source = |name| config.sources.of_setting(name);
    assert_eq!(source("app-port"), Source::Flag);
    assert_eq!(source("max-topics"), Source::Environment);
    assert_eq!(source("cluster"), Source::File);
    assert_eq!(source("mesh-port"), Source::Default);
}

#[test]
fn ports_of_http_and_their_settings_are_read_and_faults_told() {
    let config = configure(&["--health-port=off", "--metrics-port=0"], &[], "").expect("ports");
    assert_eq!((config.health_port, config.metrics_port), (HttpPort::Off, HttpPort::At(0)));
    let config = configure(&["--config=x"], &[], "metrics-enabled = false").expect("a boolean");
    assert!(!config.metrics_enabled);
    for (args, sentence) in [
        (
            &["--health-port=on"][..],
            "flag --health-port: \"on\" is not a port; it is off, or a number from 0 to 65535",
        ),
        (
            &["--metrics-path=metrics"],
            "flag --metrics-path: \"metrics\" is not a path; it begins with / and has letters, \
             digits, /, -, _ and .",
        ),
        (&["--metrics-enabled=1"], "flag --metrics-enabled: \"1\" is neither true nor false"),
        (
            &["--health-port=9090"],
            "--health-port and --metrics-port are both 9090; they must differ",
        ),
        (
            &["--discovery=off", "--app-port=8080"],
            "--app-port and --health-port are both 8080; they must differ",
        ),
    ] {
        assert_eq!(fault(args, &[], ""), sentence);
    }
}

#[test]
fn every_setting_can_come_from_each_source() {
    let other = Config {
        cluster: "other".to_owned(),
        bind: vec!["::1".parse().expect("an address"), "127.0.0.1".parse().expect("an address")],
        app_port: 7000,
        mesh_port: 7001,
        discovery: DiscoveryMode::Static,
        cluster_key: Some(ClusterSecret::new(SECRET).expect("long enough")),
        advertise: Some("192.0.2.7".parse().expect("an address")),
        interfaces: vec![InterfaceChoice::Name("eth0".to_owned())],
        multicast_groups: vec!["ff02::7".parse().expect("an address")],
        multicast_port: 7002,
        expected_peers: 3,
        links_max: 12,
        peers: vec!["node-2:5671".to_owned(), "[::1]:5671".to_owned()],
        peer_retry: PeerRetry {
            count: 4,
            interval: Duration::from_millis(300),
            interval_max: Duration::from_secs(7),
            backoff_factor: Thousandths(1_500),
            jitter: Thousandths(0),
        },
        unix_socket: UnixSocket::At(UnixAddress::Path("/run/nexusd.sock".into())),
        profile: Profile::Small,
        limits: Limits {
            memory_bytes: 1 << 30,
            payload_bytes: 1 << 20,
            connections: 7,
            connections_per_source: 9,
            accept_rate_per_source: 10,
            publish_rate_per_source: 11,
            topics: 8,
            queue_messages: 0,
            queue_bytes: 3 << 20,
            policy: OverflowPolicy::Block,
            block_timeout_us: 1_500_000,
            replay_messages: 0,
            replay_bytes: 9 << 20,
            link_queue_bytes: Limits::default().link_queue_bytes,
            parked_ttl_us: 60_000_000,
            default_ttl_ms: 250,
            reaper_interval_us: 50_000,
        },
        io: IoEngine::Epoll,
        shards: Some(2),
        pin: Some(1),
        spin_us: 50,
        health_port: HttpPort::Off,
        metrics_port: HttpPort::At(7003),
        metrics_enabled: false,
        metrics_path: "/m".to_owned(),
        metrics_update_interval: Duration::from_secs(15),
        drain_timeout: Duration::from_millis(2_500),
        log_level: LogLevel::Trace,
        log_format: LogFormat::Json,
        sources: Sources::default(),
    };
    assert!(!format!("{other:?}").contains(SECRET));
    assert!(other.settings().all(|(_, value)| !value.contains(SECRET)));
    let settings: Vec<_> = other
        .settings()
        .map(|(name, value)| if value == "set" { (name, SECRET.to_owned()) } else { (name, value) })
        .collect();

    let args: Vec<_> = settings.iter().map(|(name, value)| format!("--{name}={value}")).collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    assert_eq!(configure(&args, &[], "").as_ref(), Ok(&other));

    let variables: Vec<_> =
        settings.iter().map(|(name, value)| (variable(name), value.clone())).collect();
    let variables: Vec<_> =
        variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(configure(&[], &variables, "").as_ref(), Ok(&other));

    let file: String =
        settings.iter().map(|(name, value)| format!("{name} = '{value}'\n")).collect();
    assert_eq!(configure(&["--config=x"], &[], &file).as_ref(), Ok(&other));
}

#[test]
fn the_medium_profile_is_what_holds_without_one() {
    assert_eq!(Config::of_profile(Profile::Medium), Ok(Config::default()));
    assert_eq!(configure(&["--profile=medium"], &[], ""), Ok(Config::default()));
}

#[test]
fn a_profile_changes_the_defaults_of_its_table_and_nothing_else() {
    for (column, profile) in Profile::ALL.into_iter().enumerate() {
        let config = configure(&[&format!("--profile={profile}")], &[], "").expect("a profile");
        assert_eq!(config.profile, profile);
        let defaults = Config { profile, ..Config::default() };
        for ((name, value), (_, default)) in config.settings().zip(defaults.settings()) {
            let preset = PRESETS.iter().find(|(preset, _)| *preset == name);
            let expected = preset.map_or(default, |(_, values)| values[column].to_owned());
            assert_eq!(value, expected, "{name} of {profile}");
        }
    }
}

#[test]
fn what_any_source_sets_beats_the_profile_of_any_other() {
    let from_the_file = "memory-limit = '100M'\nmax-topics = 7\nprofile = 'small'";
    let variables = [("NEXUSD_MAX_CONNECTIONS", "8"), ("NEXUSD_PROFILE", "large")];
    let config = configure(&["--config=n.toml"], &variables, from_the_file).expect("two sources");
    assert_eq!(config.profile, Profile::Large, "the variable's");
    assert_eq!(config.limits.memory_bytes, 100 << 20, "the file's");
    assert_eq!(config.limits.topics, 7, "the file's");
    assert_eq!(config.limits.connections, 8, "the variable's");
    assert_eq!(config.limits.queue_bytes, 64 << 20, "the profile's");

    let config = configure(&["--config=n.toml", "--profile=small"], &variables, from_the_file);
    assert_eq!(config.expect("three sources").limits.queue_bytes, 2 << 20);
}

#[test]
fn a_bad_profile_is_refused_also_where_a_stronger_source_names_a_good_one() {
    let sentence = fault(&["--profile=small"], &[("NEXUSD_PROFILE", "huge")], "");
    assert_eq!(
        sentence,
        "environment variable NEXUSD_PROFILE: \"huge\" is not a profile; choose small, medium or large"
    );
}

#[test]
fn the_help_and_the_readme_show_the_profiles() {
    let readme = include_str!("../../../README.md");
    let help = help();
    for (name, [small, medium, large]) in PRESETS {
        let row = format!("| `--{name}` | {small} | {medium} | {large} |");
        assert!(readme.contains(&row), "{row}");
        let row = [name, small, medium, large];
        assert!(help.lines().any(|line| line.split_whitespace().eq(row)), "{row:?}: {help}");
    }
}

#[test]
fn the_file_takes_numbers_and_lists() {
    let file = "bind = ['127.0.0.1', '::1']\napp-port = 0\nmemory-limit = 0x10000000";
    let config = configure(&[], &[("NEXUSD_CONFIG", "x")], file).expect("a file");
    assert_eq!(config.bind.len(), 2);
    assert_eq!(config.app_port, 0);
    assert_eq!(config.limits.memory_bytes, 256 << 20);
}

#[test]
fn a_bare_number_for_what_is_usually_seconds_is_told() {
    let cautions = |args: &[&str], variables: &[(&str, &str)], file: &str| {
        let Ok(Invocation::Run(config)) = invoke(args, variables, file) else {
            panic!("a configuration of {args:?}, {variables:?}, {file:?}");
        };
        config.sources.cautions().to_vec()
    };
    let told = "\"10\" is 10ms: a number without a unit is in milliseconds; write 10s for seconds";
    let flag = cautions(&["--drain-timeout", "10"], &[], "");
    assert_eq!(flag, [format!("flag --drain-timeout: {told}")]);
    let variable = cautions(&[], &[("NEXUSD_PAUSED_SUBSCRIPTION_TTL", "10")], "");
    assert_eq!(variable, [format!("environment variable NEXUSD_PAUSED_SUBSCRIPTION_TTL: {told}")]);
    let file = cautions(&["--config", "n.toml"], &[], "\nttl-reaper-interval = 10");
    assert_eq!(file, [format!("n.toml line 2: key \"ttl-reaper-interval\": {told}")]);
    // What says its unit, is long enough, or is nothing; what is usually shorter; what does not hold.
    for args in [
        &["--drain-timeout", "10ms"][..],
        &["--drain-timeout", "10s"],
        &["--drain-timeout", "1000"],
        &["--drain-timeout", "0"],
        &["--block-timeout-ms", "10"],
        &["--default-message-ttl", "10"],
        &["--spin-us", "10"],
        &["--config", "n.toml", "--drain-timeout", "5s"],
    ] {
        let file = "drain-timeout = 10\nblock-timeout-ms = 999";
        let told = cautions(args, &[], if args[0] == "--config" { file } else { "" });
        assert!(told.is_empty(), "{args:?}: {told:?}");
    }
}

#[test]
fn the_flag_names_the_file_before_the_variable_does() {
    let seen = Cell::new(None);
    let sources = Config::from_sources(
        os(&["--config", "flag.toml"]),
        pairs(&[("NEXUSD_CONFIG", "variable.toml")]),
        |path| {
            seen.set(Some(path.to_owned()));
            Ok(String::new())
        },
    );
    assert!(sources.is_ok());
    assert_eq!(seen.take(), Some(PathBuf::from("flag.toml")));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_of_who_named_it() {
    let refused = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let sentence = Config::from_sources(os(&["--config", "gone.toml"]), [], refused)
        .expect_err("no file")
        .to_string();
    assert!(sentence.starts_with("flag --config: cannot read \"gone.toml\": "), "{sentence}");
}

#[test]
fn the_help_teaches_every_flag_with_its_default() {
    let help = help();
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let defaults = Config::default();
    for setting in SETTINGS {
        assert!(help.contains(&format!("--{} <", setting.name)), "{}", setting.name);
        let default = format!("[default: {}]", (setting.show)(&defaults));
        assert!(words.contains(&default), "{}: {default}", setting.name);
        assert!(help.contains(setting.heading), "{}", setting.heading);
    }
    for text in ["--config", "NEXUSD_APP_PORT", "384M", "10s", "exit code 2", "SIGTERM"] {
        assert!(words.contains(text), "{text}");
    }
}

#[test]
fn the_version_is_the_packages() {
    assert_eq!(
        invoke(&["--version"], &[], ""),
        Ok(Invocation::Print(format!("nexusd {}\n", env!("CARGO_PKG_VERSION"))))
    );
}

#[test]
fn every_bad_value_is_refused_by_name_whatever_the_source() {
    for (name, bad) in [
        ("cluster", &["", "two words", "a\u{7}b"][..]),
        ("bind", &["", "localhost", "127.0.0.1:80", "127.0.0.1,", "::,::", "[::1]"]),
        ("app-port", &["", "-1", "65536", "http", "5672.0", "+1"]),
        ("mesh-port", &["", "-1", "65536", "off"]),
        ("discovery", &["", "dns", "Multicast", "none"]),
        ("advertise", &["", "node-1", "0.0.0.0", "::", "239.255.42.1", "10.0.0.7:5671"]),
        ("interface", &["", "eth0,", "a name", "an-interface-name", "eth0,eth0"]),
        ("mcast-addr", &["", "10.0.0.1", "239.1.1.1,239.1.1.2", "239.255.42.1:5670"]),
        ("mcast-port", &["", "0", "65536"]),
        ("expected-peers", &["", "-1", "all"]),
        ("max-links", &["", "0", "4097", "all"]),
        ("peers", &["", "node-2", "node-2:0", "a:1,a:1", "http://a:1"]),
        ("peer-retry-count", &["", "-1", "1000001"]),
        ("peer-retry-interval", &["", "0", "99", "61m"]),
        ("peer-retry-max-interval", &["", "99", "2h"]),
        ("peer-retry-backoff-factor", &["", "0.9", "10.001", "2,0", "1.0001"]),
        ("peer-retry-jitter", &["", "-0.1", "1.1", "20%"]),
        ("unix-socket", &["", "@"]),
        ("memory-limit", &["", "0", "512K", "-1", "384MB", "1.5G", "99999999999999999999"]),
        ("max-payload", &["", "0", "65M", "4 M"]),
        ("max-connections", &["", "0", "-1", "many", "1000001"]),
        ("max-topics", &["", "0", "1e6"]),
        ("max-connections-per-source", &["", "-1", "all", "1000001"]),
        ("accept-rate-per-source", &["", "-1", "10/s", "1000000001"]),
        ("publish-rate-per-source", &["", "-1", "1K", "1000000001"]),
        ("subscriber-queue-limit", &["", "-1", "all"]),
        ("subscriber-queue-bytes", &["", "0", "1", "x"]),
        ("backpressure-policy", &["", "drop", "Block"]),
        ("block-timeout-ms", &["", "-1", "5 s", "soon", "2h"]),
        ("message-buffer-size", &["", "-1", "1M", "1000001"]),
        ("max-buffer-memory", &["", "-1", "50MB", "1048577G"]),
        ("paused-subscription-ttl", &["", "-1", "5 m", "169h"]),
        ("default-message-ttl", &["", "-1", "none", "1177h", "4294967296"]),
        ("ttl-reaper-interval", &["", "0", "9", "61m"]),
        ("profile", &["", "tiny", "Small", "1"]),
        ("drain-timeout", &["", "10d", "1.5s", "61m"]),
        ("shards", &["", "0", "65", "-1", "all"]),
        ("pin", &["", "-1", "cpu0", "auto"]),
        ("spin-us", &["", "-1", "10us", "1000001"]),
        ("io", &["", "poll", "URING", "kqueue"]),
        ("health-port", &["", "on", "none", "65536", "-1"]),
        ("metrics-port", &["", "on", "none", "65536", "-1"]),
        ("metrics-enabled", &["", "yes", "1", "True"]),
        ("metrics-path", &["", "metrics", "/a b", "/{a}", "/ä"]),
        ("metrics-update-interval", &["", "-1", "1d", "61m"]),
        ("log-level", &["", "verbose", "INFO", "3"]),
        ("log-format", &["", "xml", "JSON"]),
    ] {
        for value in bad {
            let flag = fault(&[&format!("--{name}={value}")], &[], "");
            assert!(flag.starts_with(&format!("flag --{name}: ")), "{flag}");
            let named = variable(name);
            let in_environment = fault(&[], &[(&named, value)], "");
            assert!(
                in_environment.starts_with(&format!("environment variable {named}: ")),
                "{in_environment}"
            );
            let key = fault(&["--config=n.toml"], &[], &format!("\n{name} = {}", quoted(value)));
            assert!(key.starts_with(&format!("n.toml line 2: key \"{name}\": ")), "{key}");
            for sentence in [flag, in_environment, key] {
                assert!(sentence.contains(&format!("\"{}\" ", value.escape_debug())), "{sentence}");
            }
        }
    }
    let listed: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
    assert_eq!(listed.len(), 48, "new settings need bad values here: {listed:?}");
}

#[test]
fn an_overridden_bad_value_is_still_a_fault() {
    let sentence = fault(&["--app-port=1"], &[("NEXUSD_APP_PORT", "x")], "");
    assert!(sentence.starts_with("environment variable NEXUSD_APP_PORT: \"x\" "), "{sentence}");
}

#[test]
fn unknown_names_are_refused_with_what_was_probably_meant() {
    assert_eq!(
        fault(&["--app-prot", "1"], &[], ""),
        "flag --app-prot is unknown; did you mean --app-port?"
    );
    assert_eq!(
        fault(&["--port", "1"], &[], ""),
        "flag --port is unknown; did you mean --app-port?"
    );
    let sentence = fault(&[], &[("NEXUSD_LEVEL", "1")], "");
    assert!(sentence.ends_with("is unknown; did you mean NEXUSD_LOG_LEVEL?"), "{sentence}");
    let sentence = fault(&[], &[("NEXUSD_MEMORY_LIMT", "1G")], "");
    assert!(
        sentence.starts_with(
            "environment variable NEXUSD_MEMORY_LIMT is unknown; did you mean NEXUSD_MEMORY_LIMIT?"
        ),
        "{sentence}"
    );
    let sentence = fault(&["--config=n.toml"], &[], "cluster = 'a'\n\napp_port = 1");
    assert!(
        sentence.starts_with("n.toml line 3: key \"app_port\" is unknown; did you mean app-port?"),
        "{sentence}"
    );
    let sentence = fault(&[], &[("NEXUSD_ZZZ", "1")], "");
    assert!(!sentence.contains("did you mean"), "{sentence}");
}

#[test]
fn a_table_in_the_file_is_refused() {
    assert!(fault(&["--config=n.toml"], &[], "[limits]\nmax-topics = 1").contains("\"limits\""));
    let sentence = fault(&["--config=n.toml"], &[], "[bind]\nx = 1");
    assert!(sentence.contains("is a table"), "{sentence}");
}

#[test]
fn values_of_other_kinds_in_the_file_are_refused() {
    let sentence = fault(&["--config=n.toml"], &[], "app-port = true");
    assert!(
        sentence.starts_with("n.toml line 1: key \"app-port\": \"true\" is not "),
        "{sentence}"
    );
    for value in ["1979-05-27", "[['a']]", "{ a = 1 }"] {
        let sentence = fault(&["--config=n.toml"], &[], &format!("app-port = {value}"));
        assert!(sentence.starts_with("n.toml line 1: key \"app-port\": "), "{sentence}");
        assert!(sentence.ends_with("write a string or a number"), "{sentence}");
    }
}

#[test]
fn a_fraction_in_the_file_needs_no_quotes() {
    let config = configure(&["--config=n.toml"], &[], "peer-retry-jitter = 0.25").expect("a file");
    assert_eq!(config.peer_retry.jitter, Thousandths(250));
    let sentence = fault(&["--config=n.toml"], &[], "app-port = 1.5");
    assert!(sentence.contains("\"1.5\" is not a port"), "{sentence}");
}

#[test]
fn a_bad_secret_is_refused_without_being_repeated() {
    for (args, variables, file) in [
        (&["--cluster-key=hush"][..], &[][..], ""),
        (&[], &[("NEXUSD_CLUSTER_KEY", "hush")], ""),
        (&["--config=n.toml"], &[], "cluster-key = 'hush'"),
        (&["--config=n.toml"], &[], "cluster-key = { hush = 1 }"),
    ] {
        let sentence = fault(args, variables, file);
        assert!(sentence.contains(": the secret is "), "{sentence}");
        assert!(!sentence.contains("hush"), "{sentence}");
    }
}

#[test]
fn a_secret_can_come_from_a_file() {
    let read = |args: &[&str]| {
        let with_newline = |path: &Path| {
            assert_eq!(path, Path::new("/run/key"));
            Ok(format!("{SECRET}\r\n"))
        };
        Config::from_sources(os(args), [], with_newline)
    };
    let Ok(Invocation::Run(config)) = read(&["--cluster-key=@/run/key"]) else {
        panic!("a configuration");
    };
    assert_eq!(config.cluster_key, Some(ClusterSecret::new(SECRET).expect("long enough")));
    assert!(config.settings().any(|shown| shown == ("cluster-key", "set".to_owned())));

    let gone = |_: &Path| Err(io::ErrorKind::NotFound.into());
    let sentence = Config::from_sources(os(&["--cluster-key=@gone"]), [], gone)
        .expect_err("no file")
        .to_string();
    assert!(sentence.starts_with("flag --cluster-key: cannot read \"gone\": "), "{sentence}");
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_line() {
    let sentence = fault(&["--config=n.toml"], &[], "cluster = 'a'\napp-port 1\n");
    assert!(sentence.starts_with("n.toml line 2: "), "{sentence}");
    let sentence = fault(&["--config=n.toml"], &[], "app-port = 1\napp-port = 2\n");
    assert!(sentence.starts_with("n.toml line 2: "), "{sentence}");
}

#[test]
fn a_command_line_that_is_not_made_of_flags_is_refused() {
    for (args, sentence) in [
        (&["start"][..], "command line: \"start\" is not a flag; flags begin with two dashes"),
        (&["--app-port"], "command line: flag --app-port needs a value"),
        (&["--app-port=1", "--app-port=2"], "command line: flag --app-port is given twice"),
        (&["-p", "1"], "flag -p is unknown; `nexusd --help` lists what can be set"),
    ] {
        assert_eq!(fault(args, &[], ""), sentence);
    }
}

#[test]
fn settings_that_do_not_suit_each_other_are_refused() {
    assert_eq!(
        fault(&["--memory-limit=8M", "--max-payload=16M"], &[], ""),
        "--memory-limit 8M is too small for --max-payload 16M: it must be at least twice as large"
    );
    assert_eq!(
        fault(&["--memory-limit=31M", "--max-payload=4M", "--shards=4"], &[], ""),
        "--memory-limit 31M is too small for --max-payload 4M: it must be at least twice as large \
         for each of 4 shards"
    );
}

#[test]
fn ports_and_times_of_the_mesh_that_do_not_suit_each_other_are_refused() {
    for (args, sentence) in [
        (&["--app-port=5671"][..], "--mesh-port and --app-port are both 5671; they must differ"),
        (&["--mcast-port=5671"], "--mesh-port and --mcast-port are both 5671; they must differ"),
        (
            &["--peer-retry-interval=2m"],
            "--peer-retry-interval 2m is longer than --peer-retry-max-interval 1m",
        ),
    ] {
        assert_eq!(fault(args, &[], ""), sentence);
    }
    for args in [
        &["--app-port=5671", "--discovery=off"][..],
        &["--mcast-port=5671", "--discovery=static"],
        &["--app-port=0", "--mesh-port=0"],
    ] {
        assert!(configure(args, &[], "").is_ok(), "{args:?}");
    }
}

#[test]
fn there_are_no_more_shards_than_memory_for_them() {
    let limits = Limits { memory_bytes: 8 << 20, ..Limits::default() };
    assert_eq!(Config { limits, ..Config::default() }.shard_count(), 1);
    assert_eq!(Config { shards: Some(7), ..Config::default() }.shard_count(), 7);
}

#[test]
fn values_made_in_code_are_checked_like_those_of_sources() {
    let limits = Limits { payload_bytes: 65 << 20, ..Limits::default() };
    for (config, flag) in [
        (Config { bind: Vec::new(), ..Config::default() }, "--bind"),
        (Config { shards: Some(65), ..Config::default() }, "--shards"),
        (Config { cluster: String::new(), ..Config::default() }, "--cluster"),
        (Config { limits, ..Config::default() }, "--max-payload"),
    ] {
        let sentence = config.check().expect_err("a fault").to_string();
        assert!(sentence.starts_with(&format!("flag {flag}: ")), "{sentence}");
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    let variables = [("PATH", "/bin"), ("NEXUS_APP_PORT", "x"), ("nexusd_app_port", "x")];
    assert_eq!(configure(&[], &variables, ""), Ok(Config::default()));
}

#[test]
fn long_and_odd_values_are_shown_in_one_short_line() {
    let long = format!("--cluster={}\n\u{1b}[31m", "a ".repeat(10_000));
    let sentence = fault(&[&long], &[], "");
    assert!(sentence.len() < 250, "{}", sentence.len());
    assert!(!fault(&["--cluster=\u{1b}[31m"], &[], "").contains('\u{1b}'));
}

proptest! {
    #[test]
    fn no_sources_make_the_parser_panic(
        args in prop::collection::vec(any_argument(), 0..4),
        variables in prop::collection::vec(any_variable(), 0..4),
        file in any_file(),
    ) {
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Err(error) = invoke(&args, &variables, &file) {
            prop_assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
}

fn any_name() -> impl Strategy<Value = String> {
    let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name.to_owned()).collect();
    prop_oneof![prop::sample::select(names), "[a-z-]{0,12}"]
}

fn any_value() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9]{0,22}[KMGmsh]{0,2}", "[a-z:.,@/-]{0,12}", any::<String>()]
}

fn any_argument() -> impl Strategy<Value = String> {
    prop_oneof![
        (any_name(), any_value()).prop_map(|(name, value)| format!("--{name}={value}")),
        any_name().prop_map(|name| format!("--{name}")),
        Just("--config=x".to_owned()),
        any::<String>(),
    ]
}

fn any_variable() -> impl Strategy<Value = (String, String)> {
    (prop_oneof![any_name().prop_map(|name| variable(&name)), any::<String>()], any_value())
}

fn any_file() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::collection::vec((any_name(), any_value()), 0..5).prop_map(|pairs| {
            pairs.iter().map(|(name, value)| format!("{name} = {}\n", quoted(value))).collect()
        }),
        any::<String>(),
    ]
}

#[test]
fn what_a_reload_takes_on_is_what_shards_take_on() {
    let mut config = Config::default();
    let mut new = config.clone();
    let limits = &mut new.limits;
    *limits = Limits {
        memory_bytes: limits.memory_bytes * 2,
        payload_bytes: limits.payload_bytes * 2,
        connections: limits.connections + 1,
        connections_per_source: 1,
        accept_rate_per_source: 2,
        publish_rate_per_source: 3,
        topics: limits.topics + 1,
        queue_messages: limits.queue_messages + 1,
        queue_bytes: limits.queue_bytes * 2,
        policy: OverflowPolicy::Block,
        block_timeout_us: limits.block_timeout_us * 2,
        replay_messages: limits.replay_messages + 1,
        replay_bytes: limits.replay_bytes * 2,
        // No setting has it.
        link_queue_bytes: limits.link_queue_bytes,
        parked_ttl_us: limits.parked_ttl_us * 2,
        default_ttl_ms: 4_000,
        reaper_interval_us: limits.reaper_interval_us * 2,
    };
    let mut of_shards = config.limits.clone();
    of_shards.take_on(&new.limits);
    let (applied, need_restart) = config.take_on(&new);
    assert_eq!(config.limits, of_shards);
    assert_eq!(applied.len(), 10, "{applied:?}");
    assert_eq!(need_restart.len(), 6, "{need_restart:?}");
}

#[test]
fn another_profile_is_not_taken_on_by_half() {
    let (mut config, mut new) =
        (Config::default(), Config::of_profile(Profile::Small).expect("a profile"));
    new.drain_timeout = Duration::from_secs(1);
    new.sources = Sources::of(&[Given {
        setting: SETTINGS.iter().find(|it| it.name == "drain-timeout").expect("a setting"),
        origin: Origin::flag("drain-timeout"),
        value: "1s".to_owned(),
    }]);
    let (applied, need_restart) = config.take_on(&new);
    assert_eq!(applied, ["drain-timeout"]);
    for name in ["profile", "subscriber-queue-limit", "max-topics"] {
        assert!(need_restart.contains(&name), "{name} of {need_restart:?}");
    }
    assert_eq!(config.limits, Limits::default());
}
