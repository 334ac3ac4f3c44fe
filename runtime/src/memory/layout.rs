//! Where things lie in the guest's address space: the same run after run.
//!
//! Everything stays below 2^46, so that it also fits under an emulator or a kernel that offers 47 bits, and below
//! where Linux puts Calque itself (PIE programs at 2/3 of the address space, libraries at its top).
//!
//! | from                  | what                                                       |
//! |-----------------------|------------------------------------------------------------|
//! | 0x0000_0001_0000      | what the program's file asks for (non-PIE: 0x40_0000)      |
//! | 0x0000_1000_0000      | PIE program                                                |
//! | ... 0x0000_3fff_0000  | ELF images that `mmap` places, from the top down: interpreter, libraries |
//! | 0x0000_3fff_0000      | the vDSO                                                   |
//! | 0x0000_4000_0000      | `MAP_32BIT`, up to 0x8000_0000                             |
//! | 0x0000_7000_0000      | code memory of identical translation (x86-64 hosts)        |
//! | 0x1000_0000_0000      | brk of a PIE program                                       |
//! | ... 0x3f00_0000_0000  | mmap area, filled from its top down: heaps, stacks, data           |
//! | ... 0x3fff_ffff_f000  | stack, growing down                                        |
//!
//! Code lies in the first 2 GiB, where it is cheap to name: return addresses are immediates, and 32-bit displacements reach its data
//! from translated code.

/// Lowest address a guest may map (`vm.mmap_min_addr`'s usual value).
pub const GUEST_START: u64 = 0x1_0000;
/// First address that is not the guest's.
pub const GUEST_END: u64 = 0x4000_0000_0000;
/// Where a PIE program is loaded.
pub const PIE_BASE: u64 = 0x1000_0000;
/// End of the area that ELF images without an address of their own fill downwards.
pub const IMAGES_TOP: u64 = VDSO_BASE;
/// Where the heap of a PIE program begins: behind the program there is not enough room.
pub const PIE_BRK: u64 = 0x1000_0000_0000;
/// Top of the area that `mmap` without an address fills downwards.
pub const MMAP_TOP: u64 = 0x3f00_0000_0000;
/// Where the vDSO lies.
pub const VDSO_BASE: u64 = 0x3fff_0000;
/// Top of the main thread's stack.
pub const STACK_TOP: u64 = 0x3fff_ffff_f000;
/// Size of the main thread's stack where RLIMIT_STACK says "unlimited" or more than this (bytes).
pub const STACK_MAX: u64 = 64 << 20;
/// `MAP_32BIT` (asm/mman.h, x86 only) picks addresses in the first 2 GiB, from here up.
pub const LOW_START: u64 = 0x4000_0000;
/// End of the `MAP_32BIT` area.
pub const LOW_END: u64 = 0x8000_0000;
