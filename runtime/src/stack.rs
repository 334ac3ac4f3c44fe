//! The initial stack: strings, auxiliary vector, environment, arguments, count (`create_elf_tables` in
//! `fs/binfmt_elf.c`; System V ABI, AMD64 supplement, 3.4.1).
//!
//! From high to low addresses: a null word; the path executed; environment strings; argument strings; platform name;
//! 16 random bytes; and, from an address that is a multiple of 16 upwards, argc, argv, NULL, envp, NULL, auxv.

use crate::access;
use crate::cpuid;
use crate::memory::{STACK_MAX, tops};
use crate::process::Process;
use calque_ir::addr::GUEST_PAGE;
use calque_ir::state::XCR0_AVX512;
use calque_ir::{GuestAddr, GuestRange};
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{getegid, geteuid, getgid, getuid};
use std::ffi::{CStr, CString};

/// What the auxiliary vector says about the program.
pub(crate) struct Facts {
    pub(crate) phdr: u64,
    pub(crate) phent: u64,
    pub(crate) phnum: u64,
    /// Bias of the dynamic linker, 0 without one.
    pub(crate) base: u64,
    pub(crate) entry: u64,
    /// Where the vDSO lies.
    pub(crate) vdso: u64,
    /// Whether the stack is executable.
    pub(crate) executable: bool,
    /// The threads' state components.
    pub(crate) xcr0: u64,
}

/// Size of the stack where RLIMIT_STACK cannot be read (bytes).
const STACK_DEFAULT: u64 = 8 << 20;

/// Maps the main thread's stack.
pub(crate) fn map(process: &Process, executable: bool) -> Result<GuestRange, Errno> {
    let limit = getrlimit(Resource::RLIMIT_STACK).map_or(STACK_DEFAULT, |(soft, _)| soft);
    let size = limit.clamp(STACK_DEFAULT, STACK_MAX).next_multiple_of(GUEST_PAGE);
    let top = tops().stack;
    let start = GuestAddr(top - size);
    let prot = libc::PROT_READ | libc::PROT_WRITE | if executable { libc::PROT_EXEC } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    process.mem.mmap(start, size, prot, flags, -1, 0)?;
    process.mem.set_name(start, size, "[stack]");
    Ok(GuestRange { start, end: GuestAddr(top) })
}

/// Strings that grow down from the top of the stack.
struct Strings {
    /// Bytes below the top, last first.
    reversed: Vec<u8>,
    top: u64,
}

impl Strings {
    fn push(&mut self, bytes: &[u8]) -> u64 {
        self.reversed.extend(bytes.iter().rev());
        self.top - self.reversed.len() as u64
    }

    fn push_str(&mut self, text: &CStr) -> u64 {
        self.push(text.to_bytes_with_nul())
    }
}

/// Fills the stack; returns the stack pointer and the auxiliary vector.
pub(crate) fn fill(
    stack: GuestRange,
    argv: &[CString],
    envp: &[CString],
    execfn: &CStr,
    facts: &Facts,
) -> Result<(GuestAddr, Vec<(u64, u64)>), Errno> {
    let mut strings = Strings { reversed: Vec::new(), top: stack.end.0 };
    strings.push(&[0; 8]);
    let execfn = strings.push_str(execfn);
    // Last string first, so that they lie in order of rising addresses.
    let env: Vec<u64> = envp.iter().rev().map(|s| strings.push_str(s)).collect();
    let args: Vec<u64> = argv.iter().rev().map(|s| strings.push_str(s)).collect();
    let platform = strings.push_str(c"x86_64");
    let mut seed = [0u8; 16];
    crate::gate::random(&mut seed);
    let random = strings.push(&seed);
    let auxv = auxv(facts, execfn, platform, random);

    let mut words = vec![argv.len() as u64];
    words.extend(args.iter().rev());
    words.push(0);
    words.extend(env.iter().rev());
    words.push(0);
    words.extend(auxv.iter().flat_map(|&(kind, value)| [kind, value]));
    let bottom = stack.end.0 - strings.reversed.len() as u64;
    let sp = (bottom - 8 * words.len() as u64) & !15;
    // A quarter of the stack, as `bprm_stack_limits`.
    if stack.end.0 - sp > stack.size() / 4 {
        return Err(Errno::E2BIG);
    }
    strings.reversed.reverse();
    access::write_bytes(GuestAddr(bottom), &strings.reversed)?;
    access::write_bytes(GuestAddr(sp), bytemuck::cast_slice(&words))?;
    Ok((GuestAddr(sp), auxv))
}

/// AT_* numbers that `libc` does not have (uapi/linux/auxvec.h).
const AT_MINSIGSTKSZ: u64 = 51;

/// Room that a signal frame takes (bytes), where there is no AVX-512: a constant of the kernel's (asm/signal.h).
const MIN_SIGNAL_STACK: u64 = 2048;
/// The same with AVX-512: what the kernel computes (`arch/x86/kernel/signal.c`, `init_sigframe_size`).
const MIN_SIGNAL_STACK_AVX512: u64 = 3632;

/// AT_SYSINFO_EHDR: the vDSO (asm/auxvec.h; the C library has it for x86-64 only).
const AT_SYSINFO_EHDR: u64 = 33;

/// The guest may write its FS and GS bases (asm/hwcap2.h); CPUID only says that the processor can.
const HWCAP2_FSGSBASE: u64 = 1 << 1;

/// The auxiliary vector.
fn auxv(facts: &Facts, execfn: u64, platform: u64, random: u64) -> Vec<(u64, u64)> {
    let min_signal_stack = if facts.xcr0 == XCR0_AVX512 { MIN_SIGNAL_STACK_AVX512 } else { MIN_SIGNAL_STACK };
    #[rustfmt::skip]
    let rows = [
        (AT_SYSINFO_EHDR,   facts.vdso),
        (AT_MINSIGSTKSZ,    min_signal_stack),
        (libc::AT_HWCAP,    u64::from(cpuid::cpuid(1, 0, facts.xcr0)[3])),
        (libc::AT_PAGESZ,   GUEST_PAGE),
        (libc::AT_CLKTCK,   100),
        (libc::AT_PHDR,     facts.phdr),
        (libc::AT_PHENT,    facts.phent),
        (libc::AT_PHNUM,    facts.phnum),
        (libc::AT_BASE,     facts.base),
        (libc::AT_FLAGS,    0),
        (libc::AT_ENTRY,    facts.entry),
        (libc::AT_UID,      getuid().as_raw().into()),
        (libc::AT_EUID,     geteuid().as_raw().into()),
        (libc::AT_GID,      getgid().as_raw().into()),
        (libc::AT_EGID,     getegid().as_raw().into()),
        (libc::AT_SECURE,   0),
        (libc::AT_RANDOM,   random),
        (libc::AT_HWCAP2,   HWCAP2_FSGSBASE),
        (libc::AT_EXECFN,   execfn),
        (libc::AT_PLATFORM, platform),
        (libc::AT_NULL,     0),
    ];
    rows.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::GuestMap;
    use calque_ir::state::XCR0_AVX2;

    fn word(at: u64) -> u64 {
        access::read(GuestAddr(at)).unwrap()
    }

    fn text(at: u64) -> String {
        String::from_utf8(access::read_cstr(GuestAddr(at), 4096).unwrap()).unwrap()
    }

    #[test]
    fn reads_as_the_psabi_says() {
        crate::signal::host::init();
        let map = GuestMap::new().unwrap();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let size = 1 << 20;
        let start = map.mmap(GuestAddr(0), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0).unwrap();
        let stack = GuestRange::new(start, size).unwrap();
        let facts = Facts {
            phdr: 0x40,
            phent: 56,
            phnum: 3,
            base: 0,
            entry: 0x1234,
            vdso: 0x5000,
            executable: false,
            xcr0: XCR0_AVX2,
        };
        for count in 0..4 {
            let argv: Vec<CString> =
                ["prog", "a", "bc"].iter().take(count).map(|s| CString::new(*s).unwrap()).collect();
            let envp = [c"X=1".to_owned(), c"Y=22".to_owned()];
            let (sp, auxv) = fill(stack, &argv, &envp, c"./prog", &facts).unwrap();
            assert_eq!(sp.0 % 16, 0);
            assert_eq!(word(sp.0), argv.len() as u64);
            let mut at = sp.0 + 8;
            for arg in &argv {
                assert_eq!(text(word(at)), arg.to_str().unwrap());
                at += 8;
            }
            assert_eq!((word(at), word(at + 24)), (0, 0));
            assert_eq!((text(word(at + 8)), text(word(at + 16))), ("X=1".into(), "Y=22".into()));
            at += 32;
            for (kind, value) in &auxv {
                assert_eq!((word(at), word(at + 8)), (*kind, *value));
                at += 16;
            }
            let value = |kind| auxv.iter().find(|(k, _)| *k == kind).unwrap().1;
            assert_eq!(text(value(libc::AT_EXECFN)), "./prog");
            assert_eq!(text(value(libc::AT_PLATFORM)), "x86_64");
            assert_eq!(value(libc::AT_ENTRY), 0x1234);
            assert_eq!(word(stack.end.0 - 8), 0);
        }
        let long = vec![CString::new(vec![b'x'; 1000]).unwrap(); 300];
        assert_eq!(fill(stack, &long, &[], c"p", &facts).unwrap_err(), Errno::E2BIG);
    }
}
