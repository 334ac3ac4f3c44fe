//! Look-ahead: which status flags may still be read behind an exit.
//!
//! A few instructions at each known target are decoded; flags that all paths overwrite before reading are dead and need
//! not be put. Unknown targets (returns, indirect jumps, system calls) keep all flags alive.
//!
//! One exception: flags are dead at a call of a linkage stub (`[endbr64] jmp [rip + slot]`). The psABI puts whatever it
//! likes behind such a slot, lazy binding, audit hooks and long-branch veneers, none of which keeps flags.
//!
//! In precise mode a signal handler may look at all flags in front of an instruction that may fault. Where execution only goes on there
//! behind the handler ([`LiftOptions::resumable`]), those that are alive do.

use super::flags::FlagSet;
use super::flow::{Live, Run, UNKNOWN};
use super::glance::{Glance, Next, glance};
use super::{Insn, LiftOptions};
use crate::decode::{CodeReader, Window};
use crate::plain;
use calque_ir::GuestAddr;
use iced_x86::{
    CpuidFeature, Decoder, DecoderOptions, FlowControl, MemorySize, Mnemonic, OpKind, Register, RflagsBits,
};
use std::cell::Cell;

/// Instructions decoded per path; the flags of most blocks die within four.
const DEPTH: u32 = 24;

/// The flags that may be read from `pc` on before they are overwritten.
pub(super) fn live_at(code: &dyn CodeReader, near: &Near, pc: GuestAddr, opts: &LiftOptions) -> Live {
    Ahead::new(code, near, opts).live_at(pc, DEPTH)
}

/// The same for the target of a call.
pub(super) fn live_at_call(code: &dyn CodeReader, near: &Near, pc: GuestAddr, opts: &LiftOptions) -> Live {
    Ahead::new(code, near, opts).live_at_call(pc, DEPTH)
}

/// Nothing has been read yet.
pub(super) const NOTHING: &Near = &Near::new();

/// Whether code at `pc` may be arrived at with the flags deferred: nothing reads them before they are all overwritten, or left to an
/// unknown place as they are.
pub fn takes_deferred(code: &dyn CodeReader, pc: GuestAddr, opts: &LiftOptions) -> bool {
    live_at(code, NOTHING, pc, opts).read.is_empty()
}

/// What look-aheads have found, by the place. Good as long as the bytes that they read are what they were.
pub struct FlagMemo([Cell<(u64, Live)>; 1024]);

impl Default for FlagMemo {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Cell::new((NOWHERE, Live::default()))))
    }
}

/// No code is there.
const NOWHERE: u64 = u64::MAX;

impl FlagMemo {
    /// Forgets everything.
    pub fn clear(&self) {
        self.0.iter().for_each(|slot| slot.set((NOWHERE, Live::default())));
    }

    fn slot(&self, pc: GuestAddr) -> &Cell<(u64, Live)> {
        &self.0[(pc.0 ^ pc.0 >> 10) as usize % self.0.len()]
    }

    fn find(&self, pc: GuestAddr) -> Option<Live> {
        let (at, live) = self.slot(pc).get();
        (at == pc.0).then_some(live)
    }

    fn note(&self, pc: GuestAddr, live: Live) {
        self.slot(pc).set((pc.0, live));
    }
}

/// What the lifter has read of the block that looks ahead: what follows is often among it.
pub(super) type Near = Window<64>;

struct Ahead<'a> {
    code: &'a dyn CodeReader,
    opts: &'a LiftOptions,
    near: &'a Near,
    /// Of what is farther away.
    far: Window<32>,
    /// Something was left out because it lies too deep.
    cut: bool,
}

impl<'a> Ahead<'a> {
    fn new(code: &'a dyn CodeReader, near: &'a Near, opts: &'a LiftOptions) -> Self {
        Self { code, opts, near, far: Window::new(), cut: false }
    }

    /// The bytes from `pc` on; at least an instruction's, if there are so many.
    #[inline]
    fn bytes(&mut self, pc: GuestAddr) -> &[u8] {
        match self.near.held(pc) {
            Some(bytes) => bytes,
            None => self.far.read(self.code, pc),
        }
    }

    /// Flags that are read on some path from `pc` before being overwritten, as far as `depth` instructions show. Those that live up to
    /// a computed jump are unknown if no instruction on the way changes others, as in `flow.rs`.
    fn live_at(&mut self, pc: GuestAddr, depth: u32) -> Live {
        if let Some(live) = self.code.memo().and_then(|memo| memo.find(pc)) {
            return live;
        }
        let cut = std::mem::replace(&mut self.cut, false);
        let live = self.explore(pc, depth);
        // What was found at less than full depth, from farther away, is only as good as any other if nothing was missed.
        if (!self.cut || depth == DEPTH)
            && let Some(memo) = self.code.memo()
        {
            memo.note(pc, live);
        }
        self.cut |= cut;
        live
    }

    fn explore(&mut self, mut pc: GuestAddr, depth: u32) -> Live {
        let mut run = Run::default();
        let mut left = depth;
        let next = loop {
            if left == 0 {
                self.cut = true;
                break Next::Outside;
            }
            let Some((insn, stop)) = self.at(pc) else { break Next::Outside };
            left -= 1;
            run.add(&insn, stop);
            if run.reads.or(run.kills) == FlagSet::ALL {
                return run.live(Live::default());
            }
            pc = pc.wrapping_add(insn.len as u64);
            if insn.next != Next::Behind {
                break insn.next;
            }
        };
        let rest = match next {
            Next::At(pc) if left > 0 => self.live_at(pc, left),
            Next::Called(pc) if left > 0 => self.live_at_call(pc, left),
            Next::Both(a, b) if left > 1 => self.live_at(a, left / 2).or(self.live_at(b, left / 2)),
            Next::Computed => UNKNOWN,
            Next::At(_) | Next::Called(_) | Next::Both(..) => {
                self.cut = true;
                Live::read(FlagSet::ALL)
            }
            Next::Outside | Next::Behind => Live::read(FlagSet::ALL),
        };
        run.live(rest)
    }

    /// The instruction at `pc`, and whether a signal handler may look in front of it; `None` if nothing is known of what follows.
    fn at(&mut self, pc: GuestAddr) -> Option<(Glance, bool)> {
        let (precise, precise_floats) = (self.opts.precise, self.opts.precise_floats);
        let bytes = self.bytes(pc);
        if !precise
            && !precise_floats
            && let Some(known) = glance(bytes, pc)
        {
            return Some((known, false));
        }
        // Nothing can be fetched: not worth the decoder's tables.
        if bytes.is_empty() {
            return None;
        }
        let mut insn = Insn::default();
        if !plain::decode(bytes, pc.0, &mut insn) {
            Decoder::with_ip(64, bytes, pc.0, DecoderOptions::NONE).decode_out(&mut insn);
        }
        (!insn.is_invalid()).then(|| (look(&insn), may_stop(&insn, self.opts)))
    }

    fn live_at_call(&mut self, pc: GuestAddr, depth: u32) -> Live {
        const ENDBR64: &[u8] = &[0xf3, 0x0f, 0x1e, 0xfa];
        const JMP_RIP: &[u8] = &[0xff, 0x25];
        let precise = self.opts.precise;
        let bytes = self.bytes(pc);
        let jump = bytes.strip_prefix(ENDBR64).unwrap_or(bytes);
        // BND, or REX.W as padding.
        let jump = jump.strip_prefix(&[0xf2]).or(jump.strip_prefix(&[0x48])).unwrap_or(jump);
        if jump.starts_with(JMP_RIP) && !precise { Live::default() } else { self.live_at(pc, depth) }
    }
}

/// The same of a decoded instruction.
pub(super) fn look(i: &Insn) -> Glance {
    // Rotated by whole turns through CF, an operand and CF stay, and OF does not (to iced-x86 it does).
    let through_carry = matches!(i.mnemonic(), Mnemonic::Rcl | Mnemonic::Rcr);
    let changes = through_carry || !from_rflags(i.rflags_modified()).is_empty();
    Glance { len: i.len(), reads: from_rflags(i.rflags_read()), kills: kills(i), changes, next: successor(i) }
}

pub(super) fn successor(i: &Insn) -> Next {
    let near = i.op0_kind() == OpKind::NearBranch64;
    let far = matches!(i.memory_size(), MemorySize::SegPtr16 | MemorySize::SegPtr32 | MemorySize::SegPtr64);
    let target = GuestAddr(i.near_branch_target());
    match i.flow_control() {
        FlowControl::Next | FlowControl::XbeginXabortXend => Next::Behind,
        FlowControl::UnconditionalBranch if near => Next::At(target),
        FlowControl::Call if near => Next::Called(target),
        FlowControl::ConditionalBranch if near => Next::Both(target, GuestAddr(i.next_ip())),
        FlowControl::IndirectBranch | FlowControl::IndirectCall if !far => Next::Computed,
        FlowControl::Return if i.mnemonic() == Mnemonic::Ret => Next::Computed,
        _ => Next::Outside,
    }
}

/// The flags that an instruction always overwrites (or leaves undefined).
pub(super) fn kills(i: &Insn) -> FlagSet {
    let by_count = matches!(
        i.mnemonic(),
        Mnemonic::Shl
            | Mnemonic::Sal
            | Mnemonic::Shr
            | Mnemonic::Sar
            | Mnemonic::Shld
            | Mnemonic::Shrd
            | Mnemonic::Rol
            | Mnemonic::Ror
            | Mnemonic::Rcl
            | Mnemonic::Rcr
    ) && i.op_kind(i.op_count() - 1) == OpKind::Register;
    // A count in CL or RCX may be zero, and then no flag changes.
    if by_count || i.has_rep_prefix() || i.has_repne_prefix() {
        return FlagSet::NONE;
    }
    from_rflags(i.rflags_modified())
}

pub(super) fn from_rflags(bits: u32) -> FlagSet {
    const MAP: [(u32, FlagSet); 6] = [
        (RflagsBits::CF, FlagSet::CF),
        (RflagsBits::PF, FlagSet::PF),
        (RflagsBits::AF, FlagSet::AF),
        (RflagsBits::ZF, FlagSet::ZF),
        (RflagsBits::SF, FlagSet::SF),
        (RflagsBits::OF, FlagSet::OF),
    ];
    MAP.iter().filter(|(bit, _)| bits & bit != 0).fold(FlagSet::NONE, |set, (_, flag)| set.or(*flag))
}

/// Whether a signal handler may look at the flags in front of an instruction.
pub(super) fn may_stop(i: &Insn, opts: &LiftOptions) -> bool {
    let may_fault = |i| may_fault(i) || super::check::constant_read(i, opts).is_some();
    opts.precise && may_fault(i) || opts.precise_floats && may_raise(i)
}

/// Whether an instruction may raise a fault.
pub(super) fn may_fault(i: &Insn) -> bool {
    let explicit = (0..i.op_count()).any(|n| {
        !matches!(i.op_kind(n), OpKind::Register | OpKind::NearBranch64)
            && (OpKind::MemorySegSI..=OpKind::Memory).contains(&i.op_kind(n))
    });
    let divides = matches!(i.mnemonic(), Mnemonic::Div | Mnemonic::Idiv);
    let no_memory = matches!(i.mnemonic(), Mnemonic::Lea | Mnemonic::Nop);
    let absent = {
        use Mnemonic::{Monitor, Monitorx, Mwait, Mwaitx, Tpause, Umonitor, Umwait};
        matches!(i.mnemonic(), Monitor | Monitorx | Mwait | Mwaitx | Tpause | Umonitor | Umwait)
    };
    let traps = i.is_privileged() || i.flow_control() == FlowControl::Exception || absent;
    explicit && !no_memory || divides || i.is_stack_instruction() || traps
}

/// Whether an instruction may raise a floating-point exception; more do not harm.
fn may_raise(i: &Insn) -> bool {
    let vector = |r: Register| r.is_xmm() || r.is_ymm();
    (0..i.op_count()).any(|n| vector(i.op_register(n))) || is_of_x87(i)
}

/// Whether an instruction is one of the x87 unit or of MMX.
pub(super) fn is_of_x87(i: &Insn) -> bool {
    let of_the_unit = matches!(i.mnemonic(), Mnemonic::Wait | Mnemonic::Emms)
        || i.cpuid_features()
            .iter()
            .any(|f| matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387));
    (0..i.op_count()).map(|n| i.op_register(n)).any(|r| r.is_mm() || r.is_st()) || of_the_unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{Bytes, MAX_INSN};

    fn live(bytes: &[u8], precise: bool) -> FlagSet {
        let pc = GuestAddr(0x1000);
        let opts = LiftOptions { precise, ..LiftOptions::default() };
        live_at(&Bytes { pc, bytes }, NOTHING, pc, &opts).all()
    }

    #[test]
    fn what_lives_up_to_a_return_is_unknown() {
        let at = |bytes: &[u8]| {
            let pc = GuestAddr(0x1000);
            live_at(&Bytes { pc, bytes }, NOTHING, pc, &LiftOptions::default())
        };
        assert_eq!(at(&[0x5b, 0xc3]), UNKNOWN); // pop rbx; ret
        assert_eq!(at(&[0x48, 0xff, 0xc3, 0xc3]), Live::read(FlagSet::CF)); // inc rbx; ret
        assert_eq!(at(&[0x74, 0x01, 0x90, 0xc3]), Live { read: FlagSet::ZF, ..UNKNOWN }); // je +1; nop; ret
        assert_eq!(at(&[0x0f, 0x05]), Live::read(FlagSet::ALL)); // syscall
    }

    #[test]
    fn overwritten_flags_are_dead() {
        assert_eq!(live(&[0x48, 0x01, 0xd8], false), FlagSet::NONE); // add rax,rbx
        assert_eq!(live(&[0x48, 0xff, 0xc0, 0x48, 0x01, 0xd8], false), FlagSet::NONE); // inc rax; add
        assert_eq!(live(&[0x0f, 0x92, 0xc0, 0x48, 0x01, 0xd8], false), FlagSet::CF); // setb al; add
    }

    #[test]
    fn unknown_keeps_flags_alive() {
        assert_eq!(live(&[0xc3], false), FlagSet::ALL); // ret
        assert_eq!(live(&[0x48, 0xd3, 0xe0, 0xc3], false), FlagSet::ALL); // shl rax,cl; ret
        assert_eq!(live(&[0x48, 0x03, 0x03], true), FlagSet::ALL); // add rax,[rbx], precise
    }

    #[test]
    fn linkage_stubs_keep_no_flags() {
        let call_to_next = [0xe8, 0, 0, 0, 0];
        let stub = [0xf3, 0x0f, 0x1e, 0xfa, 0xff, 0x25, 0, 0x10, 0, 0]; // endbr64; jmp [rip+0x1000]
        assert_eq!(live(&[&call_to_next[..], &stub].concat(), false), FlagSet::NONE);
        assert_eq!(live(&stub, false), FlagSet::ALL, "only where it is called");
    }

    /// Code that remembers what look-aheads find, and counts how often they read.
    struct Remembered<'a> {
        code: Bytes<'a>,
        flags: FlagMemo,
        reads: Cell<u32>,
    }

    impl CodeReader for Remembered<'_> {
        fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
            self.reads.set(self.reads.get() + 1);
            self.code.read(pc, buf)
        }

        fn memo(&self) -> Option<&FlagMemo> {
            Some(&self.flags)
        }
    }

    #[test]
    fn what_was_found_is_remembered_unless_it_was_cut_short() {
        // Ten times NOP; jmp X; X: twenty times NOP; add rax,rbx
        let bytes = [&[0x90; 10][..], &[0xeb, 0], &[0x90; 20], &[0x48, 0x01, 0xd8]].concat();
        let (start, x) = (GuestAddr(0x1000), GuestAddr(0x100c));
        let code =
            Remembered { code: Bytes { pc: start, bytes: &bytes }, flags: FlagMemo::default(), reads: Cell::new(0) };
        let opts = LiftOptions::default();
        assert_eq!(live_at(&code, NOTHING, start, &opts).all(), FlagSet::ALL, "too far");
        assert_eq!(live_at(&code, NOTHING, x, &opts).all(), FlagSet::NONE, "seen from here, it is near enough");
        let reads = code.reads.get();
        assert_eq!(live_at(&code, NOTHING, x, &opts).all(), FlagSet::NONE);
        assert_eq!(code.reads.get(), reads);
        code.flags.clear();
        assert_eq!(live_at(&code, NOTHING, x, &opts).all(), FlagSet::NONE);
        assert!(code.reads.get() > reads);
    }

    #[test]
    fn both_paths_count() {
        // je +3; add rax,rbx; (target) adc rax,rbx
        assert_eq!(live(&[0x74, 0x03, 0x48, 0x01, 0xd8, 0x48, 0x11, 0xd8], false), FlagSet::ZF.or(FlagSet::CF));
    }
}
