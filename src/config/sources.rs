//! Gathers what the file, the environment and the flags say, and remembers where each value came from.

use std::{collections::BTreeMap, fmt, path::Path};

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
        let table = DeTable::parse(&text).map_err(|error| ConfigError::InvalidFile {
            path: shown.clone(),
            line: error.span().map_or(1, |span| line_of(&text, span.start)),
            message: error.message().to_owned(),
        })?;
        let file = File { path: &shown, text: &text };
        for (key, value) in table.get_ref() {
            match (&**key.get_ref(), value.get_ref()) {
                ("broker", DeValue::Table(broker)) => {
                    for (name, given) in file.flatten(broker)? {
                        if !broker::is_known(&name) {
                            return Err(unknown(&name, given.origin, broker::names().map(str::to_owned)));
                        }
                        self.broker.insert(name, given);
                    }
                }
                ("topics", DeValue::Array(tables)) => {
                    for entry in tables {
                        let topics = file.topics(entry.get_ref(), entry.span().start)?;
                        self.topics.push(topics);
                    }
                }
                (name, value) => {
                    let mut found = Vec::new();
                    file.walk(name, value, key.span().start, &mut found)?;
                    for (name, given) in found {
                        if setting_named(&name).is_none() {
                            let names = SETTINGS.iter().map(|s| s.name.to_owned());
                            return Err(unknown(&name, given.origin, names));
                        }
                        self.own.insert(name, given);
                    }
                }
            }
        }
        Ok(())
    }
}

struct File<'a> {
    path: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn origin(&self, at: usize) -> Origin {
        Origin::File { path: self.path.to_owned(), line: line_of(self.text, at) }
    }

    fn flatten(&self, table: &DeTable<'_>) -> Result<Vec<(String, Given)>, ConfigError> {
        let mut found = Vec::new();
        for (key, value) in table {
            self.walk(key.get_ref(), value.get_ref(), key.span().start, &mut found)?;
        }
        Ok(found)
    }

    /// Tables are names with dots, however they are written: `[redis]` with `url`, `redis.url` or `"redis.url"`.
    fn walk(
        &self,
        name: &str,
        value: &DeValue<'_>,
        at: usize,
        found: &mut Vec<(String, Given)>,
    ) -> Result<(), ConfigError> {
        let values = match value {
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.walk(&format!("{name}.{}", key.get_ref()), value.get_ref(), key.span().start, found)?;
                }
                return Ok(());
            }
            DeValue::Array(items) => {
                items.iter().map(|item| self.scalar(name, item.get_ref(), at)).collect::<Result<_, _>>()?
            }
            value => vec![self.scalar(name, value, at)?],
        };
        found.push((name.to_owned(), Given { values, origin: self.origin(at) }));
        Ok(())
    }

    fn scalar(&self, name: &str, value: &DeValue<'_>, at: usize) -> Result<String, ConfigError> {
        match value {
            DeValue::String(text) => Ok(text.clone().into_owned()),
            DeValue::Boolean(value) => Ok(value.to_string()),
            DeValue::Float(value) => Ok(value.as_str().to_owned()),
            DeValue::Integer(value) if value.radix() == 10 => Ok(value.as_str().to_owned()),
            DeValue::Integer(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
                Err(ConfigError::Invalid {
                    name: name.to_owned(),
                    value: value.type_str().to_owned(),
                    origin: self.origin(at),
                    expected: "text, a decimal number, true or false, or a list of them".to_owned(),
                })
            }
        }
    }

    fn topics(&self, entry: &DeValue<'_>, at: usize) -> Result<TopicTable, ConfigError> {
        let origin = self.origin(at);
        let missing = || ConfigError::Invalid {
            name: "[[topics]]".to_owned(),
            value: "a table without it".to_owned(),
            origin: origin.clone(),
            expected: "a pattern, as in pattern = \"logs-*\"".to_owned(),
        };
        let DeValue::Table(table) = entry else { return Err(missing()) };
        let mut configs: BTreeMap<String, Given> = self.flatten(table)?.into_iter().collect();
        let pattern = configs.remove("pattern").filter(|given| !given.text().is_empty()).ok_or_else(missing)?;
        Ok(TopicTable { pattern, configs })
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
