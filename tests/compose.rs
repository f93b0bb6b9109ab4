//! What can be known of the Dockerfile and docker-compose.yml without Docker.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
};

use clap::Parser;
use serde_yaml_ng::Value;
use support::process::{eventually, weir};
use weir::config::{Arguments, Config, RedisServer};

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name))
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn compose() -> Value {
    serde_yaml_ng::from_str(&read("docker-compose.yml")).expect("YAML")
}

fn texts(list: &Value) -> Vec<String> {
    list.as_sequence().expect("a list").iter().map(|item| item.as_str().expect("text").to_owned()).collect()
}

fn config_of(environment: BTreeMap<String, String>) -> Config {
    let arguments = Arguments::try_parse_from(["weir"]).expect("no flags");
    Config::load(&arguments, environment).unwrap_or_else(|error| panic!("{error}"))
}

/// Each line of the Dockerfile, with continued ones joined.
fn dockerfile() -> Vec<String> {
    read("Dockerfile").replace("\\\n", " ").lines().map(str::to_owned).collect()
}

fn container_environment() -> BTreeMap<String, String> {
    dockerfile()
        .iter()
        .filter_map(|line| line.strip_prefix("ENV "))
        .flat_map(str::split_whitespace)
        .map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).expect("NAME=value"))
        .collect()
}

#[test]
fn compose_runs_weir_beside_redis_with_a_listener_inside_and_one_outside() {
    let compose = compose();
    let services = &compose["services"];
    let weir = &services["weir"];
    let mut environment = container_environment();
    let given = weir["environment"].as_mapping().expect("a map").iter();
    environment.extend(
        given.map(|(name, value)| (name.as_str().expect("text").to_owned(), value.as_str().expect("text").to_owned())),
    );
    let config = config_of(environment);

    let RedisServer::Url(url) = &config.redis.server else { panic!("no Redis URL") };
    assert_eq!(url, "redis://redis:6379", "the service's name is its host name");
    assert!(services["redis"].is_mapping());
    assert_eq!(weir["depends_on"]["redis"]["condition"].as_str(), Some("service_healthy"));

    assert_eq!(config.listeners.len(), 2);
    let ports = texts(&weir["ports"]);
    for listener in &config.listeners {
        assert!(listener.bind.is_everywhere());
        let told = listener.advertised.as_ref().expect("an advertised address");
        if told.host == "localhost" {
            assert!(ports.contains(&format!("{}:{}", told.port, listener.bind.port)), "{told} is not published");
        } else {
            assert_eq!((told.host.as_str(), told.port), ("weir", listener.bind.port), "the service's name inside");
        }
    }
}

#[test]
fn the_composed_redis_is_one_that_weir_takes() {
    let compose = compose();
    let command = texts(&compose["services"]["redis"]["command"]);
    assert_eq!(command[0], "redis-server");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut redis = Command::new("redis-server")
        .args(&command[1..])
        .args(["--port", "0", "--unixsocket", "redis.sock"])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("redis-server is installed");
    let socket = folder.path().join("redis.sock");
    assert!(eventually(|| socket.exists()));
    let ended = weir(&["--check", "--redis-url", &format!("redis+unix://{}", socket.display())]);
    redis.kill().expect("killed");
    redis.wait().expect("ended");
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("acks=all survives the death of any process"), "{ended:?}");
    assert_eq!(ended.stdout.lines().count(), 1, "nothing to note: {ended:?}");
}

#[test]
fn the_image_is_built_as_make_run_archive_builds() {
    let run = read("scripts/run");
    let steps: Vec<String> =
        dockerfile().iter().filter_map(|line| line.strip_prefix("RUN ")).map(str::to_owned).collect();
    assert!(run.lines().any(|line| line == steps[0]), "{} is not a step of scripts/run", steps[0]);
    let (build, features) = steps[1].split_once(" --features ").expect("the cold tier is in the image");
    assert!(run.lines().any(|line| line.starts_with(build)), "{build} is not a step of scripts/run");
    assert!(read("Makefile").contains(&format!("scripts/run --features {features}")), "{features}");
    assert!(steps[2].contains("redis-server"), "the embedded default");
}

#[test]
fn the_image_runs_as_nobody_special_with_a_health_check_on_its_own_port() {
    let lines = dockerfile();
    let config = config_of(container_environment());
    let RedisServer::Embedded(embedded) = &config.redis.server else { panic!("not embedded") };
    assert!(lines.contains(&format!("VOLUME {}", embedded.data_dir.display())));
    assert_eq!(lines.iter().rfind(|line| line.starts_with("USER ")).map(String::as_str), Some("USER weir"));
    let http = config.http.expect("an HTTP port");
    let exposed = format!("EXPOSE {} {}", config.listeners[0].bind.port, http.port);
    assert!(lines.contains(&exposed), "{exposed}");
    let check = lines.iter().find(|line| line.starts_with("HEALTHCHECK ")).expect("a health check");
    assert!(check.contains(&format!("/dev/tcp/127.0.0.1/{}", http.port)), "{check}");
    // It must be a JSON array, or Docker would pass it to sh, which has no /dev/tcp.
    let (_, command) = check.split_once("CMD ").expect("a command");
    let words: Vec<String> = serde_json::from_str(command).expect("a JSON array");
    assert_eq!(words[0], "bash");
}

#[test]
fn the_health_check_tells_a_ready_broker_from_one_that_is_not_there() {
    let lines = dockerfile();
    let check = lines.iter().find(|line| line.starts_with("HEALTHCHECK ")).expect("a health check");
    let (_, command) = check.split_once("CMD ").expect("a command");
    let words: Vec<String> = serde_json::from_str(command).expect("a JSON array");
    let free =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
    let script = words[2].replace("9464", &free.to_string());
    let healthy = || {
        let status = Command::new("bash").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.expect("bash").success()
    };
    assert!(!healthy());
    let _weir = support::Weir::start(&["--http", &format!("127.0.0.1:{free}")]);
    assert!(healthy());
}
