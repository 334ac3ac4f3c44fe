//! Linux's semantics of the mapping calls, on real memory.

use super::*;
use crate::access;
use calque_ir::{GuestAddr, GuestRange};
use nix::errno::Errno;
use std::cell::{Cell, RefCell};

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const RWX: i32 = RW | libc::PROT_EXEC;
const ANON: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
const PAGE: u64 = 4096;

fn map() -> GuestMap {
    crate::signal::host::init();
    GuestMap::new().unwrap()
}

fn anonymous(map: &GuestMap, pages: u64, prot: i32) -> GuestAddr {
    map.mmap(GuestAddr(0), pages * PAGE, prot, ANON, -1, 0).unwrap()
}

fn prots(map: &GuestMap, at: GuestAddr, pages: u64) -> Vec<Option<Prot>> {
    (0..pages).map(|i| map.mapping(at.wrapping_add(i * PAGE)).map(|m| m.prot)).collect()
}

#[test]
fn places_below_the_top_and_within_the_guest() {
    let map = map();
    let (a, b) = (anonymous(&map, 3, RW), anonymous(&map, 2, RW));
    assert!(a.0 + 3 * PAGE <= tops().mmap && b.0 + 2 * PAGE <= tops().mmap, "{a} {b}");
    assert!(a.0.abs_diff(b.0) >= 2 * PAGE, "{a} {b}");
    assert_eq!(map.mmap(GuestAddr(0), GUEST_END, RW, ANON, -1, 0), Err(Errno::ENOMEM));
    assert_eq!(map.mmap(GuestAddr(0), 0, RW, ANON, -1, 0), Err(Errno::EINVAL));
}

#[test]
fn takes_a_free_hint_and_leaves_a_used_one() {
    let map = map();
    let a = anonymous(&map, 4, RW);
    map.munmap(a.wrapping_add(PAGE), PAGE).unwrap();
    let hole = map.mmap(a.wrapping_add(PAGE), PAGE, RW, ANON, -1, 0).unwrap();
    assert_eq!(hole, a.wrapping_add(PAGE));
    assert_ne!(map.mmap(a, PAGE, RW, ANON, -1, 0).unwrap(), a);
}

#[test]
fn fixed_replaces_and_noreplace_refuses() {
    let map = map();
    let a = anonymous(&map, 2, RW);
    access::write(a, &7u32).unwrap();
    let noreplace = ANON | libc::MAP_FIXED_NOREPLACE;
    assert_eq!(map.mmap(a, PAGE, RW, noreplace, -1, 0), Err(Errno::EEXIST));
    assert_eq!(map.mmap(a, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0), Ok(a));
    assert_eq!(access::read::<u32>(a), Ok(0));
    assert_eq!(map.mmap(GuestAddr(0), PAGE, RW, ANON | libc::MAP_FIXED, -1, 0), Err(Errno::EPERM));
}

/// Somewhere in this program.
fn own_code() -> u64 {
    map as *const () as u64
}

#[test]
fn the_translator_is_out_of_reach() {
    let map = map();
    let ours = GuestAddr(std::ptr::from_ref(&map) as u64).page();
    assert!(map.mmap(ours, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0).is_err());
    assert_eq!(map.munmap(ours, PAGE), Ok(()), "munmap of nothing succeeds");
    assert!(map.mprotect(ours, PAGE, 0).is_err());
    assert!(map.mappings().is_empty(), "and has left us alone");
    for at in [ours, GuestAddr(own_code())] {
        assert_eq!(access::read::<u8>(at).unwrap_err().addr, at);
    }
    // Inside the guest's range, but not the guest's.
    let inside = anonymous(&map, 1, RW);
    let other = self::map();
    assert_eq!(other.mmap(inside, PAGE, RW, ANON | libc::MAP_FIXED, -1, 0), Err(Errno::ENOMEM));
    assert_eq!(other.munmap(inside, PAGE), Ok(()), "munmap of nothing succeeds");
    assert_eq!(access::read::<u32>(inside), Ok(0), "and has left it alone");
}

#[test]
fn protection_splits_and_reports_holes() {
    let map = map();
    let a = anonymous(&map, 3, RW);
    map.mprotect(a.wrapping_add(PAGE), PAGE, libc::PROT_READ).unwrap();
    let rw = Some(Prot::READ | Prot::WRITE);
    assert_eq!(prots(&map, a, 3), [rw, Some(Prot::READ), rw]);
    assert!(access::write(a.wrapping_add(PAGE), &1u8).is_err());
    map.munmap(a.wrapping_add(PAGE), PAGE).unwrap();
    assert_eq!(map.mprotect(a, 3 * PAGE, libc::PROT_READ), Err(Errno::ENOMEM));
    assert_eq!(
        prots(&map, a, 3),
        [Some(Prot::READ), None, Some(Prot::READ)],
        "what is mapped has changed all the same"
    );
}

#[test]
fn a_stack_is_made_executable_from_its_start() {
    let map = map();
    let a = anonymous(&map, 3, RW);
    map.mprotect(a.wrapping_add(PAGE), PAGE, RWX | 0x0100_0000).unwrap();
    let (rw, rwx) = (Some(Prot::READ | Prot::WRITE), Some(Prot::all()));
    assert_eq!(prots(&map, a, 3), [rwx, rwx, rw]);
}

#[test]
fn mremap_grows_in_place_or_moves() {
    let map = map();
    let a = anonymous(&map, 4, RW);
    map.munmap(a.wrapping_add(2 * PAGE), 2 * PAGE).unwrap();
    access::write(a, &42u64).unwrap();
    assert_eq!(map.mremap(a, 2 * PAGE, 3 * PAGE, 0, GuestAddr(0)), Ok(a));
    assert_eq!(map.mremap(a, 3 * PAGE, 64 * PAGE, 0, GuestAddr(0)), Err(Errno::ENOMEM));
    let moved = map.mremap(a, 3 * PAGE, 64 * PAGE, libc::MREMAP_MAYMOVE, GuestAddr(0)).unwrap();
    assert_ne!(moved, a);
    assert_eq!(access::read::<u64>(moved), Ok(42));
    assert!(!map.is_mapped(a, 1) && map.is_mapped(moved, 64 * PAGE));
    assert_eq!(map.mremap(moved, 64 * PAGE, PAGE, 0, GuestAddr(0)), Ok(moved));
    assert!(!map.is_mapped(moved.wrapping_add(PAGE), 1));
}

#[test]
fn brk_grows_and_shrinks() {
    let map = map();
    let start = GuestAddr(0x2000_0000_0000);
    map.set_brk_start(start);
    assert_eq!(map.brk(GuestAddr(0)), start);
    let top = start.wrapping_add(10 * PAGE + 5);
    assert_eq!(map.brk(top), top);
    access::write(start.wrapping_add(10 * PAGE), &1u8).unwrap();
    assert_eq!(map.mapping(start).unwrap().name, Some("[heap]"));
    assert_eq!(map.brk(start.wrapping_add(PAGE)), start.wrapping_add(PAGE));
    assert!(!map.is_mapped(start.wrapping_add(2 * PAGE), 1));
    assert_eq!(map.brk(GuestAddr(GUEST_END)), start.wrapping_add(PAGE), "no room: the old one");
}

#[test]
fn a_write_to_code_is_noticed() {
    let map = map();
    let a = anonymous(&map, 2, RWX);
    assert!(map.mark_code(a));
    assert!(!map.any_stale());
    assert!(access::write(a, &1u8).is_err(), "no process here whose handler could lift the protection");
    let dropped = Cell::new(0);
    let drain = || {
        map.drain_stale(|stale| {
            assert!(map.any_stale(), "until it is dropped");
            assert!(access::write(a, &1u8).is_err(), "not before it is dropped");
            dropped.set(dropped.get() + stale.len());
            assert_eq!((stale[0].start, stale[0].size()), (a, PAGE));
        });
    };
    assert!(map.unprotect_code(a, drain));
    assert_eq!(dropped.get(), 1);
    access::write(a, &1u8).unwrap();
    assert!(!map.any_stale());
}

/// What is stale.
fn stale(map: &GuestMap) -> Vec<GuestRange> {
    let taken = RefCell::default();
    map.drain_stale(|stale| *taken.borrow_mut() = stale);
    taken.into_inner()
}

/// Something that changes the code at an address, by name.
type Change = (&'static str, fn(&GuestMap, GuestAddr));

#[test]
fn whatever_changes_code_makes_it_stale() {
    #[rustfmt::skip]
    let changes: [Change; 4] = [
        ("munmap",       |map, a| map.munmap(a, PAGE).unwrap()),
        ("mprotect",     |map, a| map.mprotect(a, PAGE, RW).unwrap()),
        ("mmap",         |map, a| { map.mmap(a, PAGE, RWX, ANON | libc::MAP_FIXED, -1, 0).unwrap(); }),
        ("madvise",      |map, a| map.madvise(a, PAGE, libc::MADV_DONTNEED).unwrap()),
    ];
    for (name, change) in changes {
        let map = map();
        let a = anonymous(&map, 1, RWX);
        assert!(map.mark_code(a));
        change(&map, a);
        assert_eq!(stale(&map).len(), 1, "{name}");
    }
    let map = map();
    let a = anonymous(&map, 1, RWX);
    assert!(map.mark_code(a));
    let dropped = Cell::new(0);
    map.prepare_kernel_write(a.wrapping_add(5), 1, || dropped.set(stale(&map).len()));
    assert_eq!(dropped.get(), 1, "kernel write");
}

#[test]
fn memory_left_to_the_kernel_holds_checked_code() {
    let map = map();
    let a = anonymous(&map, 2, RWX);
    let b = a.wrapping_add(PAGE);
    assert_eq!((map.code_page(a), map.code_page(b)), (Some(CodePage::Writable), Some(CodePage::Writable)));
    let dropped = Cell::new(0);
    map.leave_to_kernel(a, 1, || dropped.set(dropped.get() + stale(&map).len()));
    assert_eq!(dropped.get(), 1);
    assert_eq!((map.code_page(a), map.code_page(b)), (Some(CodePage::Checked), Some(CodePage::Writable)));
    // It is where it has moved, and not what is mapped anew.
    let moved = map.mremap(a, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, GuestAddr(0)).unwrap();
    map.mmap(a, PAGE, RWX, ANON | libc::MAP_FIXED, -1, 0).unwrap();
    assert_eq!((map.code_page(moved), map.code_page(a)), (Some(CodePage::Checked), Some(CodePage::Writable)));
    map.leave_all_to_kernel(|| drop(stale(&map)));
    assert_eq!((map.code_page(a), map.code_page(b)), (Some(CodePage::Checked), Some(CodePage::Checked)));
}

#[test]
fn shared_memory_is_mapped_twice() {
    let map = map();
    let a = map.mmap(GuestAddr(0), PAGE, RW, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0).unwrap();
    let b = map.share(a, GuestAddr(0), 100, libc::PROT_READ, libc::MAP_PRIVATE).unwrap();
    access::write(a, &7u8).unwrap();
    assert_eq!(access::read::<u8>(b), Ok(7));
    assert!(a != b && access::write(b, &1u8).is_err());
}

#[test]
fn only_executable_pages_are_code() {
    let map = map();
    let a = anonymous(&map, 1, RW);
    assert!(!map.mark_code(a) && !map.mark_code(GuestAddr(0x1234_5000)));
}

#[test]
fn maps_text_is_the_kernels() {
    let map = map();
    let a = anonymous(&map, 1, libc::PROT_READ);
    map.set_name(a, PAGE, "[stack]");
    let end = a.0 + PAGE;
    let line = map.proc_maps();
    assert!(line.starts_with(&format!("{:x}-{end:x} r--p 00000000 00:00 0 ", a.0)), "{line}");
    assert!(line.ends_with("  [stack]\n"), "{line}");
}

/// Writes to the code page at `a` as a guest does.
fn written(map: &GuestMap, a: GuestAddr) {
    assert!(map.mark_code(a));
    map.unprotect_code(a, || drop(stale(map)));
}

#[test]
fn a_page_written_to_all_the_same_is_trusted_later_each_time() {
    let map = map();
    map.check_early();
    let a = anonymous(&map, 1, RWX);
    assert_eq!(map.trust(a), Trust::Never, "nothing has been written");
    (0..2).for_each(|_| written(&map, a));
    for patience in [1, 2, 4, 8, 16, 32, 64, 64] {
        assert_eq!(map.code_page(a), Some(CodePage::Checked));
        assert!((1..patience).all(|_| map.trust(a) == Trust::NotYet));
        assert_eq!(map.trust(a), Trust::Given);
        assert_eq!((stale(&map).len(), map.code_page(a)), (1, Some(CodePage::Writable)));
        written(&map, a);
    }
    let shared = map.mmap(GuestAddr(0), PAGE, RWX, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1, 0).unwrap();
    (0..2).for_each(|_| written(&map, shared));
    map.before_fork();
    assert_eq!((map.code_page(shared), map.trust(shared)), (Some(CodePage::Checked), Trust::Never));
}
