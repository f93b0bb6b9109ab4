//! Programs run to their end, and processes looked up by what the kernel says of them.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::PATIENCE;

/// What a program said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// What Cargo built for a test of this package; tests/torture, a package of its own, is told of a program.
pub fn weir_program() -> &'static str {
    let Some(program) = option_env!("CARGO_BIN_EXE_weir") else { panic!("not a test of this package") };
    program
}

/// Runs weir to its end.
pub fn weir(arguments: &[&str]) -> Ended {
    weir_with(arguments, &[])
}

pub fn weir_with(arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
    let mut child = Command::new(weir_program())
        .args(arguments)
        .env_remove("RUST_LOG")
        .env("RUST_BACKTRACE", "0")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the weir binary");
    // What it says fits the pipes.
    let code = wait(&mut child);
    let mut said = [String::new(), String::new()];
    child.stdout.take().expect("a pipe").read_to_string(&mut said[0]).expect("text");
    child.stderr.take().expect("a pipe").read_to_string(&mut said[1]).expect("text");
    let [stdout, stderr] = said;
    Ended { code, stdout, stderr }
}

/// Waits for the child's end, at most [`PATIENCE`].
pub fn wait(child: &mut Child) -> Option<i32> {
    let mut code = None;
    let ended = eventually(|| match child.try_wait().expect("a child") {
        Some(status) => {
            code = status.code();
            true
        }
        None => false,
    });
    if !ended {
        let _ = child.kill();
        let _ = child.wait();
        panic!("the program does not end");
    }
    code
}

/// Asks until it is so, at most [`PATIENCE`].
pub fn eventually(mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// The living processes whose working directory is `folder`, which those of an embedded Redis have, with their names.
pub fn processes_in(folder: &Path) -> Vec<(u32, String)> {
    let folder = folder.canonicalize().expect("a folder");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("Linux").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == folder) {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push((pid, name.trim().to_owned()));
        }
    }
    found
}

/// The embedded server's own process.
pub fn redis_server_in(folder: &Path) -> Option<u32> {
    processes_in(folder).into_iter().find(|(_, name)| name.starts_with("redis-server")).map(|(pid, _)| pid)
}

/// The append-only file that the Redis of this folder writes on.
pub fn newest_increment_file(folder: &Path) -> PathBuf {
    let mut files: Vec<_> = fs::read_dir(folder.join("appendonlydir"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.to_string_lossy().ends_with(".incr.aof"))
        .collect();
    files.sort();
    files.pop().expect("a file")
}

pub fn signal(pid: u32, signal: &str) {
    let status = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status().expect("kill");
    assert!(status.success(), "no process {pid}");
}

/// The largest resident size of a process, in MiB.
pub fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("a running broker");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("VmHWM");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number");
    kib / 1024
}
