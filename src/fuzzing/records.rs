//! Record batches as producers send them, and what each codec unpacks.

use bytes::Bytes;

use crate::protocol::records::{
    Batch, Batches, Codec, Compression, RecordView, TimestampType, ValidatedBatch, ValidationLimits, compress,
    decompress, single_batch, validate,
};

/// Of decompressed records; a bomb must stay below it.
const MOST_BYTES: usize = 1 << 20;

/// The first byte chooses what the topic wants; the rest is the batch, whose checksum is made right, since no mutation finds it.
pub fn records(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    let mut bytes = data.to_vec();
    if let Some(covered) = bytes.get(21..).map(crc32c::crc32c)
        && let Some(place) = bytes.get_mut(17..21)
        && choice & 1 == 0
    {
        place.copy_from_slice(&covered.to_be_bytes());
    }
    let bytes = Bytes::from(bytes);
    for batch in Batches::new(bytes.clone()) {
        let Ok(batch) = batch else { break };
        walk(&batch);
    }
    let Ok(batch) = single_batch(bytes, choice & 2 == 0) else { return };
    let limits = ValidationLimits {
        now: 1_700_000_000_000,
        timestamp_type: if choice & 4 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime },
        timestamp_before_max: i64::MAX,
        timestamp_after_max: i64::MAX,
        compacted: choice & 8 != 0,
        max_batch_bytes: MOST_BYTES,
        max_records: 10_000,
        max_decompressed_bytes: MOST_BYTES,
        keep_records: choice & 16 != 0,
    };
    let Ok(valid) = validate(batch, &limits) else { return };
    let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(choice >> 5) % 5];
    let rebuilt = valid.rebuild(Some(Compression::new(codec)), MOST_BYTES).expect("a valid batch can be rebuilt");
    // Without compression it may be larger than was allowed.
    let limits = ValidationLimits { max_batch_bytes: 2 * MOST_BYTES, ..limits };
    let again = validate(Batch::parse(rebuilt.batch().bytes().clone()).expect("a batch"), &limits);
    assert_same(&valid, &again.expect("a rebuilt batch is valid"));
}

fn walk(batch: &Batch) {
    let Ok(records) = batch.records(MOST_BYTES) else { return };
    assert!(records.payload().len() <= MOST_BYTES.max(batch.bytes().len()));
    for record in &records {
        let Ok(record) = record else { return };
        for (name, value) in record.headers {
            assert!(name.len() + value.map_or(0, <[u8]>::len) <= MOST_BYTES.max(batch.bytes().len()));
        }
    }
}

fn assert_same(one: &ValidatedBatch, other: &ValidatedBatch) {
    let (one, other) = (one.records(MOST_BYTES).expect("valid"), other.records(MOST_BYTES).expect("valid"));
    let content = |record: &RecordView<'_>| {
        let headers: Vec<_> =
            record.headers.clone().map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec))).collect();
        (record.timestamp_delta, record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec), headers)
    };
    let mut count = 0;
    for (one, other) in one.iter().zip(other.iter()) {
        assert_eq!(content(&one.expect("valid")), content(&other.expect("valid")));
        count += 1;
    }
    assert_eq!((one.iter().count(), other.iter().count()), (count, count));
}

/// The first byte names the codec, the rest is what it unpacks: never more than the limit; and what is packed unpacks to itself.
pub fn compressed(data: &[u8]) {
    let Some((&codec, data)) = data.split_first() else { return };
    let codec = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][usize::from(codec) % 4];
    if let Ok(unpacked) = decompress(codec, data, MOST_BYTES) {
        assert!(unpacked.len() <= MOST_BYTES);
        if let Some(less) = unpacked.len().checked_sub(1) {
            assert!(decompress(codec, data, less).is_err(), "a limit is a limit");
        }
    }
    let mut packed = Vec::new();
    compress(Compression::new(codec), data, &mut packed).expect("anything can be packed");
    assert_eq!(decompress(codec, &packed, data.len()).as_deref(), Ok(data));
}
