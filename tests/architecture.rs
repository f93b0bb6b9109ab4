//! The directions of imports that docs/ARCHITECTURE.md promises, and the house rules that a test can see.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What the modules of each part may name of the crate. What a part may name, its tests may too.
const ALLOWED: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("clock", &[]),
    ("tasks", &[]),
    ("protocol", &["model", "protocol"]),
    ("groups", &["model", "groups"]),
    ("telemetry", &["model", "tasks", "telemetry"]),
    ("cluster", &["model", "cluster"]),
    ("log", &["model", "clock", "cluster", "tasks", "protocol", "log", "telemetry", "faults"]),
    ("topics", &["model", "clock", "tasks", "log", "protocol", "topics"]),
    ("coordinator", &["model", "clock", "cluster", "tasks", "groups", "coordinator", "log", "telemetry"]),
    ("net", &["tasks", "net", "telemetry"]),
    ("fuzzing", &["protocol", "groups", "storage", "net", "fuzzing"]),
    (
        "handlers",
        &[
            "model",
            "clock",
            "cluster",
            "tasks",
            "protocol",
            "groups",
            "coordinator",
            "topics",
            "log",
            "net",
            "handlers",
            "telemetry",
        ],
    ),
    (
        "storage",
        &[
            "model",
            "clock",
            "cluster",
            "tasks",
            "protocol",
            "groups",
            "coordinator",
            "topics",
            "log",
            "storage",
            "telemetry",
            "faults",
        ],
    ),
    ("faults", &["model", "log", "coordinator", "faults"]),
    ("jobs", &["model", "clock", "tasks", "log", "topics", "coordinator", "jobs"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable source folder") {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn rust_files() -> Vec<(String, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
            let part = name.split(['/', '.']).next().expect("a first component").to_owned();
            (part, name, fs::read_to_string(&path).expect("UTF-8 source"))
        })
        .collect()
}

/// The parts that a source names: `crate::part`, and `crate::{part::…, part}` over several lines.
fn imported_parts(source: &str) -> Vec<String> {
    let mut parts = Vec::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        if let Some(list) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (1, true);
            for (place, c) in list.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' => start = depth == 1,
                    c if c.is_whitespace() => {}
                    _ if start => {
                        parts.push(word(&list[place..]));
                        start = false;
                    }
                    _ => {}
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            parts.push(word(rest));
        }
    }
    parts
}

#[test]
fn imports_go_one_way() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (part, name, source) in rust_files() {
        let Some(allowed) = allowed.get(part.as_str()) else { continue };
        for imported in imported_parts(&source) {
            if !allowed.contains(&imported.as_str()) {
                wrong.push(format!("{name} imports {imported}"));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    assert!(wrong.is_empty(), "against docs/ARCHITECTURE.md:\n{}", wrong.join("\n"));
}

#[test]
fn only_the_keys_module_spells_a_key() {
    let mut wrong = Vec::new();
    for (_, name, source) in rust_files() {
        if name.starts_with("storage/redis/keys") {
            continue;
        }
        let code = source.split("#[cfg(test)]").next().expect("a first piece");
        for spelled in ["\":stream:", "}:state\"", ":catalog}", "\":group:"] {
            if code.contains(spelled) {
                wrong.push(format!("{name} spells {spelled}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_parts_have_no_input_or_output() {
    let mut wrong = Vec::new();
    for (part, name, source) in rust_files() {
        let pure = matches!(part.as_str(), "protocol" | "groups" | "model");
        let code = source.split("#[cfg(test)]").next().expect("a first piece");
        for word in ["tokio::", "redis::", "std::net", "std::fs", "SystemTime", "Instant::now"] {
            if pure && code.contains(word) {
                wrong.push(format!("{name} names {word}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
