//! Every order of steps of threads that make units, join, remove and give them back (`crate::sync`). Run by `cargo xtask test`, alone:
//!
//!     cargo test -p calque-backend --features models --lib models
//!
//! What threads that run units see is where displacements lead ([`CodeMemory::leads_to`]).

use super::*;
use crate::sync::AtomicBool;
use loom::thread;
use std::sync::Arc;

/// `je TO`, then `ret`; and where there is a `ret` alone.
const FROM: u64 = 0x1000;
const TO: u64 = 0x2000;
/// `je FAR`, then `ret`.
const OTHER: u64 = 0x3000;
const FAR: u64 = 0x4000;

fn code_at(pc: u64) -> Vec<u8> {
    let jump_if_equal = |to: u64| {
        let mut code = vec![0x0f, 0x84];
        code.extend((to as u32).wrapping_sub(pc as u32 + 6).to_le_bytes());
        code.push(0xc3);
        code
    };
    match pc {
        FROM => jump_if_equal(TO),
        OTHER => jump_if_equal(FAR),
        _ => vec![0xc3],
    }
}

fn make(blocks: &Blocks, pc: u64) -> u64 {
    let mut read = |at: u64, buf: &mut [u8]| {
        let code = code_at(pc);
        let left = code.get((at - pc) as usize..).unwrap_or_default();
        let len = left.len().min(buf.len());
        buf[..len].copy_from_slice(&left[..len]);
        len
    };
    match blocks.translate(pc, None, Source::Noticed { code: &mut read, word: &|_| None }, &mut || true) {
        Ok(Some(Made { found: Found::Unit(start), .. })) => start,
        other => panic!("a unit, not {other:?}"),
    }
}

fn blocks() -> Arc<Blocks> {
    Arc::new(Blocks::new(1 << 20, Sum::InMemory).expect("there is memory"))
}

/// A direct exit: its number, where its displacement is, and its stub.
#[derive(Clone, Copy)]
struct Way {
    exit: u32,
    at: u32,
    stub: u32,
}

/// The exit that leads to `target`.
fn way(blocks: &Blocks, target: u64) -> Way {
    let state = blocks.lock();
    let exit = (0..state.exits.len() as u32).find(|&exit| state.target(exit) == target).expect("there is such an exit");
    Way { exit, at: state.exits[exit as usize].place(), stub: state.stub(exit) }
}

/// The unit that a thread comes to that leaves by this exit; none: the dispatcher.
fn leads_to(blocks: &Blocks, way: Way) -> Option<u64> {
    let place = blocks.memory.leads_to(way.at);
    (place != way.stub).then(|| blocks.memory.base() + u64::from(place))
}

/// Who knows that a unit is removed does not come to it, whatever is being joined meanwhile.
#[test]
fn models_of_joined_and_removed_units() {
    loom::model(|| {
        let blocks = blocks();
        make(&blocks, FROM);
        let to = make(&blocks, TO);
        let way = way(&blocks, TO);
        let known = Arc::new(AtomicBool::new(false));
        let joiner = thread::spawn({
            let blocks = blocks.clone();
            move || blocks.follow(way.exit, TO, blocks.generation())
        });
        let remover = thread::spawn({
            let (blocks, known) = (blocks.clone(), known.clone());
            move || {
                blocks.remove(TO, TO + 1);
                known.store(true, Ordering::Release);
            }
        });
        let is_known = known.load(Ordering::Acquire);
        let at = leads_to(&blocks, way);
        assert!(at.is_none() || !is_known && at == Some(to), "{at:?}");
        joiner.join().unwrap();
        remover.join().unwrap();
        assert_eq!((leads_to(&blocks, way), blocks.find(TO)), (None, None));
    });
}

/// Two threads may make the same unit. Whichever an exit is joined to, nobody comes to it once the bytes have changed.
#[test]
fn models_of_units_made_twice() {
    loom::model(|| {
        let blocks = blocks();
        make(&blocks, FROM);
        let way = way(&blocks, TO);
        let maker = |blocks: Arc<Blocks>| {
            move || {
                make(&blocks, TO);
                blocks.follow(way.exit, TO, blocks.generation());
            }
        };
        let other = thread::spawn(maker(blocks.clone()));
        maker(blocks.clone())();
        other.join().unwrap();
        assert!(matches!(blocks.find(TO), Some(Found::Unit(_))));
        blocks.remove(TO, TO + 1);
        assert_eq!((leads_to(&blocks, way), blocks.find(TO)), (None, None));
    });
}

/// A thread that comes out of code memory before a reset joins nothing behind it: the number of its exit is another's by then.
#[test]
fn models_of_exits_and_a_reset() {
    loom::model(|| {
        let blocks = blocks();
        make(&blocks, FROM);
        make(&blocks, TO);
        let (old, generation) = (way(&blocks, TO), blocks.generation());
        let late = thread::spawn({
            let blocks = blocks.clone();
            move || blocks.follow(old.exit, TO, generation)
        });
        blocks.reset();
        make(&blocks, OTHER);
        make(&blocks, TO);
        let new = way(&blocks, FAR);
        assert_eq!(new.exit, old.exit);
        late.join().unwrap();
        assert_eq!(leads_to(&blocks, new), None);
    });
}

/// Computed jumps come to a unit through its landing while there is the unit, and to its successor behind that.
#[test]
fn models_of_landings_and_removal() {
    loom::model(|| {
        let blocks = blocks();
        make(&blocks, TO);
        let lander = thread::spawn({
            let blocks = blocks.clone();
            move || blocks.landing(TO)
        });
        blocks.remove(TO, TO + 1);
        let landed = lander.join().unwrap();
        let jump = || blocks.lock().landings.get(&TO).copied();
        assert_eq!(landed.is_some(), jump().is_some());
        let Some(jump) = jump() else { return };
        let leads_to = || blocks.memory.base() + u64::from(blocks.memory.leads_to(jump));
        assert_eq!(leads_to(), blocks.gone);
        let again = make(&blocks, TO);
        assert_eq!(leads_to(), again);
    });
}
