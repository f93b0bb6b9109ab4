//! The HTTP port: `/livez`, `/readyz`, `/metrics`.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};
use tracing::debug;

use super::metrics::{Figures, Metrics};
use crate::tasks::Tasks;

/// What the port asks of the broker.
#[async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Whether clients can be served now, or why not; where they are served in part only, what is held back.
    async fn ready(&self) -> Result<Option<String>, String>;

    /// Figures that are looked up for each answer of `/metrics`.
    async fn figures(&self) -> Figures;
}

/// Scrapers and health checks need few; more than this wait in the system's backlog.
const MAX_CONNECTIONS: usize = 64;
const HEADER_PATIENCE: Duration = Duration::from_secs(10);
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// However it is used, a connection ends by then.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);
const MAX_HEADER_BYTES: usize = 16 << 10;

/// Serves until the tasks are to end.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, probe: Arc<dyn Probe>, tasks: Tasks) {
    let stopping = tasks.stopping().clone();
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot = tokio::select! {
            () = stopping.cancelled() => return,
            slot = slots.clone().acquire_owned() => slot.expect("never closed"),
        };
        let accepted = tokio::select! {
            () = stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                debug!(%error, "an HTTP connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (metrics, probe, stopping) = (metrics.clone(), probe.clone(), stopping.clone());
        tasks.spawn("http connection", async move {
            tokio::select! {
                () = stopping.cancelled() => {}
                ended = timeout(LONGEST_CONNECTION, connection(stream, peer, metrics, probe)) => {
                    if ended.is_err() {
                        debug!(%peer, "an HTTP connection was open for too long");
                    }
                }
            }
            drop(slot);
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, metrics: Arc<Metrics>, probe: Arc<dyn Probe>) {
    let service = service_fn(move |request| {
        let (metrics, probe) = (metrics.clone(), probe.clone());
        async move { Ok::<_, Infallible>(answer(&request, &metrics, &*probe).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        debug!(%peer, %error, "an HTTP connection ended");
    }
}

async fn answer(request: &Request<Incoming>, metrics: &Arc<Metrics>, probe: &dyn Probe) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET or HEAD\n".to_owned());
        refusal.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let late = || "no answer within 10 s".to_owned();
    match request.uri().path() {
        "/livez" => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
        "/readyz" => match timeout(ANSWER_PATIENCE, probe.ready()).await.unwrap_or_else(|_| Err(late())) {
            Ok(None) => response(StatusCode::OK, TEXT, "ok\n".to_owned()),
            Ok(Some(note)) => response(StatusCode::OK, TEXT, format!("ok, but {note}\n")),
            Err(reason) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
        },
        "/metrics" => {
            // What can't be looked up is left out; what was counted is always there.
            let figures = timeout(ANSWER_PATIENCE, probe.figures()).await.unwrap_or_default();
            // Ten thousand partitions take milliseconds to write down.
            let metrics = metrics.clone();
            match tokio::task::spawn_blocking(move || metrics.shown(figures)).await {
                Ok(text) => response(StatusCode::OK, OPEN_METRICS, text),
                Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            }
        }
        _ => response(StatusCode::NOT_FOUND, TEXT, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

fn response(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    struct Broker(Result<Option<String>, String>);

    #[async_trait]
    impl Probe for Broker {
        async fn ready(&self) -> Result<Option<String>, String> {
            self.0.clone()
        }

        async fn figures(&self) -> Figures {
            Figures::default()
        }
    }

    async fn started(ready: Result<Option<String>, String>) -> (SocketAddr, Tasks) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let tasks = Tasks::new();
        tasks.spawn("http", serve(listener, Metrics::unseen(), Arc::new(Broker(ready)), tasks.clone()));
        (address, tasks)
    }

    async fn asked(address: SocketAddr, start: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listening");
        let request = format!("{start} HTTP/1.1\r\nHost: weir\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("written");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("text");
        answer
    }

    #[tokio::test]
    async fn each_path_answers() {
        let (address, _tasks) = started(Ok(None)).await;
        assert!(asked(address, "GET /livez").await.starts_with("HTTP/1.1 200 "));
        assert!(asked(address, "HEAD /readyz").await.starts_with("HTTP/1.1 200 "));
        let metrics = asked(address, "GET /metrics").await;
        assert!(metrics.contains("weir_connections 0\n") && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(asked(address, "GET /").await.starts_with("HTTP/1.1 404 "));
        assert!(asked(address, "POST /livez").await.starts_with("HTTP/1.1 405 "));
    }

    #[tokio::test]
    async fn a_broker_that_serves_in_part_says_so_and_is_ready() {
        let (address, _tasks) = started(Ok(Some("appends are refused".to_owned()))).await;
        let answer = asked(address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("ok, but appends are refused\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_broker_that_is_not_ready_says_why() {
        let (address, _tasks) = started(Err("Redis is lost".to_owned())).await;
        let answer = asked(address, "GET /readyz").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("Redis is lost\n"), "{answer}");
        assert!(asked(address, "GET /livez").await.starts_with("HTTP/1.1 200 "));
    }

    #[tokio::test]
    async fn connections_end_with_the_broker() {
        let (address, tasks) = started(Ok(None)).await;
        let mut idle = TcpStream::connect(address).await.expect("listening");
        idle.write_all(b"GET /livez HTTP/1.1\r\nHost: weir\r\n\r\n").await.expect("written");
        let mut start = [0; 12];
        idle.read_exact(&mut start).await.expect("an answer");
        assert_eq!(&start, b"HTTP/1.1 200");
        assert_eq!(tasks.stop(Duration::from_secs(10)).await, 0);
    }

    #[tokio::test]
    async fn what_is_not_http_harms_nobody() {
        let (address, _tasks) = started(Ok(None)).await;
        let mut stream = TcpStream::connect(address).await.expect("listening");
        stream.write_all(&[0xff; 64 << 10]).await.expect("written");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(asked(address, "GET /livez").await.starts_with("HTTP/1.1 200 "));
    }
}
