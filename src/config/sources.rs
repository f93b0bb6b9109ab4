//! Gathers what the file, the environment and the flags say, and remembers where each value came from.

use std::{collections::BTreeMap, fmt, path::Path};

use config::{FileFormat, Map, Source, Value, ValueKind};
use toml::de::{DeTable, DeValue};

use super::{
    Arguments, ConfigError, broker,
    settings::{SETTINGS, environment_name, setting_named},
};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    BuiltIn,
    File { path: String, line: usize },
    Environment(String),
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built-in"),
            Origin::File { path, line } => write!(f, "{path} line {line}"),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Flag(flag) => f.write_str(flag),
        }
    }
}

/// A value as it was written, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// One text, or several where a list was written.
    pub values: Vec<String>,
    pub origin: Origin,
}

impl Given {
    pub fn text(&self) -> String {
        self.values.join(",")
    }
}

/// Everything that was given. Later sources have replaced earlier ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Sources {
    /// Weir's own settings by name.
    pub own: BTreeMap<String, Given>,
    /// Kafka's broker settings, and broker defaults of Weir's topic settings.
    pub broker: BTreeMap<String, Given>,
    /// `[[topics]]` of the file, in order.
    pub topics: Vec<TopicTable>,
}

/// One `[[topics]]` of the file.
#[derive(Clone, Debug)]
pub(super) struct TopicTable {
    pub pattern: Given,
    pub configs: BTreeMap<String, Given>,
}

impl Sources {
    pub(super) fn gather(
        arguments: &Arguments,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let environment: BTreeMap<String, String> = environment.into_iter().filter(|(_, v)| !v.is_empty()).collect();
        let mut sources = Self::default();
        let from_environment = environment.get("WEIR_CONFIG").map(Path::new);
        if let Some(path) = arguments.config.as_deref().or(from_environment) {
            sources.add_file(path)?;
        }
        sources.add_environment(&environment)?;
        for (flag, name, values) in arguments.given() {
            sources.own.insert(name.to_owned(), Given { values, origin: Origin::Flag(flag) });
        }
        for text in &arguments.overrides {
            let (name, value) = text.split_once('=').ok_or_else(|| ConfigError::Override(text.clone()))?;
            let given = Given { values: vec![value.trim().to_owned()], origin: Origin::Flag("--override") };
            sources.add(name.trim(), given)?;
        }
        Ok(sources)
    }

    /// Takes a value whose name may be a broker setting's or one of Weir's own.
    fn add(&mut self, name: &str, given: Given) -> Result<(), ConfigError> {
        if setting_named(name).is_some() {
            self.own.insert(name.to_owned(), given);
        } else if broker::is_known(name) {
            self.broker.insert(name.to_owned(), given);
        } else {
            return Err(unknown(name, given.origin, all_names()));
        }
        Ok(())
    }

    fn add_environment(&mut self, environment: &BTreeMap<String, String>) -> Result<(), ConfigError> {
        let own: BTreeMap<String, &str> = SETTINGS.iter().map(|s| (environment_name(s.name), s.name)).collect();
        let kafka: BTreeMap<String, &str> =
            broker::names().map(|name| (environment_name(&format!("broker.{name}")), name)).collect();
        if let Some(level) = environment.get("RUST_LOG") {
            let origin = Origin::Environment("RUST_LOG".to_owned());
            self.own.insert("log.level".to_owned(), Given { values: vec![level.clone()], origin });
        }
        for (variable, value) in environment.iter().filter(|(variable, _)| variable.starts_with("WEIR_")) {
            if variable == "WEIR_CONFIG" || is_service_link(variable) {
                continue;
            }
            let given = Given { values: vec![value.clone()], origin: Origin::Environment(variable.clone()) };
            if let Some(name) = own.get(variable) {
                self.own.insert((*name).to_owned(), given);
            } else if let Some(name) = kafka.get(variable) {
                self.broker.insert((*name).to_owned(), given);
            } else {
                let names = own.keys().chain(kafka.keys()).cloned();
                return Err(unknown(variable, Origin::Environment(variable.clone()), names));
            }
        }
        Ok(())
    }

    fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let shown = path.display().to_string();
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::UnreadableFile { path: shown.clone(), reason: error.to_string() })?;
        let places = DeTable::parse(&text).map_err(|error| ConfigError::InvalidFile {
            path: shown.clone(),
            line: error.span().map_or(1, |span| line_of(&text, span.start)),
            message: error.message().to_owned(),
        })?;
        let table = config::File::from_str(&text, FileFormat::Toml)
            .collect()
            .map_err(|error| ConfigError::InvalidFile { path: shown.clone(), line: 1, message: error.to_string() })?;
        let mut file = File { path: &shown, lines: BTreeMap::new() };
        file.note_lines(&text, "", places.get_ref());
        let (mut own, mut broker_settings) = (Vec::new(), Vec::new());
        for (key, value) in table {
            match (key.as_str(), value.kind) {
                ("broker", ValueKind::Table(settings)) => {
                    file.flatten("broker.", "", settings, &mut broker_settings)?;
                }
                ("topics", ValueKind::Array(tables)) => {
                    for (index, entry) in tables.into_iter().enumerate() {
                        self.topics.push(file.topics(index, entry)?);
                    }
                }
                (_, kind) => file.walk("", &key, kind, &mut own)?,
            }
        }
        for (name, given) in in_order(broker_settings) {
            if !broker::is_known(&name) {
                return Err(unknown(&name, given.origin, broker::names().map(str::to_owned)));
            }
            self.broker.insert(name, given);
        }
        for (name, given) in in_order(own) {
            if setting_named(&name).is_none() {
                return Err(unknown(&name, given.origin, SETTINGS.iter().map(|s| s.name.to_owned())));
            }
            self.own.insert(name, given);
        }
        Ok(())
    }
}

/// As they stand in the file, so that the first fault is told first.
fn in_order(mut found: Vec<(String, Given)>) -> Vec<(String, Given)> {
    found.sort_by_key(|(_, given)| match given.origin {
        Origin::File { line, .. } => line,
        Origin::BuiltIn | Origin::Environment(_) | Origin::Flag(_) => 0,
    });
    found
}

/// A file's values come from the `config` crate, which knows the file they came from; the lines are noted here.
struct File<'a> {
    path: &'a str,
    /// By the name's whole path: `broker.num.partitions`, `topics[0].pattern`.
    lines: BTreeMap<String, usize>,
}

impl File<'_> {
    fn note_lines(&mut self, text: &str, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let path = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                DeValue::Table(inner) => self.note_lines(text, &format!("{path}."), inner),
                DeValue::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.lines.insert(format!("{path}[{index}]"), line_of(text, item.span().start));
                        if let DeValue::Table(inner) = item.get_ref() {
                            self.note_lines(text, &format!("{path}[{index}]."), inner);
                        }
                    }
                }
                DeValue::String(_)
                | DeValue::Integer(_)
                | DeValue::Float(_)
                | DeValue::Boolean(_)
                | DeValue::Datetime(_) => {}
            }
            self.lines.insert(path, line_of(text, key.span().start));
        }
    }

    fn origin(&self, path: &str) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.lines.get(path).copied().unwrap_or(1) }
    }

    /// `within` is where the table stands in the file, `prefix` what its names begin with.
    fn flatten(
        &self,
        within: &str,
        prefix: &str,
        table: Map<String, Value>,
        found: &mut Vec<(String, Given)>,
    ) -> Result<(), ConfigError> {
        table.into_iter().try_for_each(|(key, value)| self.walk(within, &format!("{prefix}{key}"), value.kind, found))
    }

    /// Tables are names with dots, however they are written: `[redis]` with `url`, `redis.url` or `"redis.url"`.
    fn walk(
        &self,
        within: &str,
        name: &str,
        value: ValueKind,
        found: &mut Vec<(String, Given)>,
    ) -> Result<(), ConfigError> {
        let origin = self.origin(&format!("{within}{name}"));
        let values = match value {
            ValueKind::Table(table) => return self.flatten(within, &format!("{name}."), table, found),
            ValueKind::Array(items) => {
                items.into_iter().map(|item| scalar(name, item.kind, &origin)).collect::<Result<_, _>>()?
            }
            value => vec![scalar(name, value, &origin)?],
        };
        found.push((name.to_owned(), Given { values, origin }));
        Ok(())
    }

    fn topics(&self, index: usize, entry: Value) -> Result<TopicTable, ConfigError> {
        let within = format!("topics[{index}]");
        let origin = self.origin(&within);
        let missing = || ConfigError::Invalid {
            name: "[[topics]]".to_owned(),
            value: "a table without it".to_owned(),
            origin: origin.clone(),
            expected: "a pattern, as in pattern = \"logs-*\"".to_owned(),
        };
        let ValueKind::Table(table) = entry.kind else { return Err(missing()) };
        let mut found = Vec::new();
        self.flatten(&format!("{within}."), "", table, &mut found)?;
        let mut configs: BTreeMap<String, Given> = found.into_iter().collect();
        let pattern = configs.remove("pattern").filter(|given| !given.text().is_empty()).ok_or_else(missing)?;
        Ok(TopicTable { pattern, configs })
    }
}

fn scalar(name: &str, value: ValueKind, origin: &Origin) -> Result<String, ConfigError> {
    match value {
        ValueKind::Nil | ValueKind::Array(_) | ValueKind::Table(_) => Err(ConfigError::Invalid {
            name: name.to_owned(),
            value: "a list or table".to_owned(),
            origin: origin.clone(),
            expected: "text, a number, true or false, or a list of them".to_owned(),
        }),
        ValueKind::String(text) => Ok(text),
        scalar => Ok(scalar.to_string()),
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

/// Kubernetes and Docker links put the addresses of a service named `weir` into its neighbours' environments.
fn is_service_link(variable: &str) -> bool {
    variable == "WEIR_PORT"
        || ["WEIR_PORT_", "WEIR_SERVICE_", "WEIR_ENV_"].iter().any(|prefix| variable.starts_with(prefix))
        || variable == "WEIR_NAME"
}

fn all_names() -> impl Iterator<Item = String> {
    SETTINGS.iter().map(|setting| setting.name).chain(broker::names()).map(str::to_owned)
}

/// The refusal of a name that nobody knows.
pub(super) fn unknown(name: &str, origin: Origin, known: impl IntoIterator<Item = String>) -> ConfigError {
    let hint = broker::instead_of(name).map(str::to_owned).or_else(|| {
        known
            .into_iter()
            .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
            .min()
            .filter(|(distance, _)| *distance <= 3.max(name.len() / 3))
            .map(|(_, nearest)| format!("did you mean {nearest}?"))
    });
    ConfigError::Unknown { name: name.to_owned(), origin, hint }
}
