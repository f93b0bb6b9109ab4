//! docs/configuration.md and config/ say what the code does. `UPDATE_DOCS=1 cargo test --test configuration` writes the tables
//! and config/weir.toml anew.

mod support;

use std::{fmt::Write, fs, path::PathBuf};

use clap::Parser;
use support::process::weir_with;
use weir::{
    config::{Arguments, Config, SETTINGS, environment_name},
    topics::configs::{self, Definition, Effect},
};

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares a file with what the code says, or writes it.
fn agrees(name: &str, expected: &str) {
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(path(name), expected).expect("a writable file");
    }
    assert!(read(name) == expected, "{name} is not what the code says: UPDATE_DOCS=1 cargo test --test configuration");
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn own_settings() -> String {
    let mut table = String::from("| setting | flag | environment | default | what it is |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let flag = setting.flag.map(|flag| format!("`{flag}`")).unwrap_or_default();
        let default = if setting.default.is_empty() { String::new() } else { format!("`{}`", setting.default) };
        let environment = environment_name(setting.name);
        writeln!(table, "| `{}` | {flag} | `{environment}` | {default} | {} |", setting.name, cell(setting.doc))
            .expect("a String takes any text");
    }
    table
}

fn is_effective(definition: &&Definition) -> bool {
    matches!(definition.effect, Effect::Full)
}

fn kafka_settings<'a>(definitions: impl Iterator<Item = &'a Definition>) -> String {
    let mut table = String::from("| setting | default | what it is |\n|---|---|---|\n");
    for definition in definitions.filter(is_effective) {
        let mut default = definition.default.map_or_else(|| "not set".to_owned(), |default| format!("`{default}`"));
        if let Some(theirs) = definition.kafka_default {
            write!(default, " (Kafka: `{theirs}`)").expect("a String takes any text");
        }
        writeln!(table, "| `{}` | {default} | {} |", definition.name, cell(definition.documentation))
            .expect("a String takes any text");
    }
    table
}

/// Replaces what stands between `<!-- name -->` and `<!-- end -->`.
fn with_table(page: &str, name: &str, table: &str) -> String {
    let start = format!("<!-- {name} -->\n");
    let (before, rest) = page.split_once(&start).unwrap_or_else(|| panic!("the page has no {start}"));
    let (_, after) = rest.split_once("<!-- end -->").expect("a table ends");
    format!("{before}{start}{table}<!-- end -->{after}")
}

#[test]
fn the_page_lists_every_setting_with_its_default() {
    let page = read("docs/configuration.md");
    let page = with_table(&page, "weir's own settings", &own_settings());
    let page = with_table(&page, "broker settings", &kafka_settings(configs::broker()));
    let page = with_table(&page, "topic settings", &kafka_settings(configs::TOPIC.iter()));
    agrees("docs/configuration.md", &page);
}

fn without_effect() -> String {
    let mut table = String::from("| whose | config | why |\n|---|---|---|\n");
    let mut add = |whose: &str, definitions: &mut dyn Iterator<Item = &'static Definition>| {
        let mut rows: Vec<_> = definitions
            .filter_map(|definition| match definition.effect {
                Effect::Full => None,
                Effect::None(why) => Some((definition.name, why)),
            })
            .collect();
        rows.sort_unstable();
        for (name, why) in rows {
            writeln!(table, "| {whose} | `{name}` | {why} |").expect("a String takes any text");
        }
    };
    add("topic", &mut configs::TOPIC.iter());
    add("broker", &mut configs::broker());
    add("group", &mut configs::GROUP.iter());
    add("client metrics", &mut configs::CLIENT_METRICS.iter());
    table
}

#[test]
fn the_page_of_what_is_not_supported_lists_every_config_without_effect() {
    let page = read("docs/not-supported.md");
    agrees("docs/not-supported.md", &with_table(&page, "configs without effect", &without_effect()));
}

fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > 110 {
            writeln!(out, "{line}").expect("a String takes any text");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    writeln!(out, "{line}").expect("a String takes any text");
}

fn default_file() -> String {
    let mut out = String::new();
    comment(&mut out, "Every setting with its default, as a comment. Take away the # of what you change.");
    comment(
        &mut out,
        "Later sources win: this file (--config FILE or WEIR_CONFIG), the environment, the flags. `weir --print-config` shows the \
         outcome. docs/configuration.md explains more.",
    );
    for setting in SETTINGS {
        out.push('\n');
        comment(&mut out, setting.doc);
        let value = match setting.default {
            "" if setting.list => "[]".to_owned(),
            default if setting.list => format!("[\"{default}\"]"),
            default => value(default),
        };
        writeln!(out, "#{} = {value}", setting.name).expect("a String takes any text");
    }
    out.push('\n');
    comment(
        &mut out,
        "Kafka's broker settings under Kafka's names, and the defaults of Weir's own topic settings. In quotes, since in TOML \
         max.connections could otherwise not stand beside max.connections.per.ip.",
    );
    out.push_str("[broker]\n");
    for definition in configs::broker().filter(is_effective) {
        out.push('\n');
        comment(&mut out, definition.documentation);
        writeln!(out, "#\"{}\" = {}", definition.name, value(definition.default.unwrap_or_default()))
            .expect("a String takes any text");
    }
    out.push('\n');
    comment(
        &mut out,
        "Defaults for topics by their names, for tools that refuse configs which they do not know. `*` stands for any characters, \
         `?` for one; the first pattern that matches and sets a config wins; a topic's own config is stronger.",
    );
    out.push_str("#[[topics]]\n#pattern = \"logs-*\"\n#\"weir.layout\" = \"batch\"\n");
    out
}

/// As TOML would have it: bare numbers and booleans.
fn value(text: &str) -> String {
    if text.parse::<i64>().is_ok() || text == "true" || text == "false" {
        text.to_owned()
    } else {
        format!("\"{text}\"")
    }
}

fn load(file: &str, environment: &[(String, String)]) -> Config {
    let arguments = Arguments::try_parse_from(["weir", "--config", file]).expect("a flag");
    Config::load(&arguments, environment.to_vec()).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn the_default_file_is_what_the_code_says() {
    agrees("config/weir.toml", &default_file());
}

#[test]
fn the_default_file_changes_nothing_with_or_without_its_comment_marks() {
    let without_origin = |config: &Config| -> Vec<String> {
        let printed = config.printed();
        let lines = printed.lines().filter(|line| !line.starts_with('#') && !line.ends_with("is not set"));
        lines.map(|line| line.split(" # ").next().unwrap_or_default().trim().replace('"', "")).collect()
    };
    let home = [("HOME".to_owned(), "/home/someone".to_owned())];
    let folder = tempfile::tempdir().expect("a temporary folder");
    let commented = load(path("config/weir.toml").to_str().expect("text"), &home);
    let built_in = Config::load(&Arguments::default(), home.to_vec()).expect("defaults");
    assert_eq!(without_origin(&commented), without_origin(&built_in));

    let uncommented: String = read("config/weir.toml")
        .lines()
        .take_while(|line| !line.contains("Defaults for topics by their names"))
        .filter_map(|line| {
            line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).or(line.strip_prefix("[b").map(|_| line))
        })
        .filter(|line| !line.ends_with("= \"\""))
        .map(|line| format!("{line}\n"))
        .collect();
    let file = folder.path().join("weir.toml");
    fs::write(&file, uncommented).expect("written");
    let given = load(file.to_str().expect("text"), &home);
    assert_eq!(without_origin(&given), without_origin(&built_in));
}

#[test]
fn every_example_is_legal() {
    let mut found = 0;
    for entry in fs::read_dir(path("config")).expect("a folder") {
        let file = entry.expect("an entry").path();
        if file.extension().is_some_and(|extension| extension == "toml") {
            load(file.to_str().expect("text"), &[]);
            found += 1;
        }
    }
    assert!(found >= 4, "the default and an example for each deployment");
}

#[test]
fn print_config_shows_values_and_origins_without_starting_anything() {
    let printed = weir_with(
        &["--print-config", "--redis-url", "redis://me:secret@127.0.0.1:1/0", "--override", "num.partitions=6"],
        &[("WEIR_LOG_LEVEL", "debug")],
    );
    assert_eq!(printed.code, Some(0), "{printed:?}");
    let lines: Vec<String> =
        printed.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "redis.url = \"redis://me:***@127.0.0.1:1/0\" # --redis-url",
        "\"num.partitions\" = \"6\" # --override",
        "log.level = \"debug\" # environment WEIR_LOG_LEVEL",
        "keyspace = \"korvet\" # built-in",
    ] {
        assert!(lines.iter().any(|shown| shown == line), "{line} is not in {}", printed.stdout);
    }
    assert!(!printed.stdout.contains("secret"));
}
