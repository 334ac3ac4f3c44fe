//! The text form, to be read beside `objdump`: a line a guest instruction, its operations indented below.
//!
//! ```text
//! region insns=2 source=0x401000+0x7
//! block0 @0x401000:
//!   insn 0x401000 3
//!     v1 = get.i64 rax
//!     v2 = load.i64 [v1 + v1*4 - 0x8]
//!     put.i64 rbx, v2
//!   insn 0x401003 4
//!     v5 = icmp.i64 eq, v1, v2
//!     branch v5, block0, 0x401007
//! ```
//!
//! Blocks behind the pc of a computed exit are those that it is predicted to lead to.
//!
//! A value's number is the index of its instruction in the region, so blocks are printed in the order of their
//! instructions, not of their ids; `parse` then gets back the very same region.

use crate::helper::Helper;
use crate::op::{Format, Op};
use crate::reg::Reg;
use crate::region::{Block, BlockId, Cc, Exit, FaultKind, FloatCc, Inst, Mem, Region, Target, Value};
use crate::types::Type;
use std::fmt::{self, Display, Formatter};

impl Display for Region {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "region insns={}", self.guest_insns)?;
        if self.flags_dead {
            write!(f, " flags=dead")?;
        }
        for (i, (start, len)) in self.source.iter().enumerate() {
            write!(f, "{}{start}+{len:#x}", if i == 0 { " source=" } else { "," })?;
        }
        writeln!(f)?;
        let mut order: Vec<BlockId> = self.block_ids().collect();
        order.sort_by_key(|id| self.blocks[id.0 as usize].start);
        for id in order {
            let block = &self.blocks[id.0 as usize];
            writeln!(f, "{id} @{}:", block.pc)?;
            self.fmt_insts(f, block)?;
            write!(f, "    {}", block.exit)?;
            self.predicted_of(id).try_for_each(|to| write!(f, ", {to}"))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Region {
    fn fmt_insts(&self, f: &mut Formatter<'_>, block: &Block) -> fmt::Result {
        for i in block.start..block.end {
            let inst = &self.insts[i as usize];
            f.write_str(if inst.op == Op::Insn { "  " } else { "    " })?;
            if inst.result_type() != Type::None {
                write!(f, "{} = ", Value(i))?;
            }
            writeln!(f, "{}", InstText { inst, pool: &self.pool })?;
        }
        Ok(())
    }

    /// The text of one instruction, as `Display` shows it but without its value's name.
    pub fn inst_text(&self, v: Value) -> String {
        InstText { inst: &self.insts[v.0 as usize], pool: &self.pool }.to_string()
    }
}

/// An instruction with the pool that its constants are in.
struct InstText<'a> {
    inst: &'a Inst,
    pool: &'a [[u64; 2]],
}

impl InstText<'_> {
    fn constant(&self, slot: usize) -> String {
        match self.pool.get(self.inst.args[slot] as usize) {
            Some([low, high]) => format!("0x{high:016x}_{low:016x}"),
            None => format!("pool{}", self.inst.args[slot]),
        }
    }
}

impl Display for InstText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let inst = self.inst;
        let Inst { op, ty, aux, args } = *inst;
        f.write_str(op.name())?;
        if ty != Type::None {
            write!(f, ".{}", ty.name())?;
        }
        let [a, b, c, d] = args.map(Value);
        match op.format() {
            Format::Nullary => Ok(()),
            Format::Imm => write!(f, " {:#x}", inst.imm()),
            Format::Insn => write!(f, " {:#x} {aux}", inst.imm()),
            Format::Count => {
                let (n, counter, pc) = inst.counted();
                write!(f, " {n}, {:#x}, {counter}", pc.0)
            }
            Format::Pool => write!(f, " {}", self.constant(0)),
            Format::Get => write!(f, " {}", RegText(aux)),
            Format::Put => write!(f, " {}, {a}", RegText(aux)),
            Format::Unary => write!(f, " {a}"),
            Format::Binary => write!(f, " {a}, {b}"),
            Format::Ternary => write!(f, " {a}, {b}, {c}"),
            Format::Compare if op.compares_floats() => write!(f, " {}, {a}, {b}", FloatCc::from_code(aux).name()),
            Format::Compare => write!(f, " {}, {a}, {b}", Cc::from_code(aux).name()),
            Format::Shuffle => write!(f, " {a}, {b}, {}", self.constant(2)),
            Format::Extract => write!(f, " {a}, {aux}"),
            Format::Insert => write!(f, " {a}, {b}, {aux}"),
            Format::Load => write!(f, " {}{}", unaligned(inst), inst.mem()),
            Format::Store => write!(f, " {}{}, {d}", unaligned(inst), inst.mem()),
            Format::Rmw => write!(f, " {}, {}, {d}", inst.rmw_op().name(), inst.mem()),
            Format::Cas => write!(f, " {}, {b}, {d}", inst.mem()),
            Format::FaultIf => write!(f, " {}, {a}", FaultKind::from_code(aux).name()),
            Format::Call => {
                let args: Vec<String> = inst.uses().map(|v| v.to_string()).collect();
                write!(f, " {}({})", Helper::from_code(aux).name(), args.join(", "))
            }
        }
    }
}

fn unaligned(inst: &Inst) -> &'static str {
    if inst.is_unaligned() { "unaligned " } else { "" }
}

/// A register by index, or the index itself where there is none.
struct RegText(u16);

impl Display for RegText {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match Reg::from_index(self.0 as usize) {
            Some(reg) => write!(f, "{reg}"),
            None => write!(f, "reg{}", self.0),
        }
    }
}

impl Display for Mem {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        let mut plus = "";
        if let Some(base) = self.base {
            write!(f, "{base}")?;
            plus = " + ";
        }
        if let Some(index) = self.index {
            write!(f, "{plus}{index}*{}", 1 << self.scale)?;
            plus = " + ";
        }
        match self.disp {
            0 if !plus.is_empty() => {}
            disp if disp < 0 && !plus.is_empty() => write!(f, " - {:#x}", disp.unsigned_abs())?,
            disp if disp < 0 => write!(f, "-{:#x}", disp.unsigned_abs())?,
            disp => write!(f, "{plus}{disp:#x}")?,
        }
        f.write_str("]")
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Target::Block(id) => write!(f, "{id}"),
            Target::Pc(pc) => write!(f, "{pc}"),
        }
    }
}

impl Display for Exit {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Exit::None => f.write_str("open"),
            Exit::Goto(target) => write!(f, "goto {target}"),
            Exit::Branch { cond, taken, fallthrough } => write!(f, "branch {cond}, {taken}, {fallthrough}"),
            Exit::Indirect(v) => write!(f, "indirect {v}"),
            Exit::Call { target, ret } => write!(f, "call {target}, ret {ret}"),
            Exit::CallIndirect { target, ret } => write!(f, "call_indirect {target}, ret {ret}"),
            Exit::Return(v) => write!(f, "return {v}"),
            Exit::Syscall { next } => write!(f, "syscall {next}"),
            Exit::Fault { kind, pc } => write!(f, "fault {}, {pc}", kind.name()),
        }
    }
}
