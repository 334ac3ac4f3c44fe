//! The table of out-of-line operations that generated code calls through `cpu.rt.helpers`: one entry point for each
//! [`Helper`], by its number, then the backend's own ([`Own`]).
//!
//! Every entry has the host's C convention and the type `extern "C" fn(&mut CpuState, u64, u64, u64) -> u64`.

use crate::arch;
use calque_ir::helper::HelperEntry;
use calque_ir::{CpuState, Helper};

/// Operations that generated code needs and the IR does not name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Own {
    /// `cpu.mxcsr` into the host's FP control register.
    LoadFpControl,
    /// The host's FP control register into `cpu.mxcsr`.
    SaveFpControl,
    /// Compare-and-swap of the 16 bytes at a: expected in `scratch[0]`, new in `scratch[1]`, the old value into `scratch[0]`.
    Cas128,
}

impl Own {
    /// Number in the table.
    pub(crate) fn index(self) -> usize {
        Helper::ALL.len() + self as usize
    }
}

extern "C" fn load_fp_control(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    arch::load_fp_control(cpu);
    0
}

extern "C" fn save_fp_control(cpu: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    arch::save_fp_control(cpu);
    0
}

extern "C" fn cas128(cpu: &mut CpuState, address: u64, _: u64, _: u64) -> u64 {
    cpu.scratch[0] = arch::cas128(address, cpu.scratch[0], cpu.scratch[1]);
    0
}

extern "C" fn missing(_: &mut CpuState, _: u64, _: u64, _: u64) -> u64 {
    panic!("a helper of the runtime was called that the runtime did not provide");
}

/// The table for `cpu.rt.helpers`. `host` gives the entry points of the helpers that have no body of their own
/// (`HelperEffect::Host`). Lives as long as the process: generated code may use it at any time.
pub fn table(host: impl Fn(Helper) -> Option<HelperEntry>) -> &'static [HelperEntry] {
    let entry = |h: Helper| arch::accelerated(h).or_else(|| h.entry()).or_else(|| host(h)).unwrap_or(missing);
    let of_ir = Helper::ALL.iter().map(|&h| entry(h));
    let own = [load_fp_control as HelperEntry, save_fp_control, cas128];
    Box::leak(of_ir.chain(own).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Instructions of the host do what the portable bodies do.
    #[test]
    fn accelerated_helpers_agree() {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            seed ^ seed >> 29
        };
        for &helper in Helper::ALL {
            let (Some(fast), Some(body)) = (arch::accelerated(helper), helper.body()) else { continue };
            for n in 0..1000 {
                let imm = [0x00, 0x01, 0x10, 0x11][n % 4];
                let (mut a, mut b) = (CpuState::new(), CpuState::new());
                a.scratch = [(); 4].map(|()| [random(), random()]);
                b.scratch = a.scratch;
                fast(&mut a, 0, 0, imm);
                body(&mut b, 0, 0, imm);
                assert_eq!(a.scratch[0], b.scratch[0], "{} {imm:#x}", helper.name());
            }
        }
    }
}
