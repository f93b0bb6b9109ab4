//! `--print-config`: every setting, its value, and where it came from, as TOML.

use std::fmt::Write;

use super::{Config, Given, Origin, RedisServer, SETTINGS, masked};
use crate::topics::configs;

const ANY_TEXT: &str = "a String takes any text";

impl Config {
    /// A configuration file that gives this configuration, with the origin of each value. Passwords are masked.
    pub fn printed(&self) -> String {
        let mut out = String::from("# Every setting, its value, and where it came from.\n");
        for setting in SETTINGS {
            let given = &self.sources.own[setting.name];
            let value = if setting.list { listed(given) } else { quoted(&self.effective(setting.name, given)) };
            line(&mut out, setting.name, &value, &given.origin);
        }
        out.push_str("\n[broker]\n");
        for definition in configs::broker() {
            match (self.sources.broker.get(definition.name), definition.default) {
                (Some(given), _) => line(&mut out, &quoted(definition.name), &quoted(&given.text()), &given.origin),
                (None, Some(default)) => line(&mut out, &quoted(definition.name), &quoted(default), &Origin::BuiltIn),
                (None, None) => writeln!(out, "# {} is not set", quoted(definition.name)).expect(ANY_TEXT),
            }
        }
        for table in &self.sources.topics {
            out.push_str("\n[[topics]]\n");
            line(&mut out, "pattern", &quoted(&table.pattern.text()), &table.pattern.origin);
            for (name, given) in &table.configs {
                line(&mut out, &quoted(name), &quoted(&given.text()), &given.origin);
            }
        }
        out
    }

    fn effective(&self, name: &str, given: &Given) -> String {
        match (name, &self.redis.server) {
            ("redis.url", _) => masked(&given.text()),
            ("data.dir", RedisServer::Embedded(embedded)) => embedded.data_dir.display().to_string(),
            _ => given.text(),
        }
    }
}

fn line(out: &mut String, name: &str, value: &str, origin: &impl std::fmt::Display) {
    let setting = format!("{name} = {value}");
    writeln!(out, "{setting:<58} # {origin}").expect(ANY_TEXT);
}

fn listed(given: &Given) -> String {
    let items: Vec<String> = given.values.iter().map(|value| quoted(value)).collect();
    format!("[{}]", items.join(", "))
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => write!(out, "\\u{:04X}", u32::from(c)).expect(ANY_TEXT),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
