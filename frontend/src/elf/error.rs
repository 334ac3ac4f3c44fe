//! Why a file is not an x86-64 program that can be run. Each message reads well behind "FILE: ".

use goblin::elf::header::*;
use std::fmt;
use thiserror::Error;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ElfError {
    #[error("the file is empty")]
    Empty,
    #[error("cannot be read: {0}")]
    Unreadable(std::io::ErrorKind),
    #[error("a script, not an ELF program")]
    Script,
    #[error("a text file without a '#!' line: name the interpreter to run it with")]
    Text,
    #[error("{0}, not a Linux ELF program")]
    OtherFormat(&'static str),
    #[error("not an ELF program")]
    NotElf,
    #[error("{0}, not an x86-64 one")]
    Machine(Machine),
    #[error("a 32-bit program: calque runs 64-bit x86-64 programs only")]
    Bits32,
    #[error("an x32 program (32-bit pointers): calque runs 64-bit x86-64 programs only")]
    X32,
    #[error("a program for {0}, not for Linux")]
    OtherSystem(&'static str),
    #[error("not executable: {0}")]
    Type(FileType),
    #[error("damaged ELF header: {0}")]
    BadHeader(&'static str),
    #[error("truncated ELF file: {what} ends at byte {end:#x}, the file at {size:#x}")]
    Truncated { what: Part, end: u64, size: u64 },
    #[error("no loadable segment in the ELF file")]
    NothingToLoad,
    #[error("hostile or damaged ELF file: segment {index} {what}")]
    BadSegment { index: usize, what: &'static str },
    #[error("hostile or damaged ELF file: segments {0} and {1} overlap in memory")]
    Overlap(usize, usize),
    #[error("hostile or damaged ELF file: {0:#x} bytes of address space wanted")]
    TooLarge(u64),
    #[error("hostile or damaged ELF file: bad name of the dynamic linker")]
    BadInterpreter,
    #[error("no entry point: a library that is not made to be run")]
    NoEntry,
    #[error("hostile or damaged ELF file: the entry point {0:#x} lies in no executable segment")]
    BadEntry(u64),
}

/// The part of a file that is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Header,
    ProgramHeaders,
    Segment(usize),
    Interpreter,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Header => f.write_str("the ELF header"),
            Part::ProgramHeaders => f.write_str("the program header table"),
            Part::Segment(i) => write!(f, "segment {i}"),
            Part::Interpreter => f.write_str("the dynamic linker's name"),
        }
    }
}

/// A machine that is not x86-64, by its ELF number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    pub number: u16,
    pub bits: u8,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[rustfmt::skip]
        let name = match (self.number, self.bits) {
            (EM_386 | EM_IAMCU, _)         => "a 32-bit x86",
            (EM_AARCH64, 64)               => "an AArch64",
            (EM_AARCH64, _)                => "an AArch64 ILP32",
            (EM_ARM, _)                    => "a 32-bit ARM",
            (EM_RISCV, 64)                 => "a 64-bit RISC-V",
            (EM_RISCV, _)                  => "a 32-bit RISC-V",
            (EM_PPC64, _)                  => "a 64-bit PowerPC",
            (EM_PPC, _)                    => "a 32-bit PowerPC",
            (EM_S390, _)                   => "an IBM Z (s390x)",
            (EM_MIPS | EM_MIPS_RS3_LE, 64) => "a 64-bit MIPS",
            (EM_MIPS | EM_MIPS_RS3_LE, _)  => "a 32-bit MIPS",
            (EM_LOONGARCH, _)              => "a LoongArch",
            (EM_SPARC | EM_SPARC32PLUS | EM_SPARCV9, _) => "a SPARC",
            (EM_IA_64, _)                  => "an Itanium",
            (EM_68K, _)                    => "a 68000",
            (EM_SH, _)                     => "a SuperH",
            (EM_PARISC, _)                 => "a PA-RISC",
            (EM_BPF, _)                    => "a BPF",
            (EM_AMDGPU | EM_CUDA, _)       => "a GPU",
            (other, bits)                  => return write!(f, "a {bits}-bit program for ELF machine {other}"),
        };
        write!(f, "{name} program")
    }
}

/// An ELF file type other than a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileType(pub u16);

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ET_REL => f.write_str("a relocatable object file (link it first)"),
            ET_CORE => f.write_str("a core dump"),
            other => write!(f, "an ELF file of type {other:#x}"),
        }
    }
}
