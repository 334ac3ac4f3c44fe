//! Where things lie in the guest's address space: the same run after run.
//!
//! | from                  | what                                                       |
//! |-----------------------|------------------------------------------------------------|
//! | 0x0000_0001_0000      | what the program's file asks for (non-PIE: 0x40_0000)      |
//! | 0x0000_1000_0000      | PIE program                                                |
//! | ... 0x0000_3fff_0000  | ELF images that `mmap` places, from the top down: interpreter, libraries |
//! | 0x0000_3fff_0000      | the vDSO                                                   |
//! | 0x0000_4000_0000      | `MAP_32BIT`, up to 0x8000_0000                             |
//! | 0x0000_6000_0000      | code memory of identical translation (x86-64 hosts)        |
//! | 0x5500_0000_0000      | brk of a PIE program                                       |
//! | ... 0x7ed0_0000_0000  | mmap area, filled from its top down: heaps, stacks, data   |
//! | ... 0x7ed8_0000_0000  | stack, growing down                                        |
//! | 0x7ed9_0000_0000      | a page of the controller's (`lockstep`)                    |
//!
//! Code lies in the first 2 GiB, where it is cheap to name: return addresses are immediates, and 32-bit displacements reach its data
//! from translated code.
//!
//! What is above lies where Linux has it, because programs count on that: the shadows of the sanitizers take most of the rest (AddressSanitizer
//! from 0x7fff_7000 to 0x1000_7fff_8000, MemorySanitizer and ThreadSanitizer up to 0x5000_0000_0000 and more), clisp has its heap at
//! 0x1000_0000_0000. ThreadSanitizer takes memory for the program's only from 0x7e80_0000_0000, and from 0x5500_0000_0000 to
//! 0x5680_0000_0000.
//!
//! Calque itself is where the kernel puts it: on x86-64 inside the guest's part, elsewhere above. [`is_guests`] tells what it keeps. With more
//! random bits than Linux's default of 28 (`vm.mmap_rnd_bits`) that may be where the guest's stack would be; then stack and mmap area
//! end at 0x4000_0000_0000.

use std::ops::Range;
use std::sync::OnceLock;

/// Lowest address a guest may map (`vm.mmap_min_addr`'s usual value).
pub const GUEST_START: u64 = 0x1_0000;
/// First address that is not the guest's: the end of user space on x86-64 (`TASK_SIZE_MAX`, four-level page tables).
pub const GUEST_END: u64 = 0x7fff_ffff_f000;
/// Where a PIE program is loaded.
pub const PIE_BASE: u64 = 0x1000_0000;
/// End of the area that ELF images without an address of their own fill downwards.
pub const IMAGES_TOP: u64 = VDSO_BASE;
/// Where the heap of a PIE program begins: behind the program there is not enough room.
pub const PIE_BRK: u64 = 0x5500_0000_0000;
/// Where the vDSO lies.
pub const VDSO_BASE: u64 = 0x3fff_0000;
/// Size of the main thread's stack where RLIMIT_STACK says "unlimited" or more than this (bytes).
pub const STACK_MAX: u64 = 64 << 20;
/// `MAP_32BIT` (asm/mman.h, x86 only) picks addresses in the first 2 GiB, from here up.
pub const LOW_START: u64 = 0x4000_0000;
/// End of the `MAP_32BIT` area.
pub const LOW_END: u64 = 0x8000_0000;

/// Where stacks, heaps and data lie.
#[derive(Clone, Copy, Debug)]
pub struct Tops {
    /// Top of the main thread's stack.
    pub stack: u64,
    /// Top of the area that `mmap` without an address fills downwards.
    pub mmap: u64,
}

/// Best first.
const TOPS: [Tops; 2] = [
    Tops { stack: 0x7ed8_0000_0000, mmap: 0x7ed0_0000_0000 },
    Tops { stack: 0x3fff_ffff_f000, mmap: 0x3f00_0000_0000 },
];

/// What is wanted below the top of the mmap area without any of Calque's in it (bytes).
const MMAP_ROOM: u64 = 64 << 30;

/// How far from where the kernel has put something of Calque's it may put the next (bytes): Calque's share of memory, and then some.
const NEIGHBOURHOOD: u64 = 128 << 30;

/// A page that the guest cannot have.
pub(crate) const CONTROLLERS_PAGE: u64 = 0x7ed9_0000_0000;

/// Where the kernel may put more, beside something of Calque's.
pub(crate) fn neighbourhood(at: u64) -> Range<u64> {
    at.saturating_sub(NEIGHBOURHOOD)..at.saturating_add(NEIGHBOURHOOD)
}

struct Kept {
    /// What Calque keeps for itself: around its image and heap, where the kernel maps memory for it, and around its stack.
    ranges: [Range<u64>; 4],
    /// Up to here everything is the guest's.
    lowest: u64,
    tops: Tops,
}

fn kept() -> &'static Kept {
    static KEPT: OnceLock<Kept> = OnceLock::new();
    KEPT.get_or_init(|| {
        let on_stack = 0u8;
        let [image, mapped, stack] =
            [kept as *const () as u64, super::map::probe(), &raw const on_stack as u64].map(neighbourhood);
        let page = CONTROLLERS_PAGE..CONTROLLERS_PAGE + calque_ir::addr::GUEST_PAGE;
        let ranges = [image, mapped, stack, page];
        let lowest = ranges.iter().map(|range| range.start).fold(GUEST_END, u64::min);
        let tops = tops_beside(&ranges);
        Kept { ranges, lowest, tops }
    })
}

/// The first of [`TOPS`] that none of these ranges is in the way of.
fn tops_beside(kept: &[Range<u64>]) -> Tops {
    let is_free = |tops: &&Tops| !overlaps(kept, tops.mmap - MMAP_ROOM, tops.stack);
    *TOPS.iter().find(is_free).unwrap_or(&TOPS[TOPS.len() - 1])
}

fn overlaps(ranges: &[Range<u64>], start: u64, end: u64) -> bool {
    ranges.iter().any(|range| start < range.end && range.start < end)
}

/// Whether what lies from `start` to `end` is the guest's to name, mapped or not.
#[inline]
pub fn is_guests(start: u64, end: u64) -> bool {
    let kept = kept();
    start <= end && (end <= kept.lowest || end <= GUEST_END && !overlaps(&kept.ranges, start, end))
}

/// Whether an address is the guest's to name.
#[inline]
pub fn is_guest_address(at: u64) -> bool {
    at < GUEST_END && is_guests(at, at + 1)
}

/// Where stacks, heaps and data lie in this process.
pub fn tops() -> Tops {
    kept().tops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stack_and_mmap_area_give_way_to_the_translator() {
        // Where Linux puts a program's mappings with 28 random bits, and where it may with 32.
        for (mapped, stack) in [(0x7efb_f7ff_f000, 0x7ed8_0000_0000), (0x7ed8_1000_0000, 0x3fff_ffff_f000)] {
            let tops = tops_beside(&[neighbourhood(0x5555_5555_4000), neighbourhood(mapped)]);
            assert_eq!(tops.stack, stack, "{mapped:#x}");
        }
    }

    #[test]
    fn the_translator_keeps_its_image_stack_and_mappings() {
        let (local, boxed) = (0u8, Box::new(0u8));
        for ours in [kept as *const () as u64, &raw const local as u64, &raw const *boxed as u64, CONTROLLERS_PAGE] {
            assert!(!is_guest_address(ours) && !is_guests(ours - 1, ours + 1), "{ours:#x}");
        }
        for theirs in [GUEST_START, PIE_BASE, 0x2000_0000_0000, tops().mmap - 1, tops().stack - 1] {
            assert!(is_guest_address(theirs), "{theirs:#x}");
        }
        assert!(!is_guest_address(GUEST_END) && is_guests(GUEST_START, GUEST_START));
    }
}
