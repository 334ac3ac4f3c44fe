//! ELF files: what `execve` would do with one, as a *plan* that the runtime carries out.
//!
//! The loader only reads: [`LoadPlan::parse`] turns the bytes of a file into a checked list of segments, the entry
//! point and what the auxiliary vector needs, or into an [`ElfError`] that says in one line what the file is instead.
//! goblin does the reading; the rules are those of Linux (`fs/binfmt_elf.c`), made stricter where Linux lets a broken
//! program start and die at once: a user is better served by a sentence than by a SIGBUS.
//!
//! # Invariants of a plan
//!
//! 1. There is at least one segment, and no two share a byte of guest memory. (They may share a page.)
//! 2. `filesz <= memsz`, `offset + filesz` lies inside the file, `vaddr + memsz` inside user space, and
//!    `vaddr` and `offset` agree in their low 12 bits, so that each can be mapped page by page.
//! 3. The entry lies in an executable segment.
//! 4. Nothing here panics or allocates by a number from the file, whatever the bytes (`tests::mutations`).

mod error;
mod parse;
#[cfg(test)]
mod tests;

pub use error::ElfError;

use calque_ir::GuestAddr;
use std::path::PathBuf;

/// First address that a user program cannot have: `TASK_SIZE_MAX` of x86-64 (`arch/x86/include/asm/page_64.h`).
pub const USER_END: u64 = 0x7fff_ffff_f000;

/// How to put one ELF file into guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// Whether addresses are final.
    pub kind: ImageKind,
    /// What to map, in the file's order.
    pub segments: Vec<Segment>,
    /// First instruction (before a bias is added).
    pub entry: GuestAddr,
    /// Where the program headers lie in guest memory, if a segment holds them (AT_PHDR).
    pub phdr: Option<GuestAddr>,
    /// Number of program headers (AT_PHNUM).
    pub phnum: u16,
    /// Size of one in bytes (AT_PHENT).
    pub phentsize: u16,
    /// The dynamic linker that the program asks for.
    pub interpreter: Option<PathBuf>,
    /// Whether the stack has to be executable (PT_GNU_STACK).
    pub stack: StackKind,
    /// Largest alignment that a segment asks for, a power of two of at least a page.
    pub align: u64,
}

/// Whether an image can be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageKind {
    /// ET_EXEC: addresses are final.
    Fixed,
    /// ET_DYN: a bias is added to every address.
    PositionIndependent,
}

/// What the program asks of its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackKind {
    /// Readable and writable; also where nothing is said (`arch/x86/include/asm/elf.h`, column x86_64).
    Data,
    /// Executable, too.
    Executable,
}

/// One PT_LOAD entry with a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Guest address of the first byte, before a bias is added.
    pub vaddr: GuestAddr,
    /// Bytes in memory; those past `filesz` are zero.
    pub memsz: u64,
    /// Where the bytes lie in the file.
    pub offset: u64,
    /// How many there are.
    pub filesz: u64,
    /// Access that the program has.
    pub prot: Prot,
}

impl Segment {
    /// First address behind the segment; cannot overflow (I2).
    pub fn end(&self) -> GuestAddr {
        GuestAddr(self.vaddr.0 + self.memsz)
    }
}

/// Access to a segment's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Prot {
    pub read: bool,
    pub write: bool,
    pub exec: bool,
}

impl LoadPlan {
    /// Lowest and first-behind-highest guest address of the image, before a bias is added.
    pub fn span(&self) -> (GuestAddr, GuestAddr) {
        let low = self.segments.iter().map(|s| s.vaddr).min();
        let high = self.segments.iter().map(Segment::end).max();
        (low.unwrap_or_default(), high.unwrap_or_default())
    }
}
