//! A group's hashes as anybody may have left them.

use super::encoding::{Hash, encode_write, loaded};
use crate::coordinator::store::{GroupWrite, Loaded};

/// Lines of `field=value`, those of the offsets behind an empty line. What is read and written is the same.
pub fn group(data: &[u8]) {
    let mut hashes = [Hash::new(), Hash::new()];
    let mut place = 0;
    for line in data.split(|byte| *byte == b'\n') {
        match line.iter().position(|byte| *byte == b'=') {
            Some(at) => {
                hashes[place].insert(line[..at].to_vec(), line[at + 1..].to_vec());
            }
            None => place = 1,
        }
    }
    let [record, offsets] = hashes;
    let Loaded::Group(epoch, stored) = loaded(record, offsets) else { return };
    let write = GroupWrite {
        expected: None,
        record: Some(stored.record.clone()),
        offsets: stored.offsets.iter().map(|(at, offset)| (at, Some(offset.clone()))).collect(),
    };
    let mut call = redis::Cmd::new();
    encode_write(&mut call, &write);
    let (record, offsets) = hashes_of(&call, epoch.0);
    let Loaded::Group(_, again) = loaded(record, offsets) else { panic!("what was written can be read") };
    assert_eq!(format!("{:?}", again.record), format!("{:?}", stored.record));
    assert_eq!(again.offsets, stored.offsets);
}

/// What the arguments of a write make of a group.
fn hashes_of(call: &redis::Cmd, epoch: i64) -> (Hash, Hash) {
    let arguments: Vec<Vec<u8>> = call
        .args_iter()
        .filter_map(|argument| match argument {
            redis::Arg::Simple(bytes) => Some(bytes.to_vec()),
            _ => None,
        })
        .collect();
    let count = |place: usize| -> usize {
        std::str::from_utf8(&arguments[place]).ok().and_then(|text| text.parse().ok()).expect("a count")
    };
    let pairs = |from: usize, count: usize| -> Hash {
        arguments[from..from + count].chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
    };
    // The count of all, the expected epoch, the count of the record's fields.
    let fields = count(2);
    let mut record = pairs(3, fields);
    record.insert(b"epoch".to_vec(), epoch.to_string().into_bytes());
    (record, pairs(4 + fields, count(3 + fields)))
}
