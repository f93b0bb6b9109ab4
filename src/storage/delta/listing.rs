//! What lies in a table's log folder, as the names in it tell: its versions, and the checkpoints that are whole.

use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Default)]
pub(super) struct Listing {
    versions: BTreeSet<i64>,
    checkpoints: BTreeMap<i64, Pieces>,
}

/// The files of one version's checkpoints: others may write them in parts.
#[derive(Debug, Default)]
struct Pieces {
    classic: bool,
    /// By how many there are of them: those that are there.
    parts: BTreeMap<u32, BTreeSet<u32>>,
    v2: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) version: i64,
    pub(super) form: Form,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Names of Parquet files that together have all actions.
    Parquet(Vec<String>),
    /// With sidecars. Only tables that ask for reader version 3 have it.
    V2,
}

enum Kind {
    Version,
    Classic,
    Part { number: u32, of: u32 },
    V2,
}

impl Listing {
    /// Names that mean nothing to a reader are left out.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut listing = Self::default();
        for (version, kind) in names.into_iter().filter_map(parse) {
            if let Kind::Version = kind {
                listing.versions.insert(version);
                continue;
            }
            let pieces = listing.checkpoints.entry(version).or_default();
            match kind {
                Kind::Version => {}
                Kind::Classic => pieces.classic = true,
                Kind::Part { number, of } => drop(pieces.parts.entry(of).or_default().insert(number)),
                Kind::V2 => pieces.v2 = true,
            }
        }
        listing
    }

    pub(super) fn has_version(&self, version: i64) -> bool {
        self.versions.contains(&version)
    }

    /// -1 for none.
    pub(super) fn newest_version(&self) -> i64 {
        let checkpoint = self.checkpoints().first().map_or(-1, |checkpoint| checkpoint.version);
        self.versions.last().map_or(-1, |version| *version).max(checkpoint)
    }

    /// Those that are whole, the newest first.
    pub(super) fn checkpoints(&self) -> Vec<Checkpoint> {
        let whole = self.checkpoints.iter().rev();
        whole
            .filter_map(|(version, pieces)| Some(Checkpoint { version: *version, form: pieces.form(*version)? }))
            .collect()
    }
}

impl Pieces {
    fn form(&self, version: i64) -> Option<Form> {
        if self.classic {
            return Some(Form::Parquet(vec![classic_name(version)]));
        }
        let whole = self.parts.iter().find(|(of, numbers)| numbers.iter().copied().eq(1..=**of));
        if let Some((of, numbers)) = whole {
            let name = |number: &u32| format!("{version:020}.checkpoint.{number:010}.{of:010}.parquet");
            return Some(Form::Parquet(numbers.iter().map(name).collect()));
        }
        self.v2.then_some(Form::V2)
    }
}

pub(super) fn version_name(version: i64) -> String {
    format!("{version:020}.json")
}

pub(super) fn classic_name(version: i64) -> String {
    format!("{version:020}.checkpoint.parquet")
}

fn parse(name: &str) -> Option<(i64, Kind)> {
    let (version, rest) = name.split_once('.')?;
    let version = version.parse().ok().filter(|parsed| format!("{parsed:020}") == version)?;
    let kind = match rest.split('.').collect::<Vec<_>>().as_slice() {
        ["json"] => Kind::Version,
        ["checkpoint", "parquet"] => Kind::Classic,
        ["checkpoint", number, of, "parquet"] => Kind::Part { number: number.parse().ok()?, of: of.parse().ok()? },
        ["checkpoint", _, "parquet" | "json"] => Kind::V2,
        _ => return None,
    };
    Some((version, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(names: &[&str]) -> Listing {
        Listing::of(names.iter().copied())
    }

    #[test]
    fn the_newest_whole_checkpoint_is_told_from_those_that_lack_parts() {
        let part =
            |version: i64, number: u32, of: u32| format!("{version:020}.checkpoint.{number:010}.{of:010}.parquet");
        let found = listing(&[
            "00000000000000000003.checkpoint.parquet",
            &part(5, 1, 2),
            &part(5, 2, 2),
            &part(7, 1, 3),
            &part(7, 3, 3),
            "00000000000000000008.json",
            "_last_checkpoint",
        ]);
        let expected = [
            Checkpoint { version: 5, form: Form::Parquet(vec![part(5, 1, 2), part(5, 2, 2)]) },
            Checkpoint { version: 3, form: Form::Parquet(vec![classic_name(3)]) },
        ];
        assert_eq!(found.checkpoints(), expected);
        assert_eq!(found.newest_version(), 8);
        assert!(found.has_version(8) && !found.has_version(7));
    }

    #[test]
    fn a_checkpoint_with_sidecars_is_known_by_its_name() {
        let found = listing(&["00000000000000000009.checkpoint.80a083e8-7026-4e79-81be-64bd76c43a11.parquet"]);
        assert_eq!(found.checkpoints(), [Checkpoint { version: 9, form: Form::V2 }]);
    }

    #[test]
    fn what_is_no_version_and_no_checkpoint_is_left_out() {
        let found = listing(&[
            "00000000000000000001.crc",
            "00000000000000000001.00000000000000000004.compacted.json",
            "_commit_1.json.tmp",
            "1.json",
            "+0000000000000000001.json",
            "00000000000000000001.checkpoint.0000000001.x.parquet",
            "",
        ]);
        assert_eq!((found.newest_version(), found.checkpoints()), (-1, vec![]));
    }
}
