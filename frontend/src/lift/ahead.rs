//! Look-ahead: which status flags may still be read behind an exit.
//!
//! A few instructions at each known target are decoded; flags that all paths overwrite before reading are dead and need
//! not be put. Unknown targets (returns, indirect jumps, system calls) keep all flags alive.
//!
//! One exception: flags are dead at a call of a linkage stub (`[endbr64] jmp [rip + slot]`). The psABI puts whatever it
//! likes behind such a slot, lazy binding, audit hooks and long-branch veneers, none of which keeps flags.
//!
//! In precise mode an instruction that may fault reads all flags: a signal handler sees them.

use super::flags::FlagSet;
use super::{Insn, LiftOptions};
use crate::decode::{CodeReader, Decoded, Window};
use calque_ir::GuestAddr;
use iced_x86::{CpuidFeature, FlowControl, Mnemonic, OpKind, Register, RflagsBits};

/// Instructions decoded per path; the flags of most blocks die within four.
const DEPTH: u32 = 24;

/// The flags that may be read from `pc` on before they are overwritten.
pub(super) fn live_at(code: &dyn CodeReader, pc: GuestAddr, opts: &LiftOptions) -> FlagSet {
    Ahead { code, precise: opts.precise, floats: opts.precise_floats, window: Window::new() }.live_at(pc, DEPTH)
}

/// The same for the target of a call.
pub(super) fn live_at_call(code: &dyn CodeReader, pc: GuestAddr, opts: &LiftOptions) -> FlagSet {
    Ahead { code, precise: opts.precise, floats: opts.precise_floats, window: Window::new() }.live_at_call(pc, DEPTH)
}

struct Ahead<'a> {
    code: &'a dyn CodeReader,
    precise: bool,
    /// Floating-point instructions may fault, too.
    floats: bool,
    window: Window<32>,
}

/// Where a path goes on.
enum Next {
    Unknown,
    At(GuestAddr),
    Called(GuestAddr),
    Both(GuestAddr, GuestAddr),
}

impl Ahead<'_> {
    /// Flags that are read on some path from `pc` before being overwritten, as far as `depth` instructions show.
    fn live_at(&mut self, pc: GuestAddr, depth: u32) -> FlagSet {
        let (mut live, mut killed) = (FlagSet::NONE, FlagSet::NONE);
        let (mut left, mut next) = (depth, Next::Unknown);
        let (code, precise, floats) = (self.code, self.precise, self.floats);
        self.window.walk(code, pc, |what, i| {
            if what != Decoded::Insn || left == 0 || precise && may_fault(i) || floats && may_raise(i) {
                return false;
            }
            left -= 1;
            live = live.or(from_rflags(i.rflags_read()).without(killed));
            killed = killed.or(kills(i));
            if live.or(killed) == FlagSet::ALL {
                return false;
            }
            next = successor(i);
            i.flow_control() == FlowControl::Next
        });
        if live.or(killed) == FlagSet::ALL {
            return live;
        }
        let rest = match next {
            Next::At(pc) if left > 0 => self.live_at(pc, left),
            Next::Called(pc) if left > 0 => self.live_at_call(pc, left),
            Next::Both(a, b) if left > 1 => self.live_at(a, left / 2).or(self.live_at(b, left / 2)),
            _ => FlagSet::ALL,
        };
        live.or(rest.without(killed))
    }

    fn live_at_call(&mut self, pc: GuestAddr, depth: u32) -> FlagSet {
        let mut stub = false;
        self.window.walk(self.code, pc, |what, i| {
            stub = what == Decoded::Insn && i.mnemonic() == Mnemonic::Jmp && i.is_ip_rel_memory_operand();
            what == Decoded::Insn && i.mnemonic() == Mnemonic::Endbr64
        });
        if stub && !self.precise { FlagSet::NONE } else { self.live_at(pc, depth) }
    }
}

fn successor(i: &Insn) -> Next {
    let near = i.op0_kind() == OpKind::NearBranch64;
    let target = GuestAddr(i.near_branch_target());
    match i.flow_control() {
        FlowControl::UnconditionalBranch if near => Next::At(target),
        FlowControl::Call if near => Next::Called(target),
        FlowControl::ConditionalBranch if near => Next::Both(target, GuestAddr(i.next_ip())),
        _ => Next::Unknown,
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

/// Whether an instruction may raise a fault, so that its flags-before must be in the registers in precise mode.
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

/// Whether an instruction may raise a floating-point exception, for the same reason; more do not harm.
pub(super) fn may_raise(i: &Insn) -> bool {
    let floats = |r: Register| r.is_xmm() || r.is_ymm() || r.is_mm() || r.is_st();
    let of_the_unit = matches!(i.mnemonic(), Mnemonic::Wait | Mnemonic::Emms)
        || i.cpuid_features()
            .iter()
            .any(|f| matches!(f, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387));
    (0..i.op_count()).any(|n| floats(i.op_register(n))) || of_the_unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Bytes;

    fn live(bytes: &[u8], precise: bool) -> FlagSet {
        let pc = GuestAddr(0x1000);
        let opts = LiftOptions { precise, ..LiftOptions::default() };
        live_at(&Bytes { pc, bytes }, pc, &opts)
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

    #[test]
    fn both_paths_count() {
        // je +3; add rax,rbx; (target) adc rax,rbx
        assert_eq!(live(&[0x74, 0x03, 0x48, 0x01, 0xd8, 0x48, 0x11, 0xd8], false), FlagSet::ZF.or(FlagSet::CF));
    }
}
