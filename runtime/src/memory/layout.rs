//! Where things lie in the guest's address space: the same run after run.
//!
//! Everything stays below 2^46, so that it also fits under an emulator or a kernel that offers 47 bits, and below
//! where Linux puts Calque itself (PIE programs at 2/3 of the address space, libraries at its top).
//!
//! | from                  | what                                                       |
//! |-----------------------|------------------------------------------------------------|
//! | 0x0000_0001_0000      | what the program's file asks for (non-PIE: 0x40_0000)      |
//! | 0x1000_0000_0000      | PIE program, then brk                                      |
//! | ... 0x3f00_0000_0000  | mmap area, filled from its top down: interpreter, libraries, heaps |
//! | 0x3f80_0000_0000      | the vDSO                                                   |
//! | ... 0x3fff_ffff_f000  | stack, growing down                                        |

/// Lowest address a guest may map (`vm.mmap_min_addr`'s usual value).
pub const GUEST_START: u64 = 0x1_0000;
/// First address that is not the guest's.
pub const GUEST_END: u64 = 0x4000_0000_0000;
/// Where a PIE program is loaded.
pub const PIE_BASE: u64 = 0x1000_0000_0000;
/// Top of the area that `mmap` without an address fills downwards.
pub const MMAP_TOP: u64 = 0x3f00_0000_0000;
/// Where the vDSO lies: above what `mmap` fills, below the stack.
pub const VDSO_BASE: u64 = 0x3f80_0000_0000;
/// Top of the main thread's stack.
pub const STACK_TOP: u64 = 0x3fff_ffff_f000;
/// Size of the main thread's stack where RLIMIT_STACK says "unlimited" or more than this (bytes).
pub const STACK_MAX: u64 = 64 << 20;
/// `MAP_32BIT` (asm/mman.h, x86 only) picks addresses in the first 2 GiB, from here up.
pub const LOW_START: u64 = 0x4000_0000;
/// End of the `MAP_32BIT` area.
pub const LOW_END: u64 = 0x8000_0000;
