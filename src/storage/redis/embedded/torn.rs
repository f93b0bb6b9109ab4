//! The end of the append-only file after a death in the middle of a write.
//!
//! Redis cuts off a command that was written in part, and leaves what was written whole before it of the same transaction: a `MULTI`
//! without its `EXEC`. At the start after the next, all that came after it would be taken for a part of that transaction. So Weir cuts
//! off whole transactions, before the server starts (ADR 25).

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Seek},
    path::{Path, PathBuf},
};

use super::APPEND_ONLY_FOLDER;

/// Cuts a command, or a transaction, that was written in part off the newest file; answers how many bytes that were. What is damaged
/// otherwise is left to Redis, which tells of it.
pub(super) fn cut(data_dir: &Path) -> io::Result<u64> {
    const BUFFER: usize = 256 << 10;
    let Some(path) = newest(&data_dir.join(APPEND_ONLY_FOLDER))? else { return Ok(0) };
    let file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        file => file?,
    };
    let length = file.metadata()?.len();
    let Some(whole) = whole(BufReader::with_capacity(BUFFER, &file), length)? else { return Ok(0) };
    if whole < length {
        file.set_len(whole)?;
        file.sync_all()?;
    }
    Ok(length.saturating_sub(whole))
}

/// The file that the server wrote last, as its manifest says: `file appendonly.aof.2.incr.aof seq 2 type i`.
fn newest(folder: &Path) -> io::Result<Option<PathBuf>> {
    let manifest = match fs::read_to_string(folder.join("appendonly.aof.manifest")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        manifest => manifest?,
    };
    let newest = manifest.lines().rev().find_map(|line| match *line.split(' ').collect::<Vec<_>>() {
        ["file", name, "seq", _, "type", "i", ..] => Some(folder.join(name)),
        _ => None,
    });
    Ok(newest)
}

/// Where the last command ends that is whole, and in no transaction without an end. None where something else stands there.
fn whole(file: impl BufRead + Seek, length: u64) -> io::Result<Option<u64>> {
    let mut commands = Commands { file, at: 0 };
    let mut whole = 0;
    let mut is_in_transaction = false;
    loop {
        match commands.next() {
            Ok(Some(Kind::Multi)) => is_in_transaction = true,
            Ok(Some(Kind::Exec)) => is_in_transaction = false,
            Ok(Some(Kind::Other)) => {}
            Ok(None) => return Ok(Some(whole)),
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::UnexpectedEof => Ok(Some(whole)),
                    io::ErrorKind::InvalidData => Ok(None),
                    _ => Err(error),
                };
            }
        }
        if !is_in_transaction && commands.at <= length {
            whole = commands.at;
        }
    }
}

enum Kind {
    Multi,
    Exec,
    Other,
}

struct Commands<F> {
    file: F,
    /// Where the next one begins; behind the file's end if the last one lacks its end.
    at: u64,
}

impl<F: BufRead + Seek> Commands<F> {
    /// # Errors
    /// `UnexpectedEof` in the middle of a command, `InvalidData` where there is none.
    fn next(&mut self) -> io::Result<Option<Kind>> {
        match self.file.fill_buf()?.first() {
            None => return Ok(None),
            // A remark: when what follows was written.
            Some(b'#') => {
                while self.byte()? != b'\n' {}
                return Ok(Some(Kind::Other));
            }
            Some(_) => {}
        }
        let arguments = self.number(b'*')?;
        let mut kind = Kind::Other;
        for _ in 0..arguments {
            let length = self.number(b'$')?;
            if arguments == 1 && length <= 5 {
                kind = self.word(length)?;
            } else {
                self.skip(length)?;
            }
            self.skip(2)?;
        }
        Ok(Some(kind))
    }

    fn word(&mut self, length: u64) -> io::Result<Kind> {
        let word: Vec<u8> = (0..length).map(|_| self.byte()).collect::<Result<_, _>>()?;
        Ok(match word.as_slice() {
            b"MULTI" => Kind::Multi,
            b"EXEC" => Kind::Exec,
            _ => Kind::Other,
        })
    }

    fn skip(&mut self, bytes: u64) -> io::Result<()> {
        let forward = bytes.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        self.file.seek_relative(forward).map_err(|_| io::ErrorKind::InvalidData)?;
        self.at += bytes;
        Ok(())
    }

    /// The number behind this mark, on a line of its own.
    fn number(&mut self, mark: u8) -> io::Result<u64> {
        if self.byte()? != mark {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut number: u64 = 0;
        loop {
            number = match self.byte()? {
                digit @ b'0'..=b'9' => number.saturating_mul(10).saturating_add(u64::from(digit - b'0')),
                b'\r' => break,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
        }
        if self.byte()? == b'\n' { Ok(number) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn byte(&mut self) -> io::Result<u8> {
        let byte = *self.file.fill_buf()?.first().ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.consume(1);
        self.at += 1;
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn command(words: &[&[u8]]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend([format!("${}\r\n", word.len()).as_bytes(), word, b"\r\n"].concat());
        }
        bytes
    }

    /// Commands, and where each ends; the fourth to the seventh are one transaction.
    fn written() -> (Vec<u8>, Vec<u64>) {
        let commands: &[&[&[u8]]] = &[
            &[b"SELECT", b"0"],
            &[b"SET", b"a", b"*1\r\n$5\r\nMULTI\r\n"],
            &[b"DBSIZE"],
            &[b"MULTI"],
            &[b"XADD", b"s", b"1-0", b"", b"a line\n"],
            &[b"SET", b"a", b"*1\r\n$4\r\nEXEC\r\n"],
            &[b"EXEC"],
            &[b"SET", b"a", &[0; 1000]],
        ];
        let mut bytes = Vec::new();
        let ends = commands.iter().map(|words| {
            bytes.extend(command(words));
            bytes.len() as u64
        });
        let ends = ends.collect();
        (bytes, ends)
    }

    #[test]
    fn a_file_that_ends_anywhere_is_whole_up_to_a_command_or_transaction() {
        let (bytes, ends) = written();
        for length in 0..=bytes.len() {
            let outside = ends.iter().enumerate().filter(|(index, _)| !(3..6).contains(index)).map(|(_, end)| *end);
            let expected = outside.filter(|end| *end <= length as u64).max().unwrap_or(0);
            let file = BufReader::with_capacity(16, Cursor::new(&bytes[..length]));
            assert_eq!(whole(file, length as u64).expect("no error"), Some(expected), "of {length} bytes");
        }
    }

    #[test]
    fn what_is_no_command_is_left_alone() {
        for end in [&b"\0\0\0\n"[..], b"*2\r\n$3\r\nabcd\r\n$1\r\na\r\n", b"*x\r\n", b"*1\r\n:1\r\n", b"*-1\r\n"] {
            let mut bytes = [command(&[b"DBSIZE"]).as_slice(), end].concat();
            bytes.extend(command(&[b"DBSIZE"]));
            assert_eq!(whole(Cursor::new(&bytes), bytes.len() as u64).expect("no error"), None, "{end:?}");
        }
    }

    #[test]
    fn the_newest_file_of_the_manifest_is_cut() {
        let data_dir = tempfile::tempdir().expect("a folder");
        assert_eq!(cut(data_dir.path()).expect("nothing there"), 0);
        let folder = data_dir.path().join(APPEND_ONLY_FOLDER);
        fs::create_dir(&folder).expect("made");
        let name = |number: u32| format!("appendonly.aof.{number}.incr.aof");
        let manifest = format!(
            "file appendonly.aof.1.base.rdb seq 1 type b\nfile {} seq 9 type i\nfile {} seq 10 type i\n",
            name(9),
            name(10)
        );
        fs::write(folder.join("appendonly.aof.manifest"), manifest).expect("written");
        assert_eq!(cut(data_dir.path()).expect("no file yet"), 0);
        let torn = [command(&[b"DBSIZE"]), command(&[b"MULTI"])].concat();
        for number in [9, 10] {
            fs::write(folder.join(name(number)), &torn).expect("written");
        }
        assert_eq!(cut(data_dir.path()).expect("cut"), 15);
        assert_eq!(fs::read(folder.join(name(10))).expect("read"), command(&[b"DBSIZE"]));
        assert_eq!(fs::read(folder.join(name(9))).expect("read"), torn);
        assert_eq!(cut(data_dir.path()).expect("nothing more"), 0);
    }
}
