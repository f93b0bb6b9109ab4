//! Which of a Redis Cluster's slots a key lies in.

/// Slots of a cluster.
pub(in crate::storage::redis) const SLOTS: u16 = 16_384;

/// One of a cluster's slots; 0 for every key where there is no cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// The slot of a key: of what stands between its first `{` and the next `}`, unless that is nothing.
    pub fn of(key: &[u8]) -> Self {
        let tag = memchr::memchr(b'{', key).and_then(|open| {
            let rest = key.get(open + 1..)?;
            rest.get(..memchr::memchr(b'}', rest)?).filter(|tag| !tag.is_empty())
        });
        Self(crc16(tag.unwrap_or(key)) % SLOTS)
    }

    pub(in crate::storage::redis) fn new(number: u16) -> Option<Self> {
        (number < SLOTS).then_some(Self(number))
    }

    pub(in crate::storage::redis) fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl std::fmt::Display for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// CRC-16/XMODEM: polynomial 0x1021, nothing reflected, from 0.
const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        let [high, _] = crc.to_be_bytes();
        (crc << 8) ^ TABLE[usize::from(high ^ byte)]
    })
}

/// Some of a cluster's slots.
#[derive(Clone, PartialEq, Eq)]
pub struct SlotSet(Box<[u64; 256]>);

impl SlotSet {
    pub fn all() -> Self {
        Self(Box::new([u64::MAX; 256]))
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    pub fn contains(&self, slot: Slot) -> bool {
        self.0[slot.index() / 64] & Self::bit(slot) != 0
    }

    pub(in crate::storage::redis) fn insert(&mut self, slot: Slot) {
        self.0[slot.index() / 64] |= Self::bit(slot);
    }

    pub fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0.iter()).for_each(|(word, more)| *word |= more);
    }

    fn bit(slot: Slot) -> u64 {
        1 << (slot.index() % 64)
    }
}

impl Default for SlotSet {
    fn default() -> Self {
        Self(Box::new([0; 256]))
    }
}

impl std::fmt::Debug for SlotSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} slots", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_redis_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(Slot::of(b"somekey"), Slot(11_058));
        assert_eq!(Slot::of(b"foo{hash_tag}"), Slot(2_515));
        assert_eq!(Slot::of(b"bar{hash_tag}"), Slot(2_515));
        assert_eq!(Slot::of(b""), Slot(0));
    }

    #[test]
    fn a_hash_tag_is_what_stands_in_the_first_braces_unless_that_is_nothing() {
        let same = |a: &str, b: &str| assert_eq!(Slot::of(a.as_bytes()), Slot::of(b.as_bytes()), "{a} {b}");
        same("{user1000}.following", "user1000");
        same("foo{{bar}}zap", "{bar");
        same("foo{bar}{zap}", "bar");
        for whole in ["foo{}{bar}", "foo{bar", "foo}bar{"] {
            assert_eq!(Slot::of(whole.as_bytes()), Slot(crc16(whole.as_bytes()) % SLOTS));
        }
    }

    #[test]
    fn a_set_has_what_was_put_into_it() {
        let mut set = SlotSet::default();
        assert!(set.is_empty());
        for number in [0, 63, 64, SLOTS - 1] {
            set.insert(Slot(number));
        }
        let mut other = SlotSet::default();
        other.insert(Slot(5));
        set.extend(&other);
        assert_eq!(set.len(), 5);
        assert!((0..SLOTS).all(|number| set.contains(Slot(number)) == [0, 5, 63, 64, SLOTS - 1].contains(&number)));
        assert_eq!(Slot::new(SLOTS), None);
    }
}
