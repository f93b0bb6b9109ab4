//! IncrementalAlterConfigs, key 44, versions 0-1 (KIP-339).
//!
//! v1 is flexible.
//!
//! Differs from Apache Kafka: broker configs that Weir does not know are refused instead of stored; there are no loggers
//! (BROKER_LOGGER), so each that is named does not exist; an unknown operation is INVALID_REQUEST for topics too.

use kafka_protocol::{
    ResponseError,
    messages::{
        IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
        incremental_alter_configs_request::AlterConfigsResource,
        incremental_alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Request,
    config_resource::{Refused, Target, look_for_resources, named_twice},
};
use crate::{
    model::NodeId,
    topics::{
        Catalog,
        configs::alter::{ConfigChange, Operation, incremental},
    },
};

pub(super) async fn handle(
    catalog: &Catalog,
    node: NodeId,
    request: &Request<IncrementalAlterConfigsRequest>,
) -> IncrementalAlterConfigsResponse {
    let resources = &request.body.resources;
    let named = resources.iter().map(|resource| (resource.resource_type, resource.resource_name.as_str()));
    look_for_resources(catalog, named.clone()).await;
    let repeated = named_twice(named);
    let mut responses = Vec::with_capacity(resources.len());
    for resource in resources {
        let outcome = if repeated.contains(&(resource.resource_type, resource.resource_name.as_str())) {
            Err((ResponseError::InvalidRequest, "Each resource must appear at most once.".to_owned()))
        } else {
            alter(catalog, node, resource, request.body.validate_only).await
        };
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        responses.push(match outcome {
            Ok(()) => response.with_error_message(None),
            Err((code, message)) => {
                response.with_error_code(code.code()).with_error_message(Some(StrBytes::from_string(message)))
            }
        });
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    catalog: &Catalog,
    node: NodeId,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let name = resource.resource_name.as_str();
    let target = Target::find(catalog, node, resource.resource_type, name)?;
    let changes = resource
        .configs
        .iter()
        .map(|config| {
            let operation = Operation::from_code(config.config_operation).ok_or_else(|| {
                (ResponseError::InvalidRequest, format!("Unknown operations type {}", config.config_operation))
            })?;
            let value = config.value.as_ref().map(StrBytes::to_string);
            Ok(ConfigChange { name: config.name.to_string(), operation, value })
        })
        .collect::<Result<Vec<_>, Refused>>()?;
    let edit = |current: &_| incremental(current, &changes, |name| target.definition(name), target.wording());
    let named: Vec<&str> = resource.configs.iter().map(|config| config.name.as_str()).collect();
    target.alter(catalog, name, validate_only, &named, edit).await
}
