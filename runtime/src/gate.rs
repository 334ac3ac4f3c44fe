//! The one gate for what is not a function of guest state: time, cpuid, random numbers. Recording and replaying a run
//! is a matter of this file and of the system calls.
//!
//! # Safety
//! Asks the C library for random bytes.

#![allow(unsafe_code)]

use crate::arch;
use crate::{cpuid, lockstep};
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
            let words = match a as u32 {
                cpuid::CLOCK_LEAF => clock(b as u32),
                leaf => cpuid::cpuid(leaf, b as u32, cpu.xcr0),
            };
            let [eax, ebx, ecx, edx] = words.map(u64::from);
            let mut packed = [eax | ebx << 32, ecx | edx << 32];
            if a as u32 == cpuid::CLOCK_LEAF {
                packed = packed.map(|word| lockstep::value(|| word));
            }
            cpu.scratch[0] = packed;
            0
        }
        Helper::Rdtsc => lockstep::value(arch::time_stamp),
        Helper::TscAux => lockstep::value(|| arch::cpu_and_node().into()),
        Helper::Random => lockstep::value(|| {
            let mut word = [0; 8];
            random(&mut word);
            u64::from_le_bytes(word)
        }),
        other => unreachable!("{} has a body of its own", other.name()),
    }
}

/// What CPUID's clock leaf answers: the clocks that Linux's own vDSO knows, without entering the kernel.
fn clock(number: u32) -> [u32; 4] {
    const HERE: [i32; 7] = [
        libc::CLOCK_REALTIME,
        libc::CLOCK_MONOTONIC,
        libc::CLOCK_MONOTONIC_RAW,
        libc::CLOCK_REALTIME_COARSE,
        libc::CLOCK_MONOTONIC_COARSE,
        libc::CLOCK_BOOTTIME,
        libc::CLOCK_TAI,
    ];
    let id = Some(number as i32).filter(|id| HERE.contains(id)).map(nix::time::ClockId::from_raw);
    let Some(now) = id.and_then(|id| nix::time::clock_gettime(id).ok()) else { return [0; 4] };
    let seconds = now.tv_sec() as u64;
    [seconds as u32, (seconds >> 32) as u32, now.tv_nsec() as u32, 1]
}
