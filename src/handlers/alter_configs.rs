//! AlterConfigs, key 33, versions 0-2 (KIP-133): replaces all that is set. IncrementalAlterConfigs took its place.
//!
//! v2 is flexible.
//!
//! Differs from Apache Kafka: a resource that is named twice is answered (Kafka never answers); broker configs that Weir does
//! not know are refused instead of stored.

use kafka_protocol::{
    ResponseError,
    messages::{
        AlterConfigsRequest, AlterConfigsResponse, alter_configs_request::AlterConfigsResource,
        alter_configs_response::AlterConfigsResourceResponse,
    },
    protocol::StrBytes,
};

use super::{
    Request,
    config_resource::{Refused, ResourceType, Target, look_for_resources, named_twice},
};
use crate::{
    model::NodeId,
    topics::{Catalog, configs::alter::replacing},
};

pub(super) async fn handle(
    catalog: &Catalog,
    node: NodeId,
    request: &Request<AlterConfigsRequest>,
) -> AlterConfigsResponse {
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
    AlterConfigsResponse::default().with_responses(responses)
}

async fn alter(
    catalog: &Catalog,
    node: NodeId,
    resource: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), Refused> {
    let name = resource.resource_name.as_str();
    if ResourceType::from_code(resource.resource_type) == Some(ResourceType::BrokerLogger) {
        let message = format!("Unknown resource type {}", resource.resource_type);
        return Err((ResponseError::InvalidRequest, message));
    }
    let target = Target::find(catalog, node, resource.resource_type, name)?;
    let given = resource.configs.iter().map(|config| (config.name.as_str(), config.value.as_deref()));
    let named: Vec<&str> = resource.configs.iter().map(|config| config.name.as_str()).collect();
    target.alter(catalog, name, validate_only, &named, |_| replacing(given.clone())).await
}
