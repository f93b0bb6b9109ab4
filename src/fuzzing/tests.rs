//! Every seed, and what becomes of it when it is cut and changed here and there, for a moment: so that the targets can't rot, and run
//! where there is no libFuzzer. `UPDATE_CORPUS=1 cargo test --lib fuzzing` writes the seeds of requests and batches anew.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{TARGETS, requests};
use crate::protocol::{
    api,
    records::{BatchBuilder, BatchOptions, Codec, Compression, NewRecord, ProducerStamp, compress},
};

/// As in the program: decoding relies on an allocator that hands out address space (docs/ARCHITECTURE.md, "Memory").
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// For each target.
const TIME: Duration = Duration::from_millis(400);

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let files = fs::read_dir(corpus(target)).unwrap_or_else(|error| panic!("the corpus of {target}: {error}"));
    let mut paths: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a readable seed")).collect()
}

fn mutated(seed: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.random_range(1..=4) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..6) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.random()),
            2 => bytes.splice(at..at, other.iter().take(16).copied()).for_each(drop),
            _ if bytes.is_empty() => {}
            3 => {
                let at = at % bytes.len();
                bytes[at] = [0, 0x7f, 0x80, 0xff][random.random_range(0..4)];
            }
            4 => {
                let at = at % bytes.len();
                bytes[at] ^= 1 << random.random_range(0..8);
            }
            _ => drop(bytes.remove(at % bytes.len())),
        }
    }
    bytes
}

#[test]
fn every_seed_and_what_is_like_it_is_read_or_refused() {
    let number: u64 = rand::random();
    for (name, target) in TARGETS {
        let seeds = seeds(name);
        assert!(!seeds.is_empty(), "{name} has seeds");
        seeds.iter().for_each(|seed| target(seed));
        let mut random = StdRng::seed_from_u64(number);
        let deadline = Instant::now() + TIME;
        while Instant::now() < deadline {
            let [one, other] = [(); 2].map(|()| &seeds[random.random_range(0..seeds.len())]);
            let bytes = mutated(one, other, &mut random);
            if let Err(panic) = std::panic::catch_unwind(|| target(&bytes)) {
                eprintln!("{name}, seed {number}: {}", bytes.escape_ascii());
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[test]
fn each_target_has_its_program_and_its_corpus() {
    let programs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    let mut names: Vec<String> = fs::read_dir(programs)
        .expect("the programs")
        .flatten()
        .map(|file| file.path().file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    assert_eq!(names, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    assert!(TARGETS.iter().all(|(name, _)| corpus(name).is_dir()));
}

fn batch(codec: Codec, count: i64, producer: Option<ProducerStamp>) -> Vec<u8> {
    let mut builder =
        BatchBuilder::new(BatchOptions { producer, compression: Compression::new(codec), ..BatchOptions::default() });
    for offset in 0..count {
        let headers = [(&b"trace"[..], Some(&b"1"[..])), (b"empty", None)];
        let value = format!("{{\"number\":{offset}}}");
        let record = NewRecord {
            offset,
            timestamp: 1_700_000_000_000 + offset,
            key: (offset % 2 == 0).then_some(b"key".as_slice()),
            value: Some(value.as_bytes()),
            headers: headers.iter().copied(),
        };
        builder.push(record).expect("it is small");
    }
    builder.finish().expect("it has a record").to_vec()
}

/// What the seeds of requests and batches are made of.
fn made() -> Vec<(&'static str, String, Vec<u8>)> {
    let mut all = Vec::new();
    for api in api::SERVED {
        for version in [api.versions.0, api.versions.1] {
            all.push(("request", format!("{:?}-{version}", api.key), requests::empty(api, version).to_vec()));
        }
    }
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let stamp = ProducerStamp { producer_id: 7, producer_epoch: 0, base_sequence: 3 };
        for (choice, count, producer) in [(0, 1, None), (0x30, 5, Some(stamp))] {
            let bytes = [&[choice][..], &batch(codec, count, producer)].concat();
            all.push(("records", format!("{codec:?}-{count}"), bytes));
        }
        let mut packed = Vec::new();
        compress(Compression::new(codec), &b"to be packed and unpacked ".repeat(20), &mut packed).expect("packed");
        let letter = match codec {
            Codec::Gzip => 0,
            Codec::Snappy => 1,
            Codec::Lz4 => 2,
            _ => 3,
        };
        all.push(("compressed", format!("{codec:?}"), [&[letter][..], &packed].concat()));
    }
    all
}

#[test]
fn seeds_are_what_this_version_writes() {
    for (target, name, bytes) in made() {
        let path = corpus(target).join(&name);
        if std::env::var_os("UPDATE_CORPUS").is_some() {
            fs::create_dir_all(corpus(target)).expect("a folder");
            fs::write(&path, &bytes).expect("written");
        }
        assert!(path.is_file(), "{target}/{name}: UPDATE_CORPUS=1 cargo test --lib fuzzing");
    }
}
