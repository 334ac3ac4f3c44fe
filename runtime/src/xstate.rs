//! Extended state in XSAVE's standard form (SDM vol. 1 13.4): where its components lie, for CPUID, signal frames, XSAVE and XRSTOR.
//!
//! Offsets are those of Intel's processors, as CPUID says that the guest's is one. The lifter does x87, SSE and AVX state
//! (`frontend/src/lift/xsave.rs`); what AVX-512 adds is moved here, behind the rest of the instruction.

use crate::access::{self, Fault};
use crate::crash;
use calque_frontend::decode::Window;
use calque_ir::state::{Avx512, XCR0_AVX2};
use calque_ir::{CpuState, GuestAddr};
use iced_x86::{Mnemonic, Register};

/// Bytes of the FXSAVE image (SDM vol. 1 10.5.1), which x87 and SSE state are in.
pub(crate) const LEGACY: usize = 512;
/// The header: XSTATE_BV, which components are there; XCOMP_BV.
pub(crate) const XSTATE_BV: usize = LEGACY;
const HEADER: usize = 64;

/// A component behind the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Component {
    /// Its bit in XCR0.
    pub(crate) number: u32,
    pub(crate) at: usize,
    pub(crate) size: usize,
}

/// YMM_Hi128.
pub(crate) const AVX: Component = Component { number: 2, at: LEGACY + HEADER, size: 256 };
const OPMASK: Component = Component { number: 5, at: 1088, size: 64 };
const ZMM_HI256: Component = Component { number: 6, at: 1152, size: 512 };
const HI16_ZMM: Component = Component { number: 7, at: 1664, size: 1024 };

/// Those that the guest's processor may have.
pub(crate) const COMPONENTS: [Component; 4] = [AVX, OPMASK, ZMM_HI256, HI16_ZMM];

impl Component {
    /// Whether a mask of components has it.
    pub(crate) fn is_in(self, mask: u64) -> bool {
        mask >> self.number & 1 != 0
    }

    fn range(self) -> std::ops::Range<usize> {
        self.at..self.at + self.size
    }
}

/// Bytes of the state up to the end of the last component of `xcr0`.
pub(crate) fn size(xcr0: u64) -> usize {
    COMPONENTS
        .iter()
        .filter(|component| component.is_in(xcr0))
        .map(|component| component.range().end)
        .max()
        .unwrap_or(LEGACY + HEADER)
}

/// The components of AVX-512, with their bytes.
fn parts(state: &Avx512) -> [(Component, &[u8]); 3] {
    [
        (OPMASK, bytemuck::bytes_of(&state.opmask)),
        (ZMM_HI256, bytemuck::bytes_of(&state.zmm_hi256)),
        (HI16_ZMM, bytemuck::bytes_of(&state.hi16_zmm)),
    ]
}

fn parts_mut(state: &mut Avx512) -> [(Component, &mut [u8]); 3] {
    [
        (OPMASK, bytemuck::bytes_of_mut(&mut state.opmask)),
        (ZMM_HI256, bytemuck::bytes_of_mut(&mut state.zmm_hi256)),
        (HI16_ZMM, bytemuck::bytes_of_mut(&mut state.hi16_zmm)),
    ]
}

/// Puts the components of AVX-512 among `components` into `image`, which has room for them.
pub(crate) fn store_avx512(cpu: &CpuState, image: &mut [u8], components: u64) {
    for (component, bytes) in parts(&cpu.avx512).into_iter().filter(|(component, _)| component.is_in(components)) {
        image[component.range()].copy_from_slice(bytes);
    }
}

/// Takes them out; those that are not `present` are as at reset.
pub(crate) fn load_avx512(cpu: &mut CpuState, image: &[u8], present: u64) {
    let present = present & cpu.xcr0;
    if present & !XCR0_AVX2 == 0 && !cpu.avx512_in_use {
        return;
    }
    cpu.avx512_in_use = true;
    for (component, bytes) in parts_mut(&mut cpu.avx512) {
        match component.is_in(present) {
            true => bytes.copy_from_slice(&image[component.range()]),
            false => bytes.fill(0),
        }
    }
}

/// Does the rest of the XSAVE or XRSTOR at RIP, which has been lifted without the components of AVX-512, and goes on behind it.
pub(crate) fn finish(cpu: &mut CpuState) -> Result<(), Fault> {
    let pc = GuestAddr(cpu.rip);
    let (_, insn) = Window::<32>::new().one(&crash::Memory, pc);
    let value = |register: Register, _: usize, _: usize| match register {
        Register::FS => Some(cpu.fs_base),
        Register::GS => Some(cpu.gs_base),
        register if register.is_segment_register() => Some(0),
        register if register.size() == 4 => Some(u64::from(cpu.gpr[register.full_register().number()] as u32)),
        register => Some(cpu.gpr[register.number()]),
    };
    let area = insn.virtual_address(0, 0, value).unwrap_or(0);
    let asked = cpu.gpr[0] & cpu.xcr0 & !XCR0_AVX2;
    match insn.mnemonic() {
        Mnemonic::Xsave | Mnemonic::Xsave64 => save(cpu, area, asked)?,
        Mnemonic::Xrstor | Mnemonic::Xrstor64 => restore(cpu, area, asked)?,
        // Another thread has just written something else there: that is what runs.
        _ => return Ok(()),
    }
    cpu.rip = insn.next_ip();
    Ok(())
}

fn save(cpu: &CpuState, area: u64, asked: u64) -> Result<(), Fault> {
    let saved = asked & cpu.xinuse();
    for (component, bytes) in parts(&cpu.avx512).into_iter().filter(|(component, _)| component.is_in(saved)) {
        access::write_bytes(GuestAddr(area).wrapping_add(component.at as u64), bytes)?;
    }
    let header = GuestAddr(area).wrapping_add(XSTATE_BV as u64);
    let present: u64 = access::read(header)?;
    access::write(header, &(present & !asked | saved))
}

fn restore(cpu: &mut CpuState, area: u64, asked: u64) -> Result<(), Fault> {
    let present: u64 = access::read(GuestAddr(area).wrapping_add(XSTATE_BV as u64))?;
    if asked & present == 0 && !cpu.avx512_in_use {
        return Ok(());
    }
    cpu.avx512_in_use = true;
    for (component, bytes) in parts_mut(&mut cpu.avx512).into_iter().filter(|(component, _)| component.is_in(asked)) {
        match component.is_in(present) {
            true => access::read_bytes(GuestAddr(area).wrapping_add(component.at as u64), bytes)?,
            false => bytes.fill(0),
        }
    }
    Ok(())
}
