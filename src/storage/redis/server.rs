//! What Weir expects of a Redis server, and what it keeps there about the cluster as a whole.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::client::Client;
use crate::log::store::StoreError;

/// The cluster's id: `configured`, or the one in Redis, or a new one that is kept there.
pub async fn cluster_id(client: &Client, configured: Option<&str>) -> Result<String, StoreError> {
    let key = client.keyspace().cluster();
    if let Some(id) = configured {
        client.query::<()>(redis::cmd("SET").arg(&key).arg(id)).await?;
        return Ok(id.to_owned());
    }
    // Kafka's form of a random UUID.
    let new = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
    client.query::<()>(redis::cmd("SET").arg(&key).arg(new).arg("NX")).await?;
    client.query(redis::cmd("GET").arg(&key)).await
}
