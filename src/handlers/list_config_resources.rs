//! ListConfigResources, key 74, versions 0-1.
//!
//! v0 lists client metrics subscriptions (KIP-1000); v1 lists every type that is asked for, all if none is (KIP-1142).
//!
//! Differs from Apache Kafka: nothing.

use kafka_protocol::{
    ResponseError,
    messages::{
        ListConfigResourcesRequest, ListConfigResourcesResponse, list_config_resources_response::ConfigResource,
    },
    protocol::StrBytes,
};

use super::{Request, config_resource::ResourceType};
use crate::topics::{Catalog, store::Resource};

pub(super) fn handle(
    catalog: &Catalog,
    brokers: &[i32],
    request: &Request<ListConfigResourcesRequest>,
) -> ListConfigResourcesResponse {
    let named = &request.body.resource_types;
    let types = if request.version == 0 {
        Some(vec![ResourceType::ClientMetrics])
    } else if named.is_empty() {
        Some(ResourceType::ALL.to_vec())
    } else {
        named.iter().map(|code| ResourceType::from_code(*code)).collect()
    };
    let Some(types) = types else {
        return ListConfigResourcesResponse::default().with_error_code(ResponseError::UnsupportedVersion.code());
    };
    let snapshot = catalog.snapshot();
    let mut resources = Vec::new();
    for kind in ResourceType::ALL.iter().filter(|kind| types.contains(kind)) {
        let mut list = |name: String| {
            let resource = ConfigResource::default().with_resource_name(StrBytes::from_string(name));
            resources.push(if request.version >= 1 { resource.with_resource_type(kind.code()) } else { resource });
        };
        match kind {
            ResourceType::Topic => snapshot.topics().for_each(|topic| list(topic.name.to_string())),
            ResourceType::Broker | ResourceType::BrokerLogger => {
                brokers.iter().for_each(|broker| list(broker.to_string()));
            }
            ResourceType::ClientMetrics => snapshot.configured().for_each(|resource| {
                if let Resource::ClientMetrics(name) = resource {
                    list(name.clone());
                }
            }),
            ResourceType::Group => snapshot.configured().for_each(|resource| {
                if let Resource::Group(name) = resource {
                    list(name.clone());
                }
            }),
        }
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}
