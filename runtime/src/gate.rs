//! The one gate for what is not a function of guest state: time, cpuid, random numbers. Recording and replaying a run
//! is a matter of this file and of the system calls.
//!
//! # Safety
//! Reads the host's clock and cpu number through the C library.

#![allow(unsafe_code)]

use crate::cpuid;
use calque_ir::{CpuState, Helper};

/// Fills `bytes` with random ones.
pub fn random(bytes: &mut [u8]) {
    // SAFETY: the buffer is ours.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(got, bytes.len() as isize, "getrandom gives short requests in full");
}

/// Carries out a helper of [`calque_ir::helper::HelperEffect::Host`], under the ABI of `ir/src/helper.rs`.
pub fn helper(cpu: &mut CpuState, helper: Helper, a: u64, b: u64, _c: u64) -> u64 {
    match helper {
        Helper::Cpuid => {
            let [eax, ebx, ecx, edx] = cpuid::cpuid(a as u32, b as u32).map(u64::from);
            cpu.scratch[0] = [eax | ebx << 32, ecx | edx << 32];
            0
        }
        Helper::Rdtsc => time_stamp(),
        Helper::TscAux => tsc_aux(),
        Helper::Random => {
            let mut word = [0; 8];
            random(&mut word);
            u64::from_le_bytes(word)
        }
        other => unreachable!("{} has a body of its own", other.name()),
    }
}

/// Time stamp counter: nanoseconds since boot, a 1 GHz clock that runs alike on every host.
fn time_stamp() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("there is a monotonic clock");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// Node and cpu, as Linux sets TSC_AUX (`arch/x86/include/asm/segment.h`, `vdso_encode_cpunode`).
fn tsc_aux() -> u64 {
    let (mut cpu, mut node) = (0u32, 0u32);
    // SAFETY: both words are ours.
    unsafe { libc::syscall(libc::SYS_getcpu, &raw mut cpu, &raw mut node, 0) };
    u64::from(cpu & 0xfff | node << 12)
}
