//! Numbered records, each with the producer's name and its number in it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    error::{KafkaError, RDKafkaErrorCode},
    message::Message,
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use super::{Worker, name_of};
use crate::history::{Kind, Operation};

struct Deliveries {
    worker: Arc<Worker>,
    answered: AtomicU64,
}

impl ClientContext for Deliveries {
    fn error(&self, error: KafkaError, reason: &str) {
        if matches!(error, KafkaError::Global(RDKafkaErrorCode::Fatal)) {
            self.worker.problem(format!("the producer cannot go on: {reason}"));
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, sequence: Box<u64>) {
        let (message, kind, error) = match result {
            Ok(message) => (message, Kind::Ok, None),
            Err((error, message)) => (message, Kind::Info, Some(error.to_string())),
        };
        let offset = (kind == Kind::Ok).then(|| message.offset());
        let partition = name_of(message.topic(), message.partition());
        self.worker.recorder.record(kind, Operation::Produce { partition, sequence: *sequence, offset, error });
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Small ones most of the time, so that both ways to append are taken.
fn payload(name: &str, sequence: u64) -> String {
    let padding = match sequence % 50 {
        0 => 6_000,
        some => usize::try_from(some * 4).expect("small"),
    };
    format!("{name}:{sequence}:{}", "x".repeat(padding))
}

pub(super) fn run(worker: Worker) -> Result<(), String> {
    let mut config = worker.config();
    config.set("acks", "all").set("linger.ms", "5").set("message.send.max.retries", "2147483647");
    if worker.options.idempotent {
        config.set("enable.idempotence", "true").set("message.timeout.ms", "0");
    } else {
        config.set("max.in.flight.requests.per.connection", "1").set("message.timeout.ms", "15000");
    }
    let partitions = worker.partitions();
    let worker = Arc::new(worker);
    let deliveries = Deliveries { worker: worker.clone(), answered: AtomicU64::new(0) };
    let producer: ThreadedProducer<Deliveries> =
        config.create_with_context(deliveries).map_err(|error| error.to_string())?;
    let began = Instant::now();
    let mut sequence = 0;
    while !worker.is_finishing() {
        let burst = 1 + sequence * 7 % 23;
        for _ in 0..burst {
            let place = usize::try_from(sequence).expect("small") % partitions.len();
            let (topic, partition) = &partitions[place];
            let name = name_of(topic, *partition);
            let invoke = Operation::Produce { partition: name, sequence, offset: None, error: None };
            worker.recorder.record(Kind::Invoke, invoke);
            let payload = payload(&worker.options.name, sequence);
            let mut record = BaseRecord::<[u8], str, Box<u64>>::with_opaque_to(topic, Box::new(sequence));
            record = record.partition(*partition).payload(&payload);
            while let Err((error, again)) = producer.send(record) {
                if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                    return Err(error.to_string());
                }
                record = again;
                thread::sleep(Duration::from_millis(20));
            }
            sequence += 1;
        }
        let due = Duration::from_micros(sequence * 1_000_000 / worker.options.rate);
        thread::sleep(due.saturating_sub(began.elapsed()).min(Duration::from_secs(1)));
    }
    let _ = producer.flush(worker.patience());
    let open = sequence - producer.context().answered.load(Ordering::Relaxed);
    if open > 0 {
        worker.problem(format!("{open} records are without an answer {:?} after all was healed", worker.patience()));
    }
    Ok(())
}
