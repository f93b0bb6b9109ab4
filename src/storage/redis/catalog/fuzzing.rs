//! The catalog's hashes as anybody may have left them.

use super::encoding::{decode_resource, decode_topic, decode_unfinished, decode_values, encode_change};
use crate::topics::store::Change;

/// A name in the first line, what it stands for in the rest. What is read and written is the same.
pub fn catalog(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (name, text) = text.split_once('\n').unwrap_or((text, ""));
    if let Ok(topic) = decode_topic(name, text) {
        let arguments = written(&Change::Create(topic.clone()));
        assert_eq!(decode_topic(name, &arguments[3]), Ok(topic));
    }
    let _ = decode_unfinished(name, text);
    if let (Ok(resource), Ok(new)) = (decode_resource(name), decode_values(text)) {
        let arguments = written(&Change::Configure { resource: resource.clone(), old: new.clone(), new: new.clone() });
        assert_eq!(decode_resource(&arguments[1]), Ok(resource));
        assert_eq!(decode_values(&arguments[3]), Ok(new));
    }
}

/// The change's kind and its arguments.
fn written(change: &Change) -> Vec<String> {
    let mut call = redis::Cmd::new();
    encode_change(&mut call, change);
    call.args_iter()
        .map(|argument| match argument {
            redis::Arg::Simple(bytes) => String::from_utf8(bytes.to_vec()).expect("text"),
            _ => String::new(),
        })
        .collect()
}
