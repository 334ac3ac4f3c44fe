//! What a guest signal handler finds on its stack: the x86-64 `rt_sigframe`, byte for byte as the kernel builds it.
//!
//! The structures are those of `arch/x86/include/uapi/asm/sigcontext.h`, `.../ucontext.h`, `.../sigframe.h` and
//! `include/uapi/asm-generic/siginfo.h`, whatever host this runs on. From high to low addresses
//! (`arch/x86/kernel/signal.c: get_sigframe`, `setup_rt_frame`):
//!
//! ```text
//!   interrupted rsp, or the top of the alternate stack
//!   128 bytes of red zone                  (only on the interrupted stack: System V ABI 3.2.2)
//!   floating point image                   64-byte aligned; FXSAVE, or XSAVE where AVX is announced
//!   RtSigFrame                             address % 16 == 8, so that the handler sees an aligned call
//!     pretcode                             sa_restorer: what the handler returns to
//! ```
//!
//! Invariants
//! 1. Everything here is pure: bytes in, bytes out. Guest memory is `deliver.rs`'s business.
//! 2. `FpImage::store` then `FpImage::load` gives back the same registers.
//! 3. A field that the guest may not choose (reserved MXCSR bits) is masked at `load`, as the kernel does.

use crate::xstate;
use bytemuck::{Pod, Zeroable};
use calque_ir::CpuState;
use calque_ir::state::XCR0_AVX512;
use std::mem::{offset_of, size_of};

/// `siginfo_t`: 128 bytes, of which the first 48 carry something. The layout of 64-bit hosts is the guest's.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct SigInfo {
    /// Signal number.
    pub signo: i32,
    /// Always 0 on Linux/x86.
    pub errno: i32,
    /// `SI_*`, `SEGV_*`, ...
    pub code: i32,
    _pad: i32,
    /// The union: address of a fault; pid and uid of a sender; ...
    pub fields: [u64; 14],
}

/// `stack_t` of `sigaltstack`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct AltStack {
    /// Lowest address.
    pub sp: u64,
    /// `SS_*`.
    pub flags: i32,
    _pad: i32,
    /// Bytes.
    pub size: u64,
}

/// `struct sigcontext_64`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
#[allow(missing_docs)]
pub struct SigContext {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub di: u64,
    pub si: u64,
    pub bp: u64,
    pub bx: u64,
    pub dx: u64,
    pub ax: u64,
    pub cx: u64,
    pub sp: u64,
    pub ip: u64,
    pub flags: u64,
    pub cs: u16,
    pub gs: u16,
    pub fs: u16,
    pub ss: u16,
    /// Page fault error code (SDM vol. 3 4.7) of the last fault.
    pub err: u64,
    /// Exception vector of the last fault.
    pub trapno: u64,
    pub oldmask: u64,
    /// Linear address of the last page fault.
    pub cr2: u64,
    /// Guest address of the floating point image, 0 for none.
    pub fpstate: u64,
    pub reserved: [u64; 8],
}

/// `struct ucontext`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct UContext {
    /// `UC_*`.
    pub flags: u64,
    /// Always 0.
    pub link: u64,
    /// Alternate stack settings at delivery.
    pub stack: AltStack,
    /// Registers.
    pub mcontext: SigContext,
    /// Signal mask to go back to.
    pub sigmask: u64,
}

/// `struct rt_sigframe`.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub struct RtSigFrame {
    /// Return address of the handler: `sa_restorer`.
    pub pretcode: u64,
    /// Third argument of the handler.
    pub uc: UContext,
    /// Second argument of the handler.
    pub info: SigInfo,
}

/// `struct kernel_sigaction` of x86-64.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Pod, Zeroable)]
pub struct KernelSigaction {
    /// `SIG_DFL` (0), `SIG_IGN` (1) or the guest address of the handler.
    pub handler: u64,
    /// `SA_*`.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Signals blocked while the handler runs.
    pub mask: u64,
}

const _: () = {
    assert!(size_of::<SigInfo>() == 128 && offset_of!(SigInfo, fields) == 16);
    assert!(size_of::<AltStack>() == 24 && offset_of!(AltStack, size) == 16);
    assert!(size_of::<SigContext>() == 256 && offset_of!(SigContext, ip) == 128 && offset_of!(SigContext, cs) == 144);
    assert!(offset_of!(SigContext, err) == 152 && offset_of!(SigContext, fpstate) == 184);
    assert!(size_of::<UContext>() == 304 && offset_of!(UContext, mcontext) == 40);
    assert!(offset_of!(UContext, sigmask) == 296);
    assert!(size_of::<RtSigFrame>() == 440 && offset_of!(RtSigFrame, info) == 312);
    assert!(size_of::<KernelSigaction>() == 32 && offset_of!(KernelSigaction, mask) == 24);
};

/// `UC_FP_XSTATE`: the floating point image is an extended one.
pub const UC_FP_XSTATE: u64 = 1;
/// `UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS`: the frame carries SS, as every 64-bit frame does.
pub const UC_SS: u64 = 2 | 4;
/// Selector of 64-bit user code on Linux (`__USER_CS`).
pub const USER_CS: u16 = 0x33;
/// Selector of user data on Linux (`__USER_DS`).
pub const USER_SS: u16 = 0x2b;
/// Bytes below the stack pointer that belong to the interrupted function (System V ABI 3.2.2).
const RED_ZONE: u64 = 128;

impl SigInfo {
    /// A `siginfo` with nothing in its union.
    pub fn new(signo: i32, code: i32) -> Self {
        Self { signo, errno: 0, code, _pad: 0, fields: [0; 14] }
    }

    /// The `siginfo` of a fault at `addr`.
    pub fn fault(signo: i32, code: i32, addr: u64) -> Self {
        let mut info = Self::new(signo, code);
        info.fields[0] = addr;
        info
    }

    /// `si_addr`, for faults.
    pub fn addr(&self) -> u64 {
        self.fields[0]
    }

    /// `si_pid`, for signals that a process sent.
    pub fn sender(&self) -> i32 {
        self.fields[0] as i32
    }
}

impl AltStack {
    /// `SS_ONSTACK`: the thread runs on it.
    pub const ONSTACK: i32 = 1;
    /// `SS_DISABLE`: there is none.
    pub const DISABLE: i32 = 2;
    /// `SS_AUTODISARM`: forgotten while a handler runs on it.
    pub const AUTODISARM: i32 = i32::MIN;

    /// No alternate stack.
    pub const NONE: AltStack = AltStack { sp: 0, flags: AltStack::DISABLE, _pad: 0, size: 0 };

    /// An alternate stack as the guest describes it.
    pub fn new(sp: u64, flags: i32, size: u64) -> Self {
        Self { sp, flags, _pad: 0, size }
    }

    /// Whether `sp` lies on it (`kernel/signal.h: on_sig_stack`: the lowest address does not, the highest does).
    pub fn holds(&self, sp: u64) -> bool {
        self.flags & Self::AUTODISARM == 0 && sp > self.sp && sp - self.sp <= self.size
    }
}

/// Which floating point image the guest gets: what CPUID announces decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FpLayout {
    /// The 512 bytes of FXSAVE: OSXSAVE is not announced.
    Fxsave,
    /// The standard form of XSAVE with the components of this XCR0, AVX state among them (SDM vol. 1 13.4), and Linux's magic numbers.
    Xsave(u64),
}

/// Size of the FXSAVE image (SDM vol. 1 10.5.1).
pub const FXSAVE_SIZE: usize = xstate::LEGACY;
/// `FP_XSTATE_MAGIC1`, in the software-reserved bytes of the FXSAVE image.
const MAGIC1: u32 = 0x4650_5853;
/// `FP_XSTATE_MAGIC2`, behind the image.
const MAGIC2: u32 = 0x4650_5845;
const MAGIC2_BYTES: &[u8] = &MAGIC2.to_le_bytes();
/// Bits of MXCSR that exist (SDM vol. 1 10.2.3; bit 6, DAZ, included).
const MXCSR_MASK: u32 = 0xffff;

impl FpLayout {
    /// Bytes in the frame, magic number included.
    pub fn size(self) -> usize {
        match self {
            FpLayout::Fxsave => FXSAVE_SIZE,
            FpLayout::Xsave(xcr0) => xstate::size(xcr0) + 4,
        }
    }

    /// `uc_flags` that go with it.
    pub fn uc_flags(self) -> u64 {
        match self {
            FpLayout::Fxsave => UC_SS,
            FpLayout::Xsave(_) => UC_SS | UC_FP_XSTATE,
        }
    }
}

/// Where the parts of a frame go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// Guest address of the floating point image.
    pub fp: u64,
    /// Guest address of the `RtSigFrame`, which becomes RSP.
    pub frame: u64,
}

impl Placement {
    /// Places a frame below `sp`, the interrupted stack pointer.
    pub fn below(sp: u64, layout: FpLayout) -> Self {
        Self::at(sp.wrapping_sub(RED_ZONE), layout)
    }

    /// Places a frame at the top of an alternate stack.
    pub fn on_alt_stack(stack: &AltStack, layout: FpLayout) -> Self {
        Self::at(stack.sp.wrapping_add(stack.size), layout)
    }

    fn at(top: u64, layout: FpLayout) -> Self {
        let fp = top.wrapping_sub(layout.size() as u64) & !63;
        let frame = (fp.wrapping_sub(size_of::<RtSigFrame>() as u64) & !15).wrapping_sub(8);
        Self { fp, frame }
    }
}

impl SigContext {
    /// General registers, pc and flags of `cpu`.
    pub fn save(cpu: &CpuState) -> Self {
        let [ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15] = cpu.gpr;
        let (ip, flags) = (cpu.rip, cpu.rflags());
        let general = SigContext {
            r8,
            r9,
            r10,
            r11,
            r12,
            r13,
            r14,
            r15,
            di,
            si,
            bp,
            bx,
            dx,
            ax,
            cx,
            sp,
            ip,
            flags,
            ..Self::default()
        };
        SigContext { cs: USER_CS, ss: USER_SS, ..general }
    }

    /// Puts them back, as far as user code may set them.
    pub fn restore(&self, cpu: &mut CpuState) {
        let SigContext { r8, r9, r10, r11, r12, r13, r14, r15, di, si, bp, bx, dx, ax, cx, sp, .. } = *self;
        cpu.gpr = [ax, cx, dx, bx, sp, bp, si, di, r8, r9, r10, r11, r12, r13, r14, r15];
        cpu.rip = self.ip;
        cpu.set_rflags(self.flags);
    }
}

/// The floating point image of a frame.
pub struct FpImage {
    /// Up to the end of the last component that is in use: `layout` may have more.
    bytes: Vec<u8>,
    layout: FpLayout,
}

impl FpImage {
    /// The image of `cpu`'s x87, SSE (AVX, AVX-512) registers.
    pub fn store(cpu: &CpuState, layout: FpLayout) -> Self {
        let used = if layout == FpLayout::Fxsave { FXSAVE_SIZE } else { xstate::size(cpu.xinuse()) };
        let mut image = FpImage { bytes: vec![0; used], layout };
        image.store_legacy(cpu);
        if let FpLayout::Xsave(xcr0) = layout {
            image.store_extended(cpu, xcr0);
        }
        image
    }

    /// The image that XSAVE makes of the registers (SDM vol. 1 13.4), as `PTRACE_GETREGSET` shows it.
    pub fn xsave(cpu: &CpuState) -> Vec<u8> {
        let FpImage { mut bytes, .. } = FpImage::store(cpu, FpLayout::Xsave(cpu.xcr0));
        bytes.resize(xstate::size(cpu.xcr0), 0);
        bytes
    }

    /// The image that the guest has; `read` copies bytes from an offset of it.
    pub fn read<E>(layout: FpLayout, read: impl Fn(usize, &mut [u8]) -> Result<(), E>) -> Result<Self, E> {
        let mut image = FpImage { bytes: vec![0; FXSAVE_SIZE], layout };
        read(0, &mut image.bytes)?;
        let FpLayout::Xsave(xcr0) = layout else { return Ok(image) };
        let (mut end, mut present) = ([0; 4], [0; 8]);
        read(xstate::size(xcr0), &mut end)?;
        read(xstate::XSTATE_BV, &mut present)?;
        if image.u32(464) == MAGIC1 && u32::from_le_bytes(end) == MAGIC2 {
            image.bytes.resize(xstate::size(u64::from_le_bytes(present) & xcr0), 0);
            read(FXSAVE_SIZE, &mut image.bytes[FXSAVE_SIZE..])?;
            // Another thread may have changed it since.
            image.put(xstate::XSTATE_BV, &present);
        }
        Ok(image)
    }

    /// What to write, and at which offsets.
    pub fn pieces(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let end = match self.layout {
            FpLayout::Fxsave => None,
            FpLayout::Xsave(xcr0) => Some((xstate::size(xcr0), MAGIC2_BYTES)),
        };
        [(0, &self.bytes[..])].into_iter().chain(end)
    }

    /// Loads the registers back. An image without valid magic numbers is taken for a plain FXSAVE one, and the
    /// other components are then cleared (`arch/x86/kernel/fpu/signal.c: check_xstate_in_sigframe`).
    pub fn load(&self, cpu: &mut CpuState) {
        self.load_legacy(cpu);
        let present = self.present();
        cpu.set_ymmh(if xstate::AVX.is_in(present) {
            std::array::from_fn(|i| self.pair(xstate::AVX.at + 16 * i))
        } else {
            [[0; 2]; 16]
        });
        if cpu.xcr0 == XCR0_AVX512 {
            xstate::load_avx512(cpu, &self.bytes, present);
        }
    }

    /// XSTATE_BV, if there is one.
    fn present(&self) -> u64 {
        if self.bytes.len() > FXSAVE_SIZE { self.u64(xstate::XSTATE_BV) } else { 0 }
    }

    /// SDM vol. 1 table 10-2.
    fn store_legacy(&mut self, cpu: &CpuState) {
        cpu.x87.store_fxsave(&mut self.bytes);
        self.put(24, &cpu.mxcsr.to_le_bytes());
        self.put(28, &MXCSR_MASK.to_le_bytes());
        for (i, xmm) in cpu.xmm.iter().enumerate() {
            self.put_pair(160 + 16 * i, xmm);
        }
    }

    /// `struct _fpx_sw_bytes`, XSAVE header (SDM vol. 1 13.4.2), and the components behind it.
    fn store_extended(&mut self, cpu: &CpuState, xcr0: u64) {
        let size = xstate::size(xcr0);
        self.put(464, &MAGIC1.to_le_bytes());
        self.put(468, &(size as u32 + 4).to_le_bytes());
        self.put(472, &xcr0.to_le_bytes());
        self.put(480, &(size as u32).to_le_bytes());
        self.put(xstate::XSTATE_BV, &cpu.xinuse().to_le_bytes());
        for (i, high) in cpu.ymmh.iter().enumerate() {
            self.put_pair(xstate::AVX.at + 16 * i, high);
        }
        xstate::store_avx512(cpu, &mut self.bytes, cpu.xinuse());
    }

    fn load_legacy(&self, cpu: &mut CpuState) {
        cpu.x87.load_fxsave(&self.bytes);
        cpu.mxcsr = self.u32(24) & MXCSR_MASK;
        cpu.xmm = std::array::from_fn(|i| self.pair(160 + 16 * i));
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn put_pair(&mut self, at: usize, pair: &[u64; 2]) {
        self.put(at, &pair[0].to_le_bytes());
        self.put(at + 8, &pair[1].to_le_bytes());
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("the slice has N bytes")
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.array(at))
    }

    fn pair(&self, at: usize) -> [u64; 2] {
        [self.u64(at), self.u64(at + 8)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use calque_ir::state::XCR0_AVX2;

    fn busy_cpu() -> CpuState {
        let mut cpu = CpuState::new();
        cpu.gpr = std::array::from_fn(|i| 0x1111 * i as u64);
        cpu.xmm = std::array::from_fn(|i| [i as u64, !(i as u64)]);
        cpu.set_ymmh(std::array::from_fn(|i| [100 + i as u64, 7]));
        cpu.avx512.opmask = std::array::from_fn(|i| 1 << i);
        cpu.avx512.zmm_hi256 = std::array::from_fn(|i| [i as u64 + 1; 4]);
        cpu.avx512.hi16_zmm = std::array::from_fn(|i| [!(i as u64); 8]);
        cpu.x87.regs = std::array::from_fn(|i| [1 << 63 | i as u64, 0x3fff]);
        (cpu.x87.top, cpu.x87.empty, cpu.x87.status) = (5, 0x1f, 0x4100);
        (cpu.mxcsr, cpu.rip) = (0x9fc0, 0x40_1000);
        cpu.set_rflags(0x246);
        cpu
    }

    #[test]
    fn fp_image_round_trips() {
        for layout in [FpLayout::Fxsave, FpLayout::Xsave(XCR0_AVX2), FpLayout::Xsave(XCR0_AVX512)] {
            let xcr0 = if let FpLayout::Xsave(xcr0) = layout { xcr0 } else { XCR0_AVX512 };
            let cpu = CpuState { xcr0, avx512_in_use: true, ..busy_cpu() };
            let mut back = CpuState { xcr0, ..CpuState::new() };
            let mut guest = vec![0; layout.size()];
            for (at, piece) in FpImage::store(&cpu, layout).pieces() {
                guest[at..at + piece.len()].copy_from_slice(piece);
            }
            let read = |at: usize, buf: &mut [u8]| {
                buf.copy_from_slice(&guest[at..at + buf.len()]);
                Ok::<(), ()>(())
            };
            FpImage::read(layout, read).unwrap().load(&mut back);
            assert_eq!((back.xmm, back.mxcsr), (cpu.xmm, cpu.mxcsr));
            assert_eq!((back.x87.regs, back.x87.top, back.x87.empty), (cpu.x87.regs, cpu.x87.top, cpu.x87.empty));
            assert_eq!(back.x87.status, cpu.x87.status);
            assert_eq!(back.ymmh == cpu.ymmh, layout != FpLayout::Fxsave);
            assert_eq!(back.avx512 == cpu.avx512, layout == FpLayout::Xsave(XCR0_AVX512));
        }
    }

    #[test]
    fn registers_round_trip() {
        let cpu = busy_cpu();
        let mut back = CpuState::new();
        SigContext::save(&cpu).restore(&mut back);
        assert_eq!((back.gpr, back.rip, back.rflags()), (cpu.gpr, cpu.rip, cpu.rflags()));
    }

    #[test]
    fn frames_are_aligned_as_the_abi_wants() {
        for sp in 0x7fff_0000..0x7fff_0080u64 {
            let layout = FpLayout::Xsave(XCR0_AVX2);
            let p = Placement::below(sp, layout);
            assert_eq!((p.frame % 16, p.fp % 64), (8, 0));
            assert!(p.frame + size_of::<RtSigFrame>() as u64 <= p.fp);
            assert!(p.fp + layout.size() as u64 + RED_ZONE <= sp);
        }
    }

    #[test]
    fn alternate_stack_bounds_are_the_kernels() {
        let stack = AltStack::new(0x1000, 0, 0x2000);
        assert!(!stack.holds(0x1000) && stack.holds(0x1001) && stack.holds(0x3000) && !stack.holds(0x3001));
        assert!(!AltStack::new(stack.sp, AltStack::AUTODISARM, stack.size).holds(0x2000));
    }
}
