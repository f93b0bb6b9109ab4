//! Whose configs a request is about, and how they are changed: what AlterConfigs and IncrementalAlterConfigs share.

use std::collections::HashSet;

use kafka_protocol::ResponseError;

use super::{
    errors,
    partitions::{Named, look_for_topics},
};
use crate::{
    model::{NodeId, TopicId},
    topics::{
        AlterError, Catalog, ChangeError,
        configs::{
            self, Definition, InvalidClientMetrics, Update, Values,
            alter::{AlterRefusal, Wording},
        },
        names, settings,
        store::Resource,
    },
};

/// `ConfigResource.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResourceType {
    Topic,
    Broker,
    BrokerLogger,
    ClientMetrics,
    Group,
}

impl ResourceType {
    pub(super) const ALL: [Self; 5] = [Self::Group, Self::ClientMetrics, Self::BrokerLogger, Self::Broker, Self::Topic];

    pub(super) fn from_code(code: i8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    pub(super) fn code(self) -> i8 {
        match self {
            Self::Topic => 2,
            Self::Broker => 4,
            Self::BrokerLogger => 8,
            Self::ClientMetrics => 16,
            Self::Group => 32,
        }
    }
}

/// Looks for topics among the resources that are not known here ([`look_for_topics`]).
pub(super) async fn look_for_resources<'a>(catalog: &Catalog, named: impl Iterator<Item = (i8, &'a str)>) {
    let topics = named.filter(|(kind, _)| ResourceType::from_code(*kind) == Some(ResourceType::Topic));
    look_for_topics(catalog, topics.map(|(_, name)| Named::Name(name))).await;
}

/// A refusal with its code.
pub(super) type Refused = (ResponseError, String);

/// What is changed.
pub(super) enum Target {
    /// `None` if there is no such topic: Kafka tells so only where nothing else is wrong with the request.
    Topic(Option<TopicId>),
    Resource(Resource),
    /// There are no loggers whose level could be changed.
    Loggers,
}

impl Target {
    /// # Errors
    /// With Kafka's words.
    pub(super) fn find(catalog: &Catalog, node: NodeId, kind: i8, name: &str) -> Result<Self, Refused> {
        let illegal = |message: String| (ResponseError::InvalidRequest, message);
        let node_id =
            || name.parse::<i32>().map_err(|_| illegal(format!("Node id must be an integer, but it is: {name}")));
        match ResourceType::from_code(kind) {
            None => Err(illegal(format!("Unknown resource type {kind}"))),
            Some(ResourceType::Topic) if name.is_empty() => {
                Err(illegal("Default topic resources are not allowed.".to_owned()))
            }
            Some(ResourceType::Topic) => {
                names::validate(name).map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))?;
                Ok(Self::Topic(catalog.get(name).map(|topic| topic.id)))
            }
            Some(ResourceType::Broker) if name.is_empty() => Ok(Self::Resource(Resource::Cluster)),
            Some(ResourceType::Broker) => match node_id()? {
                id if id == node.0 => Ok(Self::Resource(Resource::Broker(id))),
                id => Err(illegal(format!("Unexpected broker id, expected {node}, but received {id}"))),
            },
            Some(ResourceType::BrokerLogger) => match node_id()? {
                id if id == node.0 => Ok(Self::Loggers),
                id => Err(illegal(format!("Unexpected node id. Expected {node}, but received {id}"))),
            },
            Some(ResourceType::ClientMetrics) if name.is_empty() => {
                Err(illegal("Subscription name can't be empty".to_owned()))
            }
            Some(ResourceType::ClientMetrics) => Ok(Self::Resource(Resource::ClientMetrics(name.to_owned()))),
            Some(ResourceType::Group) if name.is_empty() => {
                Err(illegal("Default group resources are not allowed.".to_owned()))
            }
            Some(ResourceType::Group) => Ok(Self::Resource(Resource::Group(name.to_owned()))),
        }
    }

    pub(super) fn wording(&self) -> Wording {
        match self {
            Self::Resource(Resource::Cluster | Resource::Broker(_)) => Wording::Broker,
            _ => Wording::Other,
        }
    }

    pub(super) fn definition(&self, name: &str) -> Option<&'static Definition> {
        match self {
            Self::Topic(_) => configs::topic_definition(name),
            Self::Resource(Resource::Cluster | Resource::Broker(_)) => configs::broker_definition(name),
            Self::Resource(Resource::Group(_)) => configs::find(configs::GROUP.iter(), name),
            Self::Resource(Resource::ClientMetrics(_)) => configs::find(configs::CLIENT_METRICS.iter(), name),
            Self::Loggers => None,
        }
    }

    /// What is set now.
    fn current(&self, catalog: &Catalog) -> Result<Values, ChangeError> {
        match self {
            Self::Topic(Some(id)) => {
                catalog.get_by_id(*id).map(|topic| topic.configs.clone()).ok_or(ChangeError::Missing)
            }
            Self::Resource(resource) => Ok(catalog.snapshot().configs(resource).cloned().unwrap_or_default()),
            Self::Topic(None) | Self::Loggers => Ok(Values::new()),
        }
    }

    /// Makes what `edit` makes of the configs, if that is legal. `named` are the request's configs in its order.
    ///
    /// # Errors
    /// With Kafka's words.
    pub(super) async fn alter(
        &self,
        catalog: &Catalog,
        name: &str,
        validate_only: bool,
        named: &[&str],
        edit: impl Fn(&Values) -> Result<Values, AlterRefusal>,
    ) -> Result<(), Refused> {
        let checked = |before: &Values| {
            let after = edit(before)?;
            self.validate(catalog, name, named, &after)?;
            Ok(after)
        };
        let only_checked = || {
            let current = self.current(catalog).map_err(AlterError::Change)?;
            checked(&current).map(|_| ()).map_err(AlterError::Refused)
        };
        let outcome = match self {
            Self::Topic(None) => only_checked().and(Err(AlterError::Change(ChangeError::Missing))),
            Self::Topic(Some(id)) if !validate_only => catalog.alter_topic_configs(*id, checked).await,
            Self::Resource(resource) if !validate_only => catalog.alter_configs(resource, checked).await,
            Self::Topic(Some(_)) | Self::Resource(_) | Self::Loggers => only_checked(),
        };
        outcome.map_err(|error| match error {
            AlterError::Refused(AlterRefusal::Request(message)) => (ResponseError::InvalidRequest, message),
            AlterError::Refused(AlterRefusal::Config(message)) => (ResponseError::InvalidConfig, message),
            AlterError::Change(ChangeError::Missing) => missing_topic(name),
            AlterError::Change(error) => (errors::change_topic(&error), error.to_string()),
        })
    }

    fn validate(&self, catalog: &Catalog, name: &str, named: &[&str], values: &Values) -> Result<(), AlterRefusal> {
        let snapshot = catalog.snapshot();
        match self {
            Self::Topic(_) => {
                catalog.check_configs(name, values).map_err(|error| AlterRefusal::Config(error.to_string()))
            }
            Self::Resource(Resource::Group(_)) => {
                configs::validate_group(values, snapshot.layers()).map_err(|error| AlterRefusal::Config(error.0))
            }
            Self::Resource(Resource::ClientMetrics(_)) => {
                configs::validate_client_metrics(values).map_err(|error| match error {
                    InvalidClientMetrics::Request(message) => AlterRefusal::Request(message),
                    InvalidClientMetrics::Config(message) => AlterRefusal::Config(message),
                })
            }
            Self::Resource(resource @ (Resource::Cluster | Resource::Broker(_))) => {
                let mut fixed: Vec<&str> = values
                    .keys()
                    .filter(|name| {
                        configs::broker_definition(name).is_none_or(|known| known.update == Update::ReadOnly)
                    })
                    .map(String::as_str)
                    .collect();
                fixed.sort_by_key(|name| named.iter().position(|other| other == name));
                if !fixed.is_empty() {
                    let message = format!("Cannot update these configs dynamically: [{}]", fixed.join(", "));
                    return Err(AlterRefusal::Request(message));
                }
                for (name, value) in values {
                    if let Some(definition) = configs::broker_definition(name) {
                        definition.validate(value).map_err(|error| AlterRefusal::Request(error.to_string()))?;
                    }
                }
                let mut layers = snapshot.layers().clone();
                match resource {
                    Resource::Cluster => layers.cluster = values.clone(),
                    _ => layers.dynamic = values.clone(),
                }
                settings::validate_together(&layers)
                    .map_err(|message| AlterRefusal::Request(format!("requirement failed: {message}")))?;
                // Kafka looks at these only where the request is about logs.
                if named.iter().any(|name| configs::is_log_default(name)) {
                    configs::validate_log_defaults(&layers)
                        .map_err(|error| AlterRefusal::Request(error.to_string()))?;
                }
                catalog.check_default_promise(&layers).map_err(AlterRefusal::Config)
            }
            Self::Loggers => match values.keys().next() {
                Some(logger) => Err(AlterRefusal::Config(format!("Logger {logger} does not exist!"))),
                None => Ok(()),
            },
        }
    }
}

fn missing_topic(name: &str) -> Refused {
    (ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."))
}

/// The resources, by type and name, that a request names more than once; Kafka refuses all of these.
pub(super) fn named_twice<'a>(resources: impl Iterator<Item = (i8, &'a str)>) -> HashSet<(i8, &'a str)> {
    let mut seen = HashSet::new();
    resources.filter(|resource| !seen.insert(*resource)).collect()
}
