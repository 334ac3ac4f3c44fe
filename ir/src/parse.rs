//! Reads the text form that `print.rs` writes; `parse_region(&region.to_string())` gives back the same region.
//!
//! More lenient than the printer where that helps people: values may have any name that starts with `v`, `;` starts
//! a comment, the `region` line may be missing, indentation means nothing.

use crate::addr::GuestAddr;
use crate::helper::Helper;
use crate::op::{Format, Op};
use crate::reg::Reg;
use crate::region::{Block, BlockId, Cc, Exit, FaultKind, FloatCc, Inst, Mem, Region, RmwOp, Target, Value};
use crate::types::Type;
use std::collections::HashMap;

/// A line that is not IR.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Number of the line, from 1.
    pub line: usize,
    pub message: String,
}

type Result<T> = std::result::Result<T, String>;

/// Parses one region.
pub fn parse_region(text: &str) -> std::result::Result<Region, ParseError> {
    let mut parser = Parser::default();
    for (i, line) in text.lines().enumerate() {
        let code = line.split(';').next().unwrap_or_default().trim();
        if !code.is_empty() {
            parser.line(code).map_err(|message| ParseError { line: i + 1, message })?;
        }
    }
    let line = text.lines().count();
    parser.finish().map_err(|message| ParseError { line, message })
}

#[derive(Default)]
struct Parser {
    region: Region,
    names: HashMap<String, Value>,
    /// The open block.
    current: Option<BlockId>,
    has_header: bool,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(rest) = line.strip_prefix("region") {
            self.has_header = true;
            return self.header(rest);
        }
        if let Some(label) = line.strip_suffix(':') {
            return self.label(label);
        }
        let current = self.current.ok_or("no block is open")?;
        if let Some(exit) = self.exit(line, current)? {
            let end = self.region.insts.len() as u32;
            let block = &mut self.region.blocks[current.0 as usize];
            (block.end, block.exit) = (end, exit);
            self.current = None;
            return Ok(());
        }
        let (name, text) = match line.split_once(" = ") {
            Some((name, text)) => (Some(name.trim()), text.trim()),
            None => (None, line),
        };
        let inst = self.inst(text)?;
        if (inst.result_type() == Type::None) != name.is_none() {
            return Err(format!("{} {} a result", inst.op.name(), if name.is_some() { "has not" } else { "has" }));
        }
        if let Some(name) = name {
            self.names.insert(name.to_owned(), Value(self.region.insts.len() as u32));
        }
        self.region.guest_insns += u32::from(!self.has_header && inst.op == Op::Insn);
        self.region.insts.push(inst);
        Ok(())
    }

    fn finish(mut self) -> Result<Region> {
        if let Some(open) = self.current {
            return Err(format!("{open} has no exit"));
        }
        if self.region.blocks.is_empty() {
            return Err("no block".into());
        }
        self.region.predicted.sort_by_key(|(from, _)| *from);
        Ok(self.region)
    }

    fn header(&mut self, rest: &str) -> Result<()> {
        for field in rest.split_whitespace() {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("`{field}` is not key=value"))?;
            match key {
                "insns" => self.region.guest_insns = number(value)? as u32,
                "flags" if value == "dead" => self.region.flags_dead = true,
                "source" => {
                    for range in value.split(',') {
                        let (start, len) =
                            range.split_once('+').ok_or_else(|| format!("`{range}` is not start+len"))?;
                        self.region.source.push((GuestAddr(number(start)?), number(len)? as u32));
                    }
                }
                _ => return Err(format!("unknown field `{key}`")),
            }
        }
        Ok(())
    }

    fn label(&mut self, label: &str) -> Result<()> {
        if let Some(open) = self.current {
            return Err(format!("{open} has no exit"));
        }
        let (id, pc) = label.split_once(" @").ok_or("a label is `blockN @pc:`")?;
        let (id, pc) = (block_id(id)?, GuestAddr(number(pc)?));
        let at = self.region.insts.len() as u32;
        let missing = Block { pc: GuestAddr(0), start: at, end: at, exit: Exit::None };
        let count = self.region.blocks.len().max(id.0 as usize + 1);
        self.region.blocks.resize(count, missing);
        self.region.blocks[id.0 as usize] = Block { pc, start: at, end: at, exit: Exit::None };
        self.current = Some(id);
        Ok(())
    }

    fn exit(&mut self, line: &str, from: BlockId) -> Result<Option<Exit>> {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let mut operands: Vec<&str> = rest.split(',').map(str::trim).collect();
        let fixed = match word {
            "indirect" | "return" => 1,
            "call_indirect" => 2,
            _ => operands.len(),
        };
        for to in operands.drain(fixed.min(operands.len())..) {
            self.region.predicted.push((from, block_id(to)?));
        }
        let exit = match (word, operands.as_slice()) {
            ("open", [""]) => Exit::None,
            ("goto", [to]) => Exit::Goto(target(to)?),
            ("branch", [cond, taken, fallthrough]) => {
                Exit::Branch { cond: self.value(cond)?, taken: target(taken)?, fallthrough: target(fallthrough)? }
            }
            ("indirect", [v]) => Exit::Indirect(self.value(v)?),
            ("return", [v]) => Exit::Return(self.value(v)?),
            ("call", [to, ret]) if ret.starts_with("ret ") => {
                Exit::Call { target: target(to)?, ret: GuestAddr(number(&ret[4..])?) }
            }
            ("call_indirect", [to, ret]) if ret.starts_with("ret ") => {
                Exit::CallIndirect { target: self.value(to)?, ret: GuestAddr(number(&ret[4..])?) }
            }
            ("syscall", [next]) => Exit::Syscall { next: GuestAddr(number(next)?) },
            ("fault", [kind, pc]) => Exit::Fault {
                kind: FaultKind::from_name(kind).ok_or_else(|| format!("no fault `{kind}`"))?,
                pc: GuestAddr(number(pc)?),
            },
            _ => return Ok(None),
        };
        Ok(Some(exit))
    }

    fn value(&self, name: &str) -> Result<Value> {
        self.names.get(name).copied().ok_or_else(|| format!("`{name}` is not defined above"))
    }

    fn inst(&mut self, text: &str) -> Result<Inst> {
        let (head, rest) = text.split_once(' ').unwrap_or((text, ""));
        let (name, ty) = match head.split_once('.') {
            Some((name, ty)) => (name, type_named(ty)?),
            None => (head, Type::None),
        };
        let op = Op::from_name(name).ok_or_else(|| format!("no operation `{name}`"))?;
        let rest = rest.trim();
        let operands = split_operands(rest);
        let mut inst = Inst { op, ty, aux: 0, args: [0; 4] };
        let [first, second, third] = std::array::from_fn(|i| operands.get(i).copied().unwrap_or_default());
        let count = match op.format() {
            Format::Nullary => 0,
            Format::Imm => {
                inst.args = Inst::imm_args(number(first)?);
                1
            }
            Format::Insn => {
                let (pc, len) = first.split_once(' ').ok_or("`insn` takes pc and length")?;
                inst.args = Inst::imm_args(number(pc)?);
                inst.aux = number(len)? as u16;
                1
            }
            Format::Count => {
                let (n, pc, counter) = (number(first)?, number(second)?, number(third)?);
                inst.args = Inst::count_args(n as u32, counter as u32, GuestAddr(pc));
                3
            }
            Format::Pool => {
                inst.args[0] = self.constant(first)?;
                1
            }
            Format::Get => {
                inst.aux = register(first)?;
                1
            }
            Format::Put => {
                inst.aux = register(first)?;
                inst.args[0] = self.value(second)?.0;
                2
            }
            Format::Unary => self.values(&mut inst, &operands, 1)?,
            Format::Binary => self.values(&mut inst, &operands, 2)?,
            Format::Ternary => self.values(&mut inst, &operands, 3)?,
            Format::Compare => {
                inst.aux = condition(op, first)?;
                1 + self.values(&mut inst, operands.get(1..).unwrap_or_default(), 2)?
            }
            Format::Shuffle => {
                inst.args[2] = self.constant(third)?;
                1 + self.values(&mut inst, &operands, 2)?
            }
            Format::Extract => {
                inst.aux = number(second)? as u16;
                1 + self.values(&mut inst, &operands, 1)?
            }
            Format::Insert => {
                inst.aux = number(third)? as u16;
                1 + self.values(&mut inst, &operands, 2)?
            }
            Format::Load => {
                self.mem(&mut inst, first)?;
                1
            }
            Format::Store => {
                self.mem(&mut inst, first)?;
                inst.args[3] = self.value(second)?.0;
                2
            }
            Format::Rmw => {
                self.mem(&mut inst, second)?;
                let op = RmwOp::from_name(first).ok_or_else(|| format!("no rmw operation `{first}`"))?;
                inst.aux |= (op as u16) << 4;
                inst.args[3] = self.value(third)?.0;
                3
            }
            Format::Cas => {
                let mem = self.mem_operand(first)?;
                let (Some(base), None) = (mem.base, mem.index) else { return Err("`cas` takes [base + disp]".into()) };
                inst.args = [base.0, self.value(second)?.0, mem.disp as u32, self.value(third)?.0];
                3
            }
            Format::FaultIf => {
                inst.aux = FaultKind::from_name(first).ok_or_else(|| format!("no fault `{first}`"))? as u16;
                inst.args[0] = self.value(second)?.0;
                2
            }
            Format::Call => return self.call(inst, rest),
        };
        if operands.len() != count {
            return Err(format!("`{name}` takes {count} operands, not {}", operands.len()));
        }
        Ok(inst)
    }

    /// Fills the first `count` operand slots; yields `count`.
    fn values(&self, inst: &mut Inst, operands: &[&str], count: usize) -> Result<usize> {
        if operands.len() < count {
            return Err(format!("`{}` lacks operands", inst.op.name()));
        }
        for (slot, name) in inst.args.iter_mut().zip(&operands[..count]) {
            *slot = self.value(name)?.0;
        }
        Ok(count)
    }

    fn call(&self, mut inst: Inst, text: &str) -> Result<Inst> {
        let (name, args) = text.strip_suffix(')').and_then(|t| t.split_once('(')).ok_or("`call` takes helper(args)")?;
        inst.aux = Helper::from_name(name).ok_or_else(|| format!("no helper `{name}`"))? as u16;
        inst.args = [Value::NONE.0, Value::NONE.0, Value::NONE.0, 0];
        let args = split_operands(args);
        if args.len() > 3 {
            return Err("a helper takes at most 3 arguments".into());
        }
        self.values(&mut inst, &args, args.len())?;
        Ok(inst)
    }

    fn constant(&mut self, text: &str) -> Result<u32> {
        let (high, low) = text.split_once('_').ok_or_else(|| format!("`{text}` is not 0xhigh_low"))?;
        let v = [number(&format!("0x{low}"))?, number(high)?];
        let pool = &mut self.region.pool;
        let index = pool.iter().position(|p| *p == v).unwrap_or_else(|| {
            pool.push(v);
            pool.len() - 1
        });
        Ok(index as u32)
    }

    fn mem(&self, inst: &mut Inst, text: &str) -> Result<()> {
        let text = match text.strip_prefix("unaligned ") {
            Some(operand) if matches!(inst.op, Op::Load | Op::Store) => {
                inst.aux |= Inst::UNALIGNED;
                operand
            }
            _ => text,
        };
        let mem = self.mem_operand(text)?;
        inst.args[0] = mem.base.unwrap_or(Value::NONE).0;
        inst.args[1] = mem.index.unwrap_or(Value::NONE).0;
        inst.args[2] = mem.disp as u32;
        inst.aux |= u16::from(mem.scale);
        Ok(())
    }

    fn mem_operand(&self, text: &str) -> Result<Mem> {
        let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        let inner = inner.ok_or_else(|| format!("`{text}` is not a memory operand"))?;
        let mut mem = Mem { base: None, index: None, scale: 0, disp: 0 };
        let mut negative = false;
        for token in inner.split_whitespace() {
            match token {
                "+" => negative = false,
                "-" => negative = true,
                _ if token.starts_with('v') => match token.split_once('*') {
                    Some((index, scale)) => {
                        mem.index = Some(self.value(index)?);
                        mem.scale = number(scale)?.trailing_zeros() as u8 & 3;
                    }
                    None => mem.base = Some(self.value(token)?),
                },
                _ => {
                    let (negative, digits) = match token.strip_prefix('-') {
                        Some(digits) => (true, digits),
                        None => (negative, token),
                    };
                    let disp = number(digits)? as i64;
                    let disp = if negative { -disp } else { disp };
                    mem.disp = i32::try_from(disp).map_err(|_| format!("displacement {disp:#x} does not fit"))?;
                }
            }
        }
        Ok(mem)
    }
}

/// Operands at the commas.
fn split_operands(text: &str) -> Vec<&str> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::trim).collect() }
}

/// A number, decimal or with `0x`.
fn number(text: &str) -> Result<u64> {
    let text = text.trim();
    let parsed = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| format!("`{text}` is not a number"))
}

fn block_id(text: &str) -> Result<BlockId> {
    let id = text.strip_prefix("block").and_then(|n| n.parse::<u16>().ok());
    id.map(|n| BlockId(n.into())).ok_or_else(|| format!("`{text}` is not a block"))
}

fn target(text: &str) -> Result<Target> {
    if text.starts_with("block") {
        Ok(Target::Block(block_id(text)?))
    } else {
        Ok(Target::Pc(GuestAddr(number(text)?)))
    }
}

fn register(name: &str) -> Result<u16> {
    Reg::all()
        .find(|reg| reg.name() == name)
        .map(|reg| reg.index() as u16)
        .ok_or_else(|| format!("no register `{name}`"))
}

fn type_named(name: &str) -> Result<Type> {
    Type::ALL.into_iter().find(|ty| ty.name() == name).ok_or_else(|| format!("no type `{name}`"))
}

fn condition(op: Op, name: &str) -> Result<u16> {
    let code = match op {
        Op::Fcmp | Op::FcmpSignaling => FloatCc::from_name(name).map(|cc| cc as u16),
        _ => Cc::from_name(name).map(|cc| cc as u16),
    };
    code.ok_or_else(|| format!("no condition `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every format once, in the printer's own hand.
    const ALL_FORMATS: &str = "\
region insns=2 source=0x401000+0x7,0x402000+0x3
block1 @0x402000:
    v0 = get.i64 rax
    v1 = iconst.i64 0xfffffffffffffff0
    v2 = iadd.i64 v0, v1
    indirect v2
block0 @0x401000:
  insn 0x401000 3
    v4 = get.i64 rcx
    v5 = load.i32 [v4 + v4*8 - 0x10]
    v6 = load.v128 [-0x8]
    v7 = load.i64 [v4*4 + 0x20]
    store.i32 [v4], v5
    v9 = rmw.i32 xchg, [v4 + 0x4], v5
    v10 = cas.i64 [v4 - 0x8], v4, v7
    v11 = vconst.v128 0x0000000000000001_ffffffffffffffff
    v12 = shuffle.i8x16 v6, v11, 0x0f0e0d0c0b0a0908_0706050403020100
    v13 = extract_lane.i32x4 v12, 3
    v14 = insert_lane.i32x4 v12, v13, 1
    v15 = fcmp.f32x4 uno, v12, v14
    v16 = icmp.i32 slt, v13, v5
    v17 = select.i32 v16, v13, v5
    v18 = call.i64 udiv128(v4, v4, v7)
    v19 = call.i64 rdtsc()
    fault_if de, v16
    fence
    count 2, 0x1000, 7
    put.v128 xmm3, v15
  insn 0x401003 4
    branch v16, block1, 0x401007
";

    #[test]
    fn printing_and_parsing_are_inverse() {
        let region = parse_region(ALL_FORMATS).unwrap();
        assert_eq!(region.to_string(), ALL_FORMATS);
        assert_eq!(parse_region(&region.to_string()).unwrap(), region);
        assert_eq!(crate::verify::verify(&region), Ok(()));
    }

    #[test]
    fn errors_name_the_line() {
        let message = |text: &str| parse_region(text).unwrap_err().to_string();
        assert_eq!(message("block0 @0x1:\n  v1 = iadd.i64 v8, v9\n"), "line 2: `v8` is not defined above");
        assert_eq!(message("block0 @0x1:\n  frob\n"), "line 2: no operation `frob`");
        assert_eq!(message("block0 @0x1:\n  v1 = iconst.i64 0x1\n"), "line 2: block0 has no exit");
        assert_eq!(message("block0 @0x1:\n  v1 = get.i64 rax, rbx\n"), "line 2: `get` takes 1 operands, not 2");
    }

    #[test]
    fn every_exit_survives() {
        for exit in [
            "goto 0x10",
            "indirect vx",
            "return vx",
            "call 0x20, ret 0x5",
            "call_indirect vx, ret 0x5",
            "syscall 0x2",
            "fault ud, 0x1",
        ] {
            let text = format!("block0 @0x1:\n vx = get.i64 rax ; comment\n {exit}\n");
            let region = parse_region(&text).unwrap();
            assert_eq!(region.blocks[0].exit.to_string(), exit.replace("vx", "v0"));
        }
    }
}
