//! The steps of a table, seen at the objects that it is made of.

use std::{fmt, ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result, UploadPart, path::Path,
};

use super::steps::reach;

pub fn objects(store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    Arc::new(StoppingObjects(store))
}

#[derive(Debug)]
struct StoppingObjects(Arc<dyn ObjectStore>);

impl fmt::Display for StoppingObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, with stops", self.0)
    }
}

/// What an object is to its table.
fn kind(path: &Path) -> &'static str {
    match path.filename().unwrap_or_default() {
        "_last_checkpoint" => "pointer",
        name if name.ends_with(".checkpoint.parquet") => "checkpoint",
        name if name.ends_with(".parquet") => "file",
        name if name.ends_with(".json") => "version",
        _ => "other",
    }
}

/// What a version does to its table: `write`, `delete`, `optimize`, …
fn operation(payload: &PutPayload) -> String {
    let bytes: Vec<u8> = payload.iter().flat_map(|part| part.to_vec()).collect();
    let text = String::from_utf8_lossy(&bytes);
    let named = text.split("\"operation\":\"").nth(1).and_then(|rest| rest.split('"').next());
    named.unwrap_or("version").to_lowercase()
}

#[async_trait]
impl ObjectStore for StoppingObjects {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let what = match kind(location) {
            "version" => operation(&payload),
            kind => kind.to_owned(),
        };
        reach(&format!("before-{what}-put")).await;
        let put = self.0.put_opts(location, payload, opts).await?;
        reach(&format!("{what}-put")).await;
        Ok(put)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let upload = self.0.put_multipart_opts(location, opts).await?;
        Ok(Box::new(StoppingUpload { upload, kind: kind(location) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let deleted = self.0.delete_stream(locations).then(|deleted| async move {
            if let Ok(path) = &deleted {
                reach(&format!("{}-removed", kind(path))).await;
            }
            deleted
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct StoppingUpload {
    upload: Box<dyn MultipartUpload>,
    kind: &'static str,
}

#[async_trait]
impl MultipartUpload for StoppingUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (part, kind) = (self.upload.put_part(data), self.kind);
        Box::pin(async move {
            part.await?;
            reach(&format!("{kind}-part-put")).await;
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let put = self.upload.complete().await?;
        reach(&format!("{}-put", self.kind)).await;
        Ok(put)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
