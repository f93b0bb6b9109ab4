//! DescribeConfigs, key 32, versions 1-4.
//!
//! v1 gives sources and synonyms (KIP-226); v3 gives types and documentation (KIP-569); v4 is flexible.
//!
//! Differs from Apache Kafka: the configs are Weir's, in the order of their names; there are no loggers (BROKER_LOGGER).

use kafka_protocol::{
    ResponseError,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
    protocol::StrBytes,
};

use super::{
    Request,
    config_resource::{Refused, ResourceType, look_for_resources},
};
use crate::{
    model::NodeId,
    topics::{
        Catalog,
        configs::{self, Definition, Resolved, Source, SynonymValue, Update, Values},
        names,
        store::Resource,
    },
};

const UNKNOWN_TYPE: &str = "This most likely occurs because of a request being malformed by the client library or the \
                            message was sent to an incompatible broker. See the broker logs for more details.";

pub(super) async fn handle(
    catalog: &Catalog,
    node: NodeId,
    request: &Request<DescribeConfigsRequest>,
) -> DescribeConfigsResponse {
    let resources = &request.body.resources;
    let named = resources.iter().map(|resource| (resource.resource_type, resource.resource_name.as_str()));
    look_for_resources(catalog, named).await;
    let results = resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match described(catalog, node, resource) {
            Ok(configs) => {
                let configs = configs.into_iter().map(|(definition, resolved)| entry(definition, resolved, request));
                result.with_error_message(Some(StrBytes::default())).with_configs(configs.collect())
            }
            Err((code, message)) => {
                result.with_error_code(code.code()).with_error_message(Some(StrBytes::from_string(message)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

type Described = Vec<(&'static Definition, Resolved)>;

fn described(catalog: &Catalog, node: NodeId, resource: &DescribeConfigsResource) -> Result<Described, Refused> {
    let illegal = |message: &str| (ResponseError::InvalidRequest, message.to_owned());
    let name = resource.resource_name.as_str();
    let keys = resource.configuration_keys.as_ref().filter(|keys| !keys.is_empty());
    let wanted = |definition: &&'static Definition| {
        keys.is_none_or(|keys| keys.iter().any(|key| key.as_str() == definition.name))
    };
    let snapshot = catalog.snapshot();
    let layers = snapshot.layers();
    let set_for = |resource: Resource| snapshot.configs(&resource).cloned().unwrap_or_default();
    match ResourceType::from_code(resource.resource_type) {
        None => Err(illegal(UNKNOWN_TYPE)),
        Some(ResourceType::Topic) => {
            names::validate(name).map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))?;
            let topic = snapshot.get(name).ok_or((ResponseError::UnknownTopicOrPartition, String::new()))?;
            let pattern = snapshot.pattern_configs(name);
            let all = configs::TOPIC.iter().filter(wanted);
            Ok(all
                .map(|definition| (definition, snapshot.topic_config(definition, &topic.configs, &pattern)))
                .collect())
        }
        Some(ResourceType::Broker) if name.is_empty() => Ok(sorted(configs::broker().filter(wanted))
            .into_iter()
            .filter_map(|definition| {
                let mut resolved = layers.resolve(definition);
                resolved.synonyms.retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
                let set = resolved.synonyms.first()?.value.clone();
                let (value, source) = (Some(set), Source::DynamicDefaultBroker);
                Some((definition, Resolved { value, source, ..resolved }))
            })
            .collect()),
        Some(ResourceType::Broker) => {
            broker_id(name, node, "or empty string, ")?;
            let all = sorted(configs::broker().filter(wanted));
            Ok(all.into_iter().map(|definition| (definition, layers.resolve(definition))).collect())
        }
        Some(ResourceType::BrokerLogger) if name.is_empty() => Err(illegal("Broker id must not be empty")),
        Some(ResourceType::BrokerLogger) => {
            broker_id(name, node, "")?;
            Ok(Vec::new())
        }
        Some(ResourceType::ClientMetrics) if name.is_empty() => {
            Err(illegal("Client metrics subscription name must not be empty"))
        }
        Some(ResourceType::ClientMetrics) => {
            let own = set_for(Resource::ClientMetrics(name.to_owned()));
            let all = configs::CLIENT_METRICS.iter().filter(wanted);
            Ok(all.map(|definition| (definition, alone(definition, &own, Source::ClientMetrics))).collect())
        }
        Some(ResourceType::Group) if name.is_empty() => Err(illegal("Group name must not be empty")),
        Some(ResourceType::Group) => {
            let own = set_for(Resource::Group(name.to_owned()));
            let all = configs::GROUP.iter().filter(wanted);
            Ok(all
                .map(|definition| {
                    let set = own.get(definition.name).map(|value| (value.as_str(), Source::Group));
                    let mut resolved = layers.resolve_for(definition, set, None);
                    if definition.broker_names.is_empty() {
                        resolved.synonyms.extend(default_synonym(definition));
                    }
                    (definition, resolved)
                })
                .collect())
        }
    }
}

fn sorted(definitions: impl Iterator<Item = &'static Definition>) -> Vec<&'static Definition> {
    let mut sorted: Vec<_> = definitions.collect();
    sorted.sort_unstable_by_key(|definition| definition.name);
    sorted
}

fn broker_id(name: &str, node: NodeId, or_empty: &str) -> Result<(), Refused> {
    let refuse = |message| Err((ResponseError::InvalidRequest, message));
    match name.parse::<i32>() {
        Ok(id) if id == node.0 => Ok(()),
        Ok(id) if or_empty.is_empty() => refuse(format!("Unexpected broker id, expected {node} but received {id}")),
        Ok(id) => refuse(format!("Unexpected broker id, expected {node} {or_empty}but received {id}")),
        Err(_) => refuse(format!("Broker id must be an integer, but it is: {name}")),
    }
}

/// A config that no broker config gives a default.
fn alone(definition: &'static Definition, own: &Values, source: Source) -> Resolved {
    match own.get(definition.name).map(|value| definition.normalized(value)) {
        Some(value) => {
            let synonym = SynonymValue { name: definition.name.to_owned(), value: value.clone(), source };
            Resolved { value: Some(value), source, synonyms: vec![synonym] }
        }
        None => {
            Resolved { value: definition.default.map(str::to_owned), source: Source::Default, synonyms: Vec::new() }
        }
    }
}

fn default_synonym(definition: &'static Definition) -> Option<SynonymValue> {
    let value = definition.default?.to_owned();
    Some(SynonymValue { name: definition.name.to_owned(), value, source: Source::Default })
}

fn entry(
    definition: &'static Definition,
    resolved: Resolved,
    request: &Request<DescribeConfigsRequest>,
) -> DescribeConfigsResourceResult {
    let text = StrBytes::from_string;
    let synonyms = resolved.synonyms.into_iter().filter(|_| request.body.include_synonyms).map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(text(synonym.name))
            .with_value(Some(text(synonym.value)))
            .with_source(synonym.source.code())
    });
    let entry = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(definition.name))
        .with_value(resolved.value.map(text))
        .with_read_only(definition.update == Update::ReadOnly)
        .with_config_source(resolved.source.code())
        .with_synonyms(synonyms.collect());
    if request.version < 3 {
        return entry;
    }
    let documentation = request.body.include_documentation.then(|| StrBytes::from_static_str(definition.documentation));
    entry.with_config_type(definition.kind.code()).with_documentation(documentation)
}
