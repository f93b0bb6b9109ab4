#![no_main]

// Part of the safety of decoding: docs/ARCHITECTURE.md, "Memory".
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

libfuzzer_sys::fuzz_target!(|data: &[u8]| weir::fuzzing::frames(data));
