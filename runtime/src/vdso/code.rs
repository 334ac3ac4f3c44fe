//! The functions of the vDSO (`arch/x86/entry/vdso/vclock_gettime.c` and `vgetcpu.c` say what they do), as bytes beside their assembly,
//! which a test reads back from the bytes.
//!
//! CPUID overwrites RBX, which belongs to the caller: it waits in R8 meanwhile. The unwind rows say so.

/// One function.
pub(super) struct Function {
    /// Its name; `__vdso_` before it is the other.
    pub(super) name: &'static str,
    pub(super) code: &'static [Line],
}

/// An instruction: its bytes and its assembly, with jump targets relative to the start of the function.
pub(super) struct Line(pub(super) &'static [u8], pub(super) &'static str);

impl Function {
    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.code.iter().map(|line| line.0.len()).sum()
    }

    /// From where to where RBX is in R8: behind `mov r8,rbx`, up to behind `mov rbx,r8`.
    pub(super) fn rbx_in_r8(&self) -> Option<(usize, usize)> {
        Some((self.end_of("mov r8,rbx")?, self.end_of("mov rbx,r8")?))
    }

    /// Offset behind the instruction with this assembly.
    fn end_of(&self, text: &str) -> Option<usize> {
        let at = self.code.iter().position(|line| line.1 == text)?;
        Some(self.code[..=at].iter().map(|line| line.0.len()).sum())
    }
}

#[rustfmt::skip]
pub(super) const FUNCTIONS: [Function; 4] = [
    // int clock_gettime(clockid_t clock, struct timespec *now)
    Function { name: "clock_gettime", code: &[
        Line(&[0x49, 0x89, 0xd8],                         "mov r8,rbx"),
        Line(&[0x89, 0xf9],                               "mov ecx,edi"),
        Line(&[0xb8, 0x01, 0x00, 0x00, 0x40],             "mov eax,40000001h"),
        Line(&[0x0f, 0xa2],                               "cpuid"),
        Line(&[0x48, 0xc1, 0xe3, 0x20],                   "shl rbx,20h"),
        Line(&[0x48, 0x09, 0xd8],                         "or rax,rbx"),
        Line(&[0x4c, 0x89, 0xc3],                         "mov rbx,r8"),
        Line(&[0x85, 0xd2],                               "test edx,edx"),
        Line(&[0x74, 0x0a],                               "je short 24h"),
        Line(&[0x48, 0x89, 0x06],                         "mov [rsi],rax"),
        Line(&[0x48, 0x89, 0x4e, 0x08],                   "mov [rsi+8],rcx"),
        Line(&[0x31, 0xc0],                               "xor eax,eax"),
        Line(&[0xc3],                                     "ret"),
        // A clock that the gate does not read: that of a process, a thread, a device.
        Line(&[0xb8, 0xe4, 0x00, 0x00, 0x00],             "mov eax,0E4h"),
        Line(&[0x0f, 0x05],                               "syscall"),
        Line(&[0xc3],                                     "ret"),
    ] },
    // int gettimeofday(struct timeval *now, struct timezone *zone): the zone is the kernel's affair.
    Function { name: "gettimeofday", code: &[
        Line(&[0x48, 0x85, 0xf6],                         "test rsi,rsi"),
        Line(&[0x75, 0x30],                               "jne short 35h"),
        Line(&[0x48, 0x85, 0xff],                         "test rdi,rdi"),
        Line(&[0x74, 0x28],                               "je short 32h"),
        Line(&[0x49, 0x89, 0xd8],                         "mov r8,rbx"),
        Line(&[0x31, 0xc9],                               "xor ecx,ecx"),
        Line(&[0xb8, 0x01, 0x00, 0x00, 0x40],             "mov eax,40000001h"),
        Line(&[0x0f, 0xa2],                               "cpuid"),
        Line(&[0x48, 0xc1, 0xe3, 0x20],                   "shl rbx,20h"),
        Line(&[0x48, 0x09, 0xd8],                         "or rax,rbx"),
        Line(&[0x4c, 0x89, 0xc3],                         "mov rbx,r8"),
        Line(&[0x48, 0x89, 0x07],                         "mov [rdi],rax"),
        // Nanoseconds by 1000, as a product and a shift: exact below 2^32.
        Line(&[0x48, 0x69, 0xc9, 0xd3, 0x4d, 0x62, 0x10], "imul rcx,10624DD3h"),
        Line(&[0x48, 0xc1, 0xe9, 0x26],                   "shr rcx,26h"),
        Line(&[0x48, 0x89, 0x4f, 0x08],                   "mov [rdi+8],rcx"),
        Line(&[0x31, 0xc0],                               "xor eax,eax"),
        Line(&[0xc3],                                     "ret"),
        Line(&[0xb8, 0x60, 0x00, 0x00, 0x00],             "mov eax,60h"),
        Line(&[0x0f, 0x05],                               "syscall"),
        Line(&[0xc3],                                     "ret"),
    ] },
    // time_t time(time_t *t): of the coarse clock, which ticks with the kernel's seconds.
    Function { name: "time", code: &[
        Line(&[0x49, 0x89, 0xd8],                         "mov r8,rbx"),
        Line(&[0xb9, 0x05, 0x00, 0x00, 0x00],             "mov ecx,5"),
        Line(&[0xb8, 0x01, 0x00, 0x00, 0x40],             "mov eax,40000001h"),
        Line(&[0x0f, 0xa2],                               "cpuid"),
        Line(&[0x48, 0xc1, 0xe3, 0x20],                   "shl rbx,20h"),
        Line(&[0x48, 0x09, 0xd8],                         "or rax,rbx"),
        Line(&[0x4c, 0x89, 0xc3],                         "mov rbx,r8"),
        Line(&[0x48, 0x85, 0xff],                         "test rdi,rdi"),
        Line(&[0x74, 0x03],                               "je short 21h"),
        Line(&[0x48, 0x89, 0x07],                         "mov [rdi],rax"),
        Line(&[0xc3],                                     "ret"),
    ] },
    // int getcpu(unsigned *cpu, unsigned *node, void *unused): TSC_AUX has the cpu in its low 12 bits, the node above.
    Function { name: "getcpu", code: &[
        Line(&[0x0f, 0x01, 0xf9],                         "rdtscp"),
        Line(&[0x48, 0x85, 0xff],                         "test rdi,rdi"),
        Line(&[0x74, 0x09],                               "je short 11h"),
        Line(&[0x89, 0xc8],                               "mov eax,ecx"),
        Line(&[0x25, 0xff, 0x0f, 0x00, 0x00],             "and eax,0FFFh"),
        Line(&[0x89, 0x07],                               "mov [rdi],eax"),
        Line(&[0x48, 0x85, 0xf6],                         "test rsi,rsi"),
        Line(&[0x74, 0x05],                               "je short 1Bh"),
        Line(&[0xc1, 0xe9, 0x0c],                         "shr ecx,0Ch"),
        Line(&[0x89, 0x0e],                               "mov [rsi],ecx"),
        Line(&[0x31, 0xc0],                               "xor eax,eax"),
        Line(&[0xc3],                                     "ret"),
    ] },
];

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

    #[test]
    fn bytes_are_what_their_assembly_says() {
        let mut formatter = NasmFormatter::new();
        formatter.options_mut().set_branch_leading_zeros(false);
        for function in &FUNCTIONS {
            let bytes: Vec<u8> = function.code.iter().flat_map(|line| line.0).copied().collect();
            let mut decoder = Decoder::new(64, &bytes, DecoderOptions::NONE);
            let starts: Vec<u64> = Decoder::new(64, &bytes, DecoderOptions::NONE).iter().map(|i| i.ip()).collect();
            for line in function.code {
                let insn = decoder.decode();
                let mut text = String::new();
                formatter.format(&insn, &mut text);
                assert_eq!((text.as_str(), insn.len()), (line.1, line.0.len()), "{}", function.name);
                let target = insn.near_branch_target();
                assert!(target == 0 || starts.contains(&target), "{}: {text}", function.name);
            }
        }
    }

    #[test]
    fn microseconds_are_exact() {
        for nanos in (0..1_000_000_000u64).step_by(997).chain([999, 1000, 999_999_999]) {
            assert_eq!((nanos * 0x1062_4dd3) >> 38, nanos / 1000);
        }
    }
}
