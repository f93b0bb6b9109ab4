use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use redis::Client;
use tokio::sync::Notify;

use super::*;
use crate::storage::redis::testing::TestRedis;

const OPTIONS: Options = Options { connect_timeout: Duration::from_secs(5), response_timeout: Duration::from_secs(5) };

async fn open(redis: &TestRedis, options: Options, events: impl Fn(Event) + Send + Unpin + 'static) -> Connection {
    let client = Client::open(redis.url()).expect("a legal URL");
    Connection::open(client.get_connection_info(), options, events).await.expect("the server is up")
}

fn set(key: &str, value: &Bytes) -> Request {
    let mut request = Request::open_command(redis::cmd("SET").arg(key), 1);
    request.write_parts(b"head:", value);
    request
}

#[tokio::test]
async fn arguments_of_any_size_arrive_whole_and_answers_come_in_order() {
    let redis = TestRedis::start().await;
    let connection = Arc::new(open(&redis, OPTIONS, |_| {}).await);
    let sizes = [0, 1, 100, 4_095, 4_096, 20_000, 300_000, 5_000_000];
    let tasks = sizes.map(|size| {
        let connection = connection.clone();
        tokio::spawn(async move {
            let value = Bytes::from(vec![b'x'; size]);
            let key = format!("key {size}");
            assert_eq!(connection.send(set(&key, &value)).await.expect("it is up"), [Value::Okay]);
            let length = connection.command(redis::cmd("STRLEN").arg(&key)).await.expect("it is up");
            assert_eq!(length, Value::Int(i64::try_from(size).expect("small") + 5));
            let read = connection.command(redis::cmd("GET").arg(&key)).await.expect("it is up");
            assert_eq!(read, Value::BulkString([b"head:", &value[..]].concat()));
        })
    });
    for task in tasks {
        task.await.expect("it does not panic");
    }
}

#[tokio::test]
async fn a_transaction_answers_once_or_with_what_was_refused() {
    let redis = TestRedis::start().await;
    let connection = open(&redis, OPTIONS, |_| {}).await;
    let mut good = Request::transaction();
    good.queue(redis::cmd("SET").arg("a").arg(1));
    good.queue(redis::cmd("GET").arg("a"));
    let answer = connection.send(good.execute()).await.expect("it is up");
    assert_eq!(answer, [Value::Array(vec![Value::Okay, Value::BulkString(b"1".to_vec())])]);
    let mut bad = Request::transaction();
    bad.queue(redis::cmd("SET").arg("a").arg(2));
    bad.queue(&redis::cmd("NONSENSE"));
    let answer = connection.send(bad.execute()).await.expect("it is up");
    assert!(matches!(&answer[..], [Value::ServerError(error)] if error.to_string().contains("NONSENSE")), "{answer:?}");
    assert_eq!(redis.command(&["GET", "a"]).await, Value::BulkString(b"1".to_vec()));
}

#[tokio::test]
async fn pushes_are_events_and_do_not_disturb_the_answers() {
    let redis = TestRedis::start().await;
    let (pushes, pushed) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let counted = (pushes.clone(), pushed.clone());
    let connection = open(&redis, OPTIONS, move |event| {
        if matches!(event, Event::Push(_)) {
            counted.0.fetch_add(1, Ordering::Relaxed);
            counted.1.notify_one();
        }
    })
    .await;
    connection.subscribe("news").await.expect("it is up");
    connection.command(redis::cmd("SET").arg("own").arg(1)).await.expect("it is up");
    redis.command(&["PUBLISH", "news", "1"]).await;
    pushed.notified().await;
    let own = connection.command(redis::cmd("GET").arg("own")).await.expect("it is up");
    assert_eq!(own, Value::BulkString(b"1".to_vec()));
    assert_eq!(pushes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_was_on_its_way_when_the_server_closed_is_lost_and_what_comes_later_is_not_sent() {
    let redis = TestRedis::start().await;
    let closed = Arc::new(Notify::new());
    let closing = closed.clone();
    let connection = open(&redis, OPTIONS, move |event| {
        if matches!(event, Event::Closed) {
            closing.notify_one();
        }
    })
    .await;
    let waiting = connection.send(Request::command(redis::cmd("BLPOP").arg("nothing").arg(0)));
    let killing = async {
        while !contains(&redis.command(&["CLIENT", "LIST"]).await, "cmd=blpop") {
            tokio::task::yield_now().await;
        }
        redis.command(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
    };
    let (lost, ()) = tokio::join!(waiting, killing);
    assert!(matches!(lost, Err(Failure::Lost(_))), "{lost:?}");
    closed.notified().await;
    let later = connection.send(Request::command(&redis::cmd("PING"))).await;
    assert!(matches!(later, Err(Failure::NotSent(_))), "{later:?}");
}

#[tokio::test]
async fn an_answer_that_does_not_come_in_time_is_lost() {
    let redis = TestRedis::start().await;
    let options = Options { response_timeout: Duration::from_millis(50), ..OPTIONS };
    let connection = open(&redis, options, |_| {}).await;
    let late = connection.send(Request::command(redis::cmd("BLPOP").arg("nothing").arg(0))).await;
    assert!(matches!(late, Err(Failure::Lost(_))), "{late:?}");
}

/// Whether an answer that is text contains `part`.
fn contains(answer: &Value, part: &str) -> bool {
    match answer {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).contains(part),
        Value::VerbatimString { text, .. } => text.contains(part),
        _ => false,
    }
}
