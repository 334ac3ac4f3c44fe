//! From a host pc inside a unit to the guest instruction, in about one byte a guest instruction.
//!
//! A unit's record is a run of items: `len | extra << 4` for an instruction of `len` guest bytes whose host code is `extra` bytes longer and
//! needs no repair; `len | 0xf0`, a count, and pairs of (host bytes, [`Rule`]) for a rewritten one. Bytes whose lower half is zero, [`PC`] and
//! others, begin what is not an instruction or more frequent than to be listed.

/// What the guest's state is, short of one host instruction of a rewritten sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Phase {
    /// As before the guest instruction.
    Before,
    /// The guest instruction is done; it goes on at `Area::rip`.
    Done,
    /// Neither: let the host instruction run.
    Step,
    /// As before the guest instruction, whose bytes are being read: what faults is its fetch.
    Fetch,
}

/// A register of the guest's that is not in its place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Away {
    Nothing,
    /// This general register is in `Area::spill`.
    Spilled(u8),
    /// RCX is in R11.
    Rcx,
}

/// The state at one host instruction of a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    pub(super) phase: Phase,
    pub(super) away: Away,
    /// The guest instruction has been counted already.
    pub(super) counted: bool,
}

/// In a rule's byte: `counted`.
const COUNTED: u8 = 0x80;

impl Rule {
    pub(super) const BEFORE: Rule = Rule { phase: Phase::Before, away: Away::Nothing, counted: false };
    pub(super) const FETCH: Rule = Rule { phase: Phase::Fetch, away: Away::Nothing, counted: false };
    pub(super) const STEP: Rule = Rule { phase: Phase::Step, away: Away::Nothing, counted: false };
    pub(super) const DONE: Rule = Rule { phase: Phase::Done, away: Away::Nothing, counted: false };
    pub(super) const DONE_RCX_AWAY: Rule = Rule { phase: Phase::Done, away: Away::Rcx, counted: false };

    pub(super) const BEFORE_RCX_AWAY: Rule = Rule { phase: Phase::Before, away: Away::Rcx, counted: false };

    pub(super) fn before_spilled(reg: u8) -> Rule {
        Rule { phase: Phase::Before, away: Away::Spilled(reg), counted: false }
    }

    pub(super) fn fetch_spilled(reg: u8) -> Rule {
        Rule { phase: Phase::Fetch, ..Rule::before_spilled(reg) }
    }

    fn encode(self) -> u8 {
        let away = match self.away {
            Away::Nothing => 0,
            Away::Rcx => 1,
            Away::Spilled(reg) => 2 + reg,
        };
        self.phase as u8 | away << 2 | if self.counted { COUNTED } else { 0 }
    }

    fn decode(byte: u8) -> Rule {
        let phase = match byte & 3 {
            0 => Phase::Before,
            1 => Phase::Done,
            2 => Phase::Step,
            _ => Phase::Fetch,
        };
        let away = match (byte & !COUNTED) >> 2 {
            0 => Away::Nothing,
            1 => Away::Rcx,
            reg => Away::Spilled(reg - 2),
        };
        Rule { phase, away, counted: byte & COUNTED != 0 }
    }
}

/// Most bytes with one rule in an item.
const LONGEST: usize = u8::MAX as usize;

/// The host instructions of a sequence as they are written: their lengths and rules.
#[derive(Default)]
pub(super) struct Sequence {
    list: Vec<(usize, Rule)>,
    /// Offset in the code of what has no rule yet.
    from: usize,
}

impl Sequence {
    /// An empty one, from offset `at` of the code on.
    pub(super) fn at(at: usize) -> Sequence {
        Sequence { list: Vec::new(), from: at }
    }

    /// Starts again, from offset `at` of the code on.
    pub(super) fn begin(&mut self, at: usize) {
        self.list.clear();
        self.from = at;
    }

    /// What was written up to offset `to` has `rule`.
    pub(super) fn rule(&mut self, to: usize, rule: Rule) {
        let mut len = to - self.from;
        self.from = to;
        if let Some((before, same)) = self.list.last_mut()
            && *same == rule
        {
            let more = len.min(LONGEST - *before);
            *before += more;
            len -= more;
        }
        while len != 0 {
            let part = len.min(LONGEST);
            self.list.push((part, rule));
            len -= part;
        }
    }

    pub(super) fn list(&self) -> &[(usize, Rule)] {
        &self.list
    }
}

/// Where a host pc stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Site {
    pub(super) pc: u64,
    pub(super) rule: Rule,
    /// Guest instructions before it, from the last guest pc on that does not follow from what is before.
    pub(super) before: u32,
}

/// Marks an item with its own list of host instructions.
const LISTED: u8 = 0xf0;

/// A guest pc that does not follow from what is before: eight bytes.
const PC: u8 = 0x00;
/// One below 4 GiB: four bytes.
const LOW_PC: u8 = 0x10;
/// No guest instruction, and host instructions that are to run: how many bytes of them.
const STEPS: u8 = 0x20;
/// An instruction with the first of the sequences `KNOWN`, and the others from there on: its guest bytes.
const FIRST_KNOWN: u8 = 0x30;

/// Direct calls, and returns.
const KNOWN: [&[(usize, Rule)]; 2] = [
    &[(5, Rule::BEFORE), (14, Rule::STEP), (12, Rule::DONE), (17, Rule::DONE_RCX_AWAY)],
    &[(2, Rule::BEFORE), (9, Rule::STEP), (22, Rule::DONE), (1, Rule::STEP)],
];

/// Appends an instruction whose host code is a copy, or needs no repair.
pub(super) fn put(items: &mut Vec<u8>, guest: usize, host: usize) {
    match host.checked_sub(guest) {
        Some(extra @ 0..15) => items.push((guest | extra << 4) as u8),
        _ => put_sequence(items, guest, &[(host, Rule::BEFORE)]),
    }
}

/// Appends a rewritten instruction: the length and rule of each of its host instructions.
pub(super) fn put_sequence(items: &mut Vec<u8>, guest: usize, host: &[(usize, Rule)]) {
    let byte = |n: usize| u8::try_from(n).expect("a sequence is short, and so are its parts");
    if let (0, &[(len, Rule::STEP)]) = (guest, host) {
        return items.extend([STEPS, byte(len)]);
    }
    if let Some(known) = KNOWN.iter().position(|known| *known == host) {
        return items.extend([FIRST_KNOWN + (known as u8) * 0x10, byte(guest)]);
    }
    items.extend([guest as u8 | LISTED, byte(host.len())]);
    items.extend(host.iter().flat_map(|&(len, rule)| [byte(len), rule.encode()]));
}

/// Appends a guest pc that does not follow from what is before.
pub(super) fn put_pc(items: &mut Vec<u8>, pc: u64) {
    match u32::try_from(pc) {
        Ok(low) => {
            items.push(LOW_PC);
            items.extend(low.to_le_bytes());
        }
        Err(_) => {
            items.push(PC);
            items.extend(pc.to_le_bytes());
        }
    }
}

/// What an item says.
enum Item<'a> {
    Pc(u64),
    /// Guest bytes, and host bytes without repair.
    Plain(u8, u8),
    /// Guest bytes, and pairs of host bytes and encoded rule.
    Listed(u8, &'a [u8]),
    Known(u8, &'static [(usize, Rule)]),
    /// Host bytes.
    Steps(u8),
}

/// The first item, and the others.
fn take(items: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (&head, tail) = items.split_first()?;
    Some(match head {
        PC => {
            let (bytes, tail) = tail.split_first_chunk()?;
            (Item::Pc(u64::from_le_bytes(*bytes)), tail)
        }
        LOW_PC => {
            let (bytes, tail) = tail.split_first_chunk()?;
            (Item::Pc(u32::from_le_bytes(*bytes).into()), tail)
        }
        _ if head & LISTED == LISTED => {
            let (count, tail) = tail.split_first()?;
            let (list, tail) = tail.split_at_checked(2 * usize::from(*count))?;
            (Item::Listed(head & 15, list), tail)
        }
        _ if head & 15 != 0 => (Item::Plain(head & 15, (head & 15) + (head >> 4)), tail),
        _ => {
            let (&byte, tail) = tail.split_first()?;
            let item = match head {
                STEPS => Item::Steps(byte),
                _ => Item::Known(byte, KNOWN.get(usize::from((head - FIRST_KNOWN) >> 4))?),
            };
            (item, tail)
        }
    })
}

/// The rule of the host instruction `offset` bytes into the unit, if it is one of this list, which begins at `host`; moves that behind the list.
fn rule_at(offset: usize, host: &mut usize, mut list: impl Iterator<Item = (usize, Rule)>) -> Option<Rule> {
    let found = list.find(|&(len, _)| {
        *host += len;
        offset < *host
    });
    found.map(|(_, rule)| rule)
}

/// Finds what stands `offset` bytes into the unit that begins at guest pc `pc`; `None` behind its last instruction.
pub(super) fn find(items: &[u8], pc: u64, offset: usize) -> Option<Site> {
    let (mut pc, mut host, mut rest, mut before) = (pc, 0, items, 0);
    while let Some((item, tail)) = take(rest) {
        rest = tail;
        let one = |len: u8, rule| std::iter::once((len.into(), rule));
        let (guest, rule) = match item {
            Item::Pc(other) => {
                (pc, before) = (other, 0);
                continue;
            }
            Item::Plain(guest, len) => (guest, rule_at(offset, &mut host, one(len, Rule::BEFORE))),
            Item::Steps(len) => (0, rule_at(offset, &mut host, one(len, Rule::STEP))),
            Item::Known(guest, list) => (guest, rule_at(offset, &mut host, list.iter().copied())),
            Item::Listed(guest, list) => {
                let pairs = list.chunks_exact(2).map(|pair| (pair[0].into(), Rule::decode(pair[1])));
                (guest, rule_at(offset, &mut host, pairs))
            }
        };
        if let Some(rule) = rule {
            return Some(Site { pc, rule, before });
        }
        pc = pc.wrapping_add(guest.into());
        before += u32::from(guest != 0);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_each_host_instruction() {
        let mut items = Vec::new();
        put(&mut items, 3, 3);
        let counted = Rule { counted: true, ..Rule::before_spilled(15) };
        let list =
            [(9, Rule::BEFORE), (8, Rule::STEP), (8, Rule::DONE_RCX_AWAY), (4, counted), (2, Rule::fetch_spilled(1))];
        put_sequence(&mut items, 1, &list);
        put_pc(&mut items, 0x9000);
        put(&mut items, 2, 40);
        put_pc(&mut items, 0x3eff_0000_1000);
        put_sequence(&mut items, 5, KNOWN[0]);
        put_pc(&mut items, 0x2000);
        put_sequence(&mut items, 1, KNOWN[1]);
        put_sequence(&mut items, 0, &[(29, Rule::STEP)]);
        put(&mut items, 1, 1);
        let at = |offset| find(&items, 0x1000, offset);
        let site = |pc, rule, before| Some(Site { pc, rule, before });
        assert_eq!(at(0), site(0x1000, Rule::BEFORE, 0));
        assert_eq!(at(2), site(0x1000, Rule::BEFORE, 0));
        assert_eq!(at(3), site(0x1003, Rule::BEFORE, 1));
        assert_eq!(at(12), site(0x1003, Rule::STEP, 1));
        assert_eq!(at(20), site(0x1003, Rule::DONE_RCX_AWAY, 1));
        assert_eq!(at(31), site(0x1003, counted, 1));
        assert_eq!(at(32), site(0x1003, Rule::fetch_spilled(1), 1));
        assert_eq!(at(34), site(0x9000, Rule::BEFORE, 0));
        assert_eq!(at(73), site(0x9000, Rule::BEFORE, 0));
        assert_eq!(at(74), site(0x3eff_0000_1000, Rule::BEFORE, 0));
        assert_eq!(at(79), site(0x3eff_0000_1000, Rule::STEP, 0));
        assert_eq!(at(93), site(0x3eff_0000_1000, Rule::DONE, 0));
        assert_eq!(at(105), site(0x3eff_0000_1000, Rule::DONE_RCX_AWAY, 0));
        assert_eq!(at(122), site(0x2000, Rule::BEFORE, 0));
        assert_eq!(at(124), site(0x2000, Rule::STEP, 0));
        assert_eq!(at(133), site(0x2000, Rule::DONE, 0));
        assert_eq!(at(155), site(0x2000, Rule::STEP, 0));
        assert_eq!(at(156), site(0x2001, Rule::STEP, 1));
        assert_eq!(at(185), site(0x2001, Rule::BEFORE, 1));
        assert_eq!(at(186), None);
    }
}
