//! A hand-made ELF file, real ones where the machine has them, and both broken in many ways.

use super::*;

/// A little-endian writer for test images.
struct Image(Vec<u8>);

impl Image {
    /// A program of one code segment (index 0) at 0x400000 and one data segment with bss (index 1) at 0x601000.
    fn new() -> Self {
        let mut image = Image(vec![0; 0x1100]);
        image.0[..16].copy_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        for (at, value) in [(16, 2u16), (18, 62), (52, 64), (54, 56), (56, 2), (58, 64)] {
            image.u16(at, value);
        }
        image.u32(20, 1).u64(24, 0x40_0100).u64(32, 64);
        image.phdr(0, 1, 5, 0, 0x40_0000, 0x200, 0x200);
        image.phdr(1, 1, 6, 0x1000, 0x60_1000, 0x100, 0x3000);
        image
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) -> &mut Self {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    fn u16(&mut self, at: usize, v: u16) -> &mut Self {
        self.bytes(at, &v.to_le_bytes())
    }

    fn u32(&mut self, at: usize, v: u32) -> &mut Self {
        self.bytes(at, &v.to_le_bytes())
    }

    fn u64(&mut self, at: usize, v: u64) -> &mut Self {
        self.bytes(at, &v.to_le_bytes())
    }

    fn cut(&mut self, size: usize) -> &mut Self {
        self.0.truncate(size);
        self
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of a program header, in their order")]
    fn phdr(&mut self, n: usize, ty: u32, flags: u32, offset: u64, vaddr: u64, filesz: u64, memsz: u64) -> &mut Self {
        let at = 64 + 56 * n;
        self.u32(at, ty).u32(at + 4, flags).u64(at + 8, offset).u64(at + 16, vaddr).u64(at + 24, vaddr);
        self.u64(at + 32, filesz).u64(at + 40, memsz).u64(at + 48, 0x1000)
    }

    /// Applies `change` to a fresh image and says what comes of it.
    fn error(change: impl for<'a> FnOnce(&'a mut Image) -> &'a mut Image) -> String {
        let mut image = Image::new();
        change(&mut image);
        LoadPlan::parse(&image.0).map_or_else(|e| e.to_string(), |plan| format!("{plan:?}"))
    }
}

#[test]
fn reads_a_program() {
    let plan = LoadPlan::parse(&Image::new().0).unwrap();
    assert_eq!(plan.kind, ImageKind::Fixed);
    assert_eq!(plan.entry, GuestAddr(0x40_0100));
    assert_eq!((plan.phdr, plan.phnum, plan.phentsize), (Some(GuestAddr(0x40_0040)), 2, 56));
    assert_eq!(plan.segments.len(), 2);
    assert_eq!(plan.segments[1].end(), GuestAddr(0x60_4000));
    assert_eq!(plan.segments[0].prot, Prot { read: true, write: false, exec: true });
    assert_eq!(plan.span(), (GuestAddr(0x40_0000), GuestAddr(0x60_4000)));
    assert_eq!((plan.interpreter, plan.stack, plan.align), (None, StackKind::Data, 0x1000));
}

#[test]
fn says_what_a_file_is() {
    let cases: [(&[u8], &str); 9] = [
        (b"", "the file is empty"),
        (b"#!/bin/sh\n", "a script, not an ELF program"),
        (b"echo hello\n", "a text file without a '#!' line: name the interpreter to run it with"),
        (b"MZ\x90\0", "a Windows or DOS program, not a Linux ELF program"),
        (b"\xcf\xfa\xed\xfe\0\0", "a macOS program, not a Linux ELF program"),
        (b"\0\x01\x02\x03", "not an ELF program"),
        (b"\x7fE", "truncated ELF file: the ELF header ends at byte 0x40, the file at 0x2"),
        (b"\x7fELF\x02\x01\x01", "truncated ELF file: the ELF header ends at byte 0x40, the file at 0x7"),
        (b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0", "an AArch64 program, not an x86-64 one"),
    ];
    for (bytes, message) in cases {
        assert_eq!(LoadPlan::parse(bytes).unwrap_err().to_string(), message);
    }
}

#[test]
fn names_other_machines_and_types() {
    assert_eq!(Image::error(|i| i.u16(18, 183)), "an AArch64 program, not an x86-64 one");
    assert_eq!(Image::error(|i| i.u16(18, 243)), "a 64-bit RISC-V program, not an x86-64 one");
    assert_eq!(Image::error(|i| i.u16(18, 999)), "a 64-bit program for ELF machine 999, not an x86-64 one");
    let bits = |machine: u16| Image::error(|i| i.bytes(4, &[1]).u16(18, machine));
    assert_eq!(bits(3), "a 32-bit x86 program, not an x86-64 one");
    assert!(bits(62).starts_with("an x32 program"));
    let big = Image::error(|i| i.bytes(5, &[2]).u16(18, 22u16.swap_bytes()));
    assert_eq!(big, "an IBM Z (s390x) program, not an x86-64 one");
    assert!(Image::error(|i| i.bytes(5, &[2])).contains("ELF machine 15872"));
    assert!(Image::error(|i| i.u16(16, 1)).contains("relocatable object file"));
    assert!(Image::error(|i| i.u16(16, 4)).contains("core dump"));
    assert_eq!(Image::error(|i| i.bytes(7, &[9])), "a program for FreeBSD, not for Linux");
}

#[test]
fn refuses_hostile_files() {
    let segment = |what: &str| format!("hostile or damaged ELF file: segment 1 {what}");
    let cut = Image::error(|i| i.cut(0x1080));
    assert_eq!(cut, "truncated ELF file: segment 1 ends at byte 0x1100, the file at 0x1080");
    let cut = Image::error(|i| i.cut(100));
    assert_eq!(cut, "truncated ELF file: the program header table ends at byte 0xb0, the file at 0x64");
    let far = Image::error(|i| i.u64(32, u64::MAX - 8));
    assert!(far.starts_with("truncated ELF file: the program header table"), "{far}");
    let with = |offset, vaddr, filesz, memsz| Image::error(|i| i.phdr(1, 1, 6, offset, vaddr, filesz, memsz));
    assert_eq!(with(0x1000, 0x60_1000, 0x100, 0x80), segment("is larger in the file than in memory"));
    assert_eq!(with(0x1000, u64::MAX - 0xfff, 0x100, 0x3000), segment("reaches past the end of user space"));
    assert_eq!(with(0x1000, 0x60_1000, 0x100, u64::MAX), segment("reaches past the end of user space"));
    let skewed = with(0x1000, 0x60_1234, 0x100, 0x100);
    assert_eq!(skewed, segment("lies differently in its page in memory and in the file"));
    let end = u64::MAX - 0xfff;
    assert!(with(end, 0x60_1000, 0x100, 0x100).contains("segment 1 ends at"), "offset overflow");
    assert_eq!(with(0, 0x40_0000, 0x100, 0x100), "hostile or damaged ELF file: segments 0 and 1 overlap in memory");
    assert!(with(0x1000, 0x7000_0000_0000, 0x100, 0x100).contains("bytes of address space wanted"));
    assert!(Image::error(|i| i.u64(24, 0)).starts_with("no entry point"));
    assert!(Image::error(|i| i.u64(24, 0x60_1000)).contains("lies in no executable segment"));
    assert!(Image::error(|i| i.u16(56, 0)).contains("no loadable segment"));
    assert!(Image::error(|i| i.u16(54, 32)).contains("wrong size or number"));
}

#[test]
fn checks_the_interpreter() {
    let interp = |text: &[u8], filesz: u64| {
        Image::error(|i| i.u16(56, 3).phdr(2, 3, 4, 0x180, 0x40_0180, filesz, filesz).bytes(0x180, text))
    };
    assert!(interp(b"/lib/ld.so\0", 11).contains("interpreter: Some(\"/lib/ld.so\")"));
    for (text, size) in [(&b"/lib/ld.so"[..], 10), (b"", 0), (b"x", 1), (b"x", 5000)] {
        assert!(interp(text, size).ends_with("bad name of the dynamic linker"), "{text:?}");
    }
    assert!(interp(b"x", 4000).contains("the dynamic linker's name ends at"));
}

#[test]
fn reads_the_machine_s_own_programs() {
    let own = std::fs::read("/proc/self/exe").unwrap();
    let plan = LoadPlan::parse(&own);
    assert_eq!(plan, LoadPlan::read(&std::fs::File::open("/proc/self/exe").unwrap()));
    match plan {
        Ok(plan) => {
            assert_eq!(plan.kind, ImageKind::PositionIndependent);
            assert!(plan.phdr.is_some());
        }
        Err(e) => assert!(matches!(e, ElfError::Machine(_)), "{e}"),
    }
}

/// Random bytes in the headers and random lengths: every result is a plan that keeps the invariants, or an error.
#[test]
fn mutations() {
    let mut files = vec![Image::new().0];
    files.extend(["/bin/ls", "/proc/self/exe", "/lib64/ld-linux-x86-64.so.2"].iter().filter_map(|f| {
        let mut bytes = std::fs::read(f).ok()?;
        bytes.truncate(1 << 20);
        Some(bytes)
    }));
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        // xorshift64 (Marsaglia 2003): the same cases on every machine.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for file in &files {
        for _ in 0..20_000 {
            let mut bytes = file[..file.len().min(1024 + random() as usize % 8192)].to_vec();
            for _ in 0..1 + random() % 6 {
                let at = random() as usize % bytes.len().min(900);
                bytes[at] = [random() as u8, 0, 0xff, 0x80, bytes[at] ^ 1 << (random() % 8)][random() as usize % 5];
            }
            let cut = if random().is_multiple_of(4) { random() as usize % bytes.len() } else { bytes.len() };
            if let Ok(plan) = LoadPlan::parse(&bytes[..cut]) {
                check_invariants(&plan, cut as u64);
            }
        }
    }
}

fn check_invariants(plan: &LoadPlan, size: u64) {
    assert!(!plan.segments.is_empty());
    for s in &plan.segments {
        assert!(s.filesz <= s.memsz && s.end().0 <= USER_END && s.vaddr.0 % 4096 == s.offset % 4096);
        assert!(s.filesz == 0 || s.offset + s.filesz <= size);
    }
    assert!(plan.segments.iter().any(|s| s.prot.exec && s.vaddr <= plan.entry && plan.entry < s.end()));
    assert!(plan.align.is_power_of_two() && plan.align >= 4096);
}
