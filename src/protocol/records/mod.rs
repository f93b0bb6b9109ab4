//! Record batches of format v2. Being written; this is what others name.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

#[derive(Clone, Debug)]
pub struct ValidatedBatch {}
