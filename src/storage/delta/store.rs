//! Where tables lie: a folder or a bucket, and what its errors mean.

use std::{path::PathBuf, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
};

use super::DeltaOptions;
use crate::log::archive::ArchiveError;

/// The store of the options' URL, and the place in it below which all tables lie.
pub(super) fn open(options: &DeltaOptions) -> Result<(Arc<dyn ObjectStore>, Path), ArchiveError> {
    let url = url::Url::parse(&options.url)
        .map_err(|error| ArchiveError::Refused(format!("`{}` is not a URL: {error}", options.url)))?;
    let (store, place) = match url.scheme() {
        "file" => open_folder(&url)?,
        "s3" | "s3a" => open_bucket(options, &url)?,
        other => return Err(ArchiveError::Refused(format!("`{other}://` is neither `file://` nor `s3://`"))),
    };
    #[cfg(feature = "planted-faults")]
    let store = crate::faults::objects(store);
    Ok((store, place))
}

/// Where a place below the root of a folder lies on this machine; none of a bucket.
pub(super) fn folder(url: &str, place: &Path) -> Option<PathBuf> {
    let url = url::Url::parse(url).ok().filter(|url| url.scheme() == "file")?;
    Some(url.to_file_path().ok()?.join(place.as_ref()))
}

fn open_folder(url: &url::Url) -> Result<(Arc<dyn ObjectStore>, Path), ArchiveError> {
    let refused = |text: String| ArchiveError::Refused(format!("the folder of `{url}`: {text}"));
    let folder = url.to_file_path().map_err(|()| refused("not a path of this machine".to_owned()))?;
    std::fs::create_dir_all(&folder).map_err(|error| refused(error.to_string()))?;
    let store = LocalFileSystem::new_with_prefix(folder).map_err(|error| refused(error.to_string()))?;
    // What was committed is trimmed from Redis: it must survive a loss of power.
    Ok((Arc::new(store.with_fsync(true).with_automatic_cleanup(true)), Path::default()))
}

fn open_bucket(options: &DeltaOptions, url: &url::Url) -> Result<(Arc<dyn ObjectStore>, Path), ArchiveError> {
    let refused = |text: String| ArchiveError::Refused(format!("the bucket of `{url}`: {text}"));
    let bucket = url.host_str().ok_or_else(|| refused("it has no name".to_owned()))?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| refused(error.to_string()))?;
    // TLS needs one; where the process has it already, that one stays.
    drop(rustls::crypto::ring::default_provider().install_default());
    let client = ClientOptions::new()
        .with_timeout(options.request_timeout)
        .with_connect_timeout(options.request_timeout.min(Duration::from_secs(5)))
        .with_allow_http(options.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://")));
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_secs(2),
            ..BackoffConfig::default()
        },
        max_retries: options.retries,
        retry_timeout: options.request_timeout.saturating_mul(2),
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_client_options(client)
        .with_retry(retry)
        .with_virtual_hosted_style_request(!options.path_style);
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(credentials) = &options.credentials {
        builder = builder
            .with_access_key_id(&credentials.access_key_id)
            .with_secret_access_key(&credentials.secret_access_key);
        if let Some(token) = &credentials.session_token {
            builder = builder.with_token(token);
        }
    }
    let store = builder.build().map_err(|error| refused(error.to_string()))?;
    Ok((Arc::new(store), prefix))
}

/// What S3 says of credentials, and of buckets, that only the operator can mend.
const REFUSALS: [(&str, &str); 8] = [
    ("ExpiredToken", "the credentials have expired"),
    ("TokenRefreshRequired", "the credentials have expired"),
    ("InvalidToken", "the session token is not valid"),
    ("InvalidAccessKeyId", "the access key is not known"),
    ("SignatureDoesNotMatch", "the secret key is wrong"),
    ("AccessDenied", "access is denied"),
    ("NoSuchBucket", "the bucket does not exist"),
    ("RequestTimeTooSkewed", "this machine's clock is too far off"),
];

/// For every error but a missing or an existing object, which callers look for themselves.
pub(super) fn error(error: object_store::Error) -> ArchiveError {
    let text = full_text(&error);
    if let Some((_, meaning)) = REFUSALS.iter().find(|(code, _)| text.contains(code)) {
        return ArchiveError::Refused(format!("{meaning}: {text}"));
    }
    match error {
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            ArchiveError::Refused(text)
        }
        _ if io_kind(&error) == Some(std::io::ErrorKind::PermissionDenied) => ArchiveError::Refused(text),
        _ => ArchiveError::Unavailable(text),
    }
}

/// Whether the bucket is missing, rather than the object.
pub(super) fn is_no_bucket(error: &object_store::Error) -> bool {
    full_text(error).contains("NoSuchBucket")
}

fn io_kind(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return Some(error.kind());
        }
        source = error.source();
    }
    None
}

/// The error with all its causes, on one line and bounded.
fn full_text(error: &object_store::Error) -> String {
    const LONGEST: usize = 600;
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LONGEST).collect()
}
