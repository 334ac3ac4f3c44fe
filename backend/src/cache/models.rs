//! Every order of steps of threads that look up, link, remove and publish translations (`sync.rs`). Run by `cargo xtask test`, alone:
//!
//!     cargo test -p calque-backend --features models --lib models

use super::*;
use crate::jump_cache::JumpCache;
use loom::thread;

const CELLS: u32 = FIXED_CELLS + 4;

fn cache() -> Arc<CodeCache> {
    Arc::new(CodeCache::with_cells(1 << 16, CELLS).expect("there is memory"))
}

/// A translation of `pc` with one exit, through `cell`, to `target`.
fn translation(cache: &CodeCache, pc: u64, target: u64) -> Arc<Translation> {
    let cell = cache.reserve_cells(1, CodeKind::Tail).expect("there are cells");
    let _guard = cache.locked();
    let start = cache.memory.address(cache.memory.allocate(32).expect("there is room"));
    cache.cells.prepare(cell, GuestAddr(target), HostCode(start.0 + 16));
    cache.published(Translation {
        pc: GuestAddr(pc),
        code: start,
        kind: CodeKind::Tail,
        source: Box::default(),
        guest_insns: 1,
        flags_at_entry: FlagsAtEntry::Dead,
        cells: cell..cell + 1,
        start,
        len: 32,
        pcs: Default::default(),
        removed: AtomicBool::new(false),
        adapter: OnceLock::new(),
        incoming: Mutex::default(),
    })
}

fn cell(translation: &Translation) -> u32 {
    translation.cells.start
}

/// Where generated code goes that jumps through the exit of `from`: to the dispatcher, or into the translation that it finds there.
fn jump(cache: &CodeCache, from: &Translation) -> Option<HostCode> {
    let to = cache.cells.linked_to(cell(from));
    (to != cache.cells.stub(cell(from))).then_some(to)
}

/// Invariants 1 and 2: whoever knows that a translation is removed does not arrive at it, whatever is being linked meanwhile.
#[test]
fn models_of_links_and_removal() {
    loom::model(|| {
        let cache = cache();
        let (from, to) = (translation(&cache, 1, 2), translation(&cache, 2, 1));
        let known = Arc::new(AtomicBool::new(false));
        let linker = thread::spawn({
            let (cache, from, to) = (cache.clone(), from.clone(), to.clone());
            move || cache.link(cell(&from), &to)
        });
        let remover = thread::spawn({
            let (cache, to, known) = (cache.clone(), to.clone(), known.clone());
            move || {
                cache.remove(&to);
                known.store(true, Ordering::Release);
            }
        });
        let is_known = known.load(Ordering::Acquire);
        let at = jump(&cache, &from);
        assert!(at.is_none() || !is_known && at == Some(to.code), "{at:?}");
        linker.join().unwrap();
        remover.join().unwrap();
        assert_eq!(jump(&cache, &from), None);
    });
}

/// A shelved translation that is used again is joined anew; a link from before its removal is not there by itself.
#[test]
fn models_of_removal_and_restoration() {
    loom::model(|| {
        let cache = cache();
        let (from, to) = (translation(&cache, 1, 2), translation(&cache, 2, 1));
        cache.link(cell(&from), &to);
        let other = thread::spawn({
            let (cache, to) = (cache.clone(), to.clone());
            move || {
                cache.remove(&to);
                cache.restore(&to);
            }
        });
        cache.link(cell(&from), &to);
        other.join().unwrap();
        // Linked before the removal, or behind the restoration; never in between.
        assert!(jump(&cache, &from).is_none_or(|code| code == to.code));
        cache.remove(&to);
        assert_eq!(jump(&cache, &from), None, "who is linked is known to the translation");
    });
}

/// When a region takes a block's place, its exits lead to one of the two, and to none of them once both are removed.
#[test]
fn models_of_redirection() {
    loom::model(|| {
        let cache = cache();
        let (from, old) = (translation(&cache, 1, 2), translation(&cache, 2, 1));
        let new = translation(&cache, 2, 1);
        cache.link(cell(&from), &old);
        let compiler = thread::spawn({
            let (cache, old, new) = (cache.clone(), old.clone(), new.clone());
            move || cache.redirect(&old, &new)
        });
        let remover = thread::spawn({
            let (cache, old, new) = (cache.clone(), old.clone(), new.clone());
            move || {
                cache.remove(&old);
                cache.remove(&new);
            }
        });
        let at = jump(&cache, &from);
        assert!(at.is_none_or(|code| code == old.code || code == new.code));
        compiler.join().unwrap();
        remover.join().unwrap();
        assert_eq!(jump(&cache, &from), None);
    });
}

/// Invariant 3: a handler finds what has been published before it looks, whole, however the list grows meanwhile.
#[test]
fn models_of_lookup_by_host_pc() {
    loom::model(|| {
        let cache = cache();
        let first = translation(&cache, 1, 2).code.0;
        // As a cell, or an entry of the runtime's: how other threads get there.
        let latest = Arc::new(crate::sync::AtomicU64::new(first as u64));
        let handler = thread::spawn({
            let (cache, latest) = (cache.clone(), latest.clone());
            move || {
                let inside = latest.load(Ordering::Acquire) as usize + 4;
                let (found, pc) = cache.find_by_host_pc(inside).expect("it is published");
                assert_eq!((found.start.0 + 4, found.pc), (inside, pc));
                assert!(cache.find_by_host_pc(first - 1).is_none());
            }
        });
        for pc in [2, 3] {
            let code = translation(&cache, pc, 1).code;
            latest.store(code.0 as u64, Ordering::Release);
        }
        handler.join().unwrap();
    });
}

/// Invariant 2 of `index.rs`: what is counted is there. The reader is a thread of its own: loom looks for what may come before a load, but not
/// for what may come before a store behind a load of the same thread.
#[test]
fn models_of_a_growing_list() {
    loom::model(|| {
        let (cache, index) = (cache(), Arc::new(Index::new()));
        let reader = thread::spawn({
            let index = index.clone();
            move || {
                for i in 0..index.len() {
                    assert!(index.get(i).is_some_and(|translation| translation.pc.0 == i as u64 + 1));
                }
            }
        });
        (1..4).for_each(|pc| index.push(translation(&cache, pc, 1)));
        reader.join().unwrap();
    });
}

/// A thread's jump cache does not keep what another thread removes while it is inserted.
#[test]
fn models_of_jump_caches() {
    loom::model(|| {
        let cache = cache();
        let to = translation(&cache, 2, 1);
        let jumps = Arc::new(JumpCache::new());
        let remover = thread::spawn({
            let (cache, to, jumps) = (cache.clone(), to.clone(), jumps.clone());
            move || {
                cache.remove(&to);
                jumps.remove(to.pc);
            }
        });
        jumps.insert_usable(&to, to.code, FlagsAtEntry::Dead);
        remover.join().unwrap();
        assert_eq!(jumps.find(to.pc), None);
    });
}

/// Nor does it keep what another thread removes while it is copied from the second level to the first.
#[test]
fn models_of_jump_caches_with_two_levels() {
    loom::model(|| {
        let cache = cache();
        let [to, other] = [2, 4].map(|pc| translation(&cache, pc, 1));
        let jumps = Arc::new(JumpCache::new());
        // The first displaces nothing, the second the first, and both are in the second level then.
        for inserted in [&to, &other, &to, &other] {
            jumps.insert_usable(inserted, inserted.code, FlagsAtEntry::Dead);
        }
        let remover = thread::spawn({
            let (cache, to, jumps) = (cache.clone(), to.clone(), jumps.clone());
            move || {
                cache.remove(&to);
                jumps.remove(to.pc);
            }
        });
        let found = jumps.resolve(to.pc);
        assert!(found.is_none_or(|code| code == to.code));
        remover.join().unwrap();
        assert_eq!((jumps.find(to.pc), jumps.resolve(to.pc)), (None, None));
        assert_eq!(jumps.resolve(other.pc), Some(other.code));
    });
}
