use clap::Parser;

use super::*;

fn load(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let arguments =
        Arguments::try_parse_from(["weir"].iter().chain(arguments)).expect("flags as the command line has them");
    Config::load(&arguments, environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn refusal(arguments: &[&str], environment: &[(&str, &str)]) -> String {
    load(arguments, environment).expect_err("a refusal").to_string()
}

/// A file that lives as long as the test, and its path.
fn file(text: &str) -> (tempfile::NamedTempFile, String) {
    use std::io::Write;
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let path = file.path().to_string_lossy().into_owned();
    (file, path)
}

fn broker_value(config: &Config, name: &str) -> Option<String> {
    config.settings.broker.get(name).cloned()
}

#[test]
fn the_defaults_listen_on_localhost_with_an_embedded_redis() {
    let config = load(&[], &[("HOME", "/home/someone")]).expect("defaults");
    assert_eq!(config.listeners.len(), 1);
    assert_eq!(config.listeners[0].name, "PLAINTEXT");
    assert_eq!(config.listeners[0].bind.to_string(), "localhost:9092");
    let RedisServer::Embedded(embedded) = config.redis.server else { panic!("not embedded") };
    assert_eq!(embedded.data_dir, PathBuf::from("/home/someone/.local/share/weir"));
    assert_eq!(embedded.maxmemory, MemoryLimit::Percent(50));
}

#[test]
fn flags_beat_the_environment_which_beats_the_file() {
    let (_held, path) =
        file("keyspace = \"file\"\nnode.id = 2\n[redis]\nconnections = 3\n[broker]\n\"num.partitions\" = 4\n");
    let at = |arguments: &[&str], environment: &[(&str, &str)]| {
        let arguments: Vec<&str> = ["--config", path.as_str()].iter().chain(arguments).copied().collect();
        load(&arguments, environment).expect("legal")
    };
    let config = at(&[], &[]);
    assert_eq!(config.keyspace, Keyspace::new("file").expect("legal"));
    assert_eq!((config.node, config.redis.connections), (NodeId(2), 3));
    assert_eq!(broker_value(&config, "num.partitions").as_deref(), Some("4"));
    let environment = [("WEIR_KEYSPACE", "environment"), ("WEIR_BROKER_NUM_PARTITIONS", "5"), ("WEIR_NODE_ID", "")];
    let config = at(&[], &environment);
    assert_eq!(config.keyspace, Keyspace::new("environment").expect("legal"));
    assert_eq!(config.node, NodeId(2), "an empty variable is none");
    assert_eq!(broker_value(&config, "num.partitions").as_deref(), Some("5"));
    let config = at(&["--keyspace", "flag", "--override", "num.partitions=6"], &environment);
    assert_eq!(config.keyspace, Keyspace::new("flag").expect("legal"));
    assert_eq!(broker_value(&config, "num.partitions").as_deref(), Some("6"));
}

#[test]
fn the_file_may_also_be_named_by_the_environment() {
    let (_held, path) = file("http = \"127.0.0.1:9464\"");
    let config = load(&[], &[("WEIR_CONFIG", path.as_str())]).expect("legal");
    assert_eq!(config.http.expect("given").to_string(), "127.0.0.1:9464");
}

#[test]
fn an_unknown_name_is_refused_with_its_place_and_the_nearest() {
    let (_held, path) = file("listen = \"a:1\"\nkeyspce = \"x\"\n");
    let said = refusal(&["--config", &path], &[]);
    assert_eq!(said, format!("`keyspce` ({path} line 2) is not a setting: did you mean keyspace?"));
    let (_held, path) = file("[broker]\n\n\"num.partition\" = 3\n");
    let said = refusal(&["--config", &path], &[]);
    assert_eq!(said, format!("`num.partition` ({path} line 3) is not a setting: did you mean num.partitions?"));
    let (_held, path) = file("[[topics]]\npattern = \"a*\"\n\"weir.layuot\" = \"batch\"\n");
    assert!(refusal(&["--config", &path], &[]).contains("did you mean weir.layout?"));
    let said = refusal(&["--override", "weir.layot=batch"], &[]);
    assert_eq!(said, "`weir.layot` (--override) is not a setting: did you mean weir.layout?");
    let said = refusal(&[], &[("WEIR_KEYSPCE", "x")]);
    assert_eq!(said, "`WEIR_KEYSPCE` (environment WEIR_KEYSPCE) is not a setting: did you mean WEIR_KEYSPACE?");
    let said = refusal(&["--override", "listeners=PLAINTEXT://:9092"], &[]);
    assert_eq!(said, "`listeners` (--override) is not a setting: use `listen` (--listen)");
    assert_eq!(refusal(&["--override", "xyzzy=1"], &[]), "`xyzzy` (--override) is not a setting");
    assert!(refusal(&["--override", "num.partitions"], &[]).contains("must be NAME=VALUE"));
}

#[test]
fn addresses_of_a_service_named_weir_in_the_environment_are_not_settings() {
    let links = [
        ("WEIR_PORT", "tcp://10.0.0.1:9092"),
        ("WEIR_PORT_9092_TCP_ADDR", "10.0.0.1"),
        ("WEIR_SERVICE_HOST", "10.0.0.1"),
        ("WEIR_SERVICE_PORT_KAFKA", "9092"),
    ];
    load(&[], &links).expect("ignored");
}

#[test]
fn a_wrong_value_is_refused_in_one_sentence() {
    for (arguments, said) in [
        (&["--node-id", "-1"][..], "`node.id` is \"-1\" (--node-id): it must be a number from 0 to 2147483647"),
        (
            &["--keyspace", "a{b}"],
            "`keyspace` is \"a{b}\" (--keyspace): it must be 1 to 100 printable ASCII characters",
        ),
        (&["--listen", "nine"], "`listen` is \"nine\" (--listen): it must be HOST:PORT: the port is missing"),
        (&["--listen", "a:70000"], "`listen` is \"a:70000\" (--listen): it must be a port from 0 to 65535"),
        (&["--listen", "::1:9092"], "`listen` is \"::1:9092\" (--listen): it must be an IPv6 address in brackets"),
        (&["--http", "[::1:80"], "`http` is \"[::1:80\" (--http): it must be an IPv6 address in brackets"),
        (
            &["--advertise", "[::]:9092"],
            "`advertise` is \"[::]:9092\" (--advertise): it must be a host and a port that clients",
        ),
        (&["--redis-url", "http://x"], "`redis.url` is \"http://x\" (--redis-url): it must be redis://HOST:PORT"),
        (&["--override", "log.format=xml"], "`log.format` is \"xml\" (--override): it must be text or json"),
        (&["--override", "num.partitions=0"], "`num.partitions` is \"0\" (--override): Value must be at least 1"),
        (
            &["--override", "redis.server.maxmemory=much"],
            "`redis.server.maxmemory` is \"much\" (--override): it must be bytes",
        ),
    ] {
        let refused = refusal(arguments, &[]);
        assert!(refused.starts_with(said), "{refused}");
        assert!(!refused.contains('\n'), "{refused}");
    }
}

#[test]
fn a_certificate_is_never_left_unchecked() {
    assert!(refusal(&["--redis-url", "rediss://host:6380/#insecure"], &[]).contains("SSL_CERT_FILE"));
}

#[test]
fn a_refused_url_does_not_show_its_password() {
    let refused = refusal(&["--redis-url", "redis://user:secret@:port"], &[]);
    assert!(refused.contains("user:***@") && !refused.contains("secret"), "{refused}");
}

#[test]
fn listeners_have_names_and_advertised_addresses() {
    let config = load(
        &[
            "--listen",
            "internal://0.0.0.0:9092",
            "--listen",
            "EXTERNAL://[::1]:9093",
            "--advertise",
            "EXTERNAL://broker.example:19093",
        ],
        &[],
    )
    .expect("legal");
    assert_eq!(config.listeners[0].name, "INTERNAL");
    assert!(config.listeners[0].bind.is_everywhere() && config.listeners[0].advertised.is_none());
    assert_eq!(config.listeners[1].bind.to_string(), "[::1]:9093");
    let advertised = config.listeners[1].advertised.as_ref().expect("given");
    assert_eq!(advertised.to_string(), "broker.example:19093");

    let config =
        load(&[], &[("WEIR_LISTEN", "A://:1, B://*:2"), ("WEIR_ADVERTISE", "B://b:2,A://a:1")]).expect("legal");
    let told: Vec<_> = config.listeners.iter().map(|l| l.advertised.as_ref().expect("given").to_string()).collect();
    assert_eq!(told, ["a:1", "b:2"]);
}

#[test]
fn one_listener_needs_no_name_to_be_advertised() {
    let config = load(&["--listen", "OUT://:9092", "--advertise", "me:9092"], &[]).expect("legal");
    assert_eq!(config.listeners[0].advertised.as_ref().expect("given").host, "me");
}

#[test]
fn listeners_that_contradict_each_other_are_refused() {
    assert!(refusal(&["--listen", "a:1", "--listen", "b:2"], &[]).contains("two listeners are named PLAINTEXT"));
    assert!(
        refusal(&["--listen", "A://a:1", "--listen", "B://b:2", "--advertise", "C://c:3"], &[]).contains("has A, B")
    );
    assert!(refusal(&["--advertise", "a:1", "--advertise", "b:2"], &[]).contains("two addresses"));
    assert!(refusal(&["--listen", ","], &[]).contains("names no address"));
}

#[test]
fn topic_patterns_come_from_the_file_in_order() {
    let (_held, path) = file(
        "[[topics]]\npattern = \"logs-*\"\n\"weir.layout\" = \"batch\"\ncleanup.policy = [\"compact\", \"delete\"]\n\
         [[topics]]\npattern = \"*\"\nretention.ms = 1000\n",
    );
    let config = load(&["--config", &path], &[]).expect("legal");
    let values = config.settings.pattern_configs("logs-a");
    assert_eq!(values["weir.layout"], "batch");
    assert_eq!(values["cleanup.policy"], "compact,delete");
    assert_eq!(values["retention.ms"], "1000");
    assert_eq!(config.settings.pattern_configs("other").len(), 1);
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_the_line() {
    let (_held, path) = file("[broker]\nmax.connections = 1\nmax.connections.per.ip = 2\n");
    let said = refusal(&["--config", &path], &[]);
    assert!(said.starts_with(&format!("{path} line 3 is not TOML")) && said.contains("in quotes"), "{said}");
    assert!(
        refusal(&["--config", "/nowhere/weir.toml"], &[])
            .starts_with("the configuration file /nowhere/weir.toml can't be read")
    );
}

#[test]
fn what_is_printed_says_where_each_value_came_from_and_hides_passwords() {
    let (_held, path) = file("[[topics]]\npattern = \"a*\"\n\"weir.layout\" = \"batch\"\n");
    let arguments =
        ["--config", path.as_str(), "--redis-url", "rediss://me:secret@host:6380/2", "--override", "num.partitions=3"];
    let printed = load(&arguments, &[("WEIR_NODE_ID", "7")]).expect("legal").printed();
    let collapsed: Vec<String> =
        printed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "redis.url = \"rediss://me:***@host:6380/2\" # --redis-url".to_owned(),
        "node.id = \"7\" # environment WEIR_NODE_ID".to_owned(),
        "\"num.partitions\" = \"3\" # --override".to_owned(),
        "\"group.initial.rebalance.delay.ms\" = \"3000\" # built-in".to_owned(),
        format!("\"weir.layout\" = \"batch\" # {path} line 3"),
    ] {
        assert!(collapsed.contains(&line), "{line}\n{printed}");
    }
    assert!(!printed.contains("secret"), "{printed}");
}

#[test]
fn what_is_printed_is_a_file_that_gives_the_same() {
    let arguments = ["--listen", "A://a:1", "--listen", "B://b:2", "--override", "log.retention.hours=7"];
    let config = load(&arguments, &[("HOME", "/home/someone")]).expect("legal");
    let (_held, path) = file(&config.printed());
    let again = load(&["--config", &path], &[("HOME", "/home/other")]).expect("legal");
    assert_eq!(config.listeners, again.listeners);
    let without_origin = |printed: String| -> Vec<String> {
        printed.lines().map(|line| line.split(" # ").next().unwrap_or_default().trim().to_owned()).collect()
    };
    assert_eq!(without_origin(config.printed()), without_origin(again.printed()));
}

#[test]
fn the_environments_names_are_distinct() {
    let mut names: Vec<String> = SETTINGS.iter().map(|setting| environment_name(setting.name)).collect();
    names.extend(broker::names().map(|name| environment_name(&format!("broker.{name}"))));
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn passwords_are_masked_wherever_they_stand() {
    for (url, shown) in [
        ("redis://h", "redis://h"),
        ("redis://u@h", "redis://u@h"),
        ("redis://:p@h/1", "redis://:***@h/1"),
        ("redis://u:p@ss:w@h", "redis://u:***@h"),
        ("redis+unix:///s?db=1&pass=p&user=u", "redis+unix:///s?db=1&pass=***&user=u"),
    ] {
        assert_eq!(masked(url), shown);
    }
}
