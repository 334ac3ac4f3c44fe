//! Every operation of the IR, in every type it exists for: it compiles for both hosts, and on this one its code and the
//! interpreter agree on random operands and on the awkward ones.
//!
//! A case is a region that reads operands from guest registers, applies the operation, and puts the result into a register:
//! RAX/RCX/RDX (integers), XMM0..2 (vectors and floats), CF PF AF (conditions) in; RBX, XMM3, ZF out. Memory operands address
//! a buffer of the test through RSI and RDI.
#![allow(unsafe_code)]

#[path = "common/a64.rs"]
mod a64;
mod common;

use calque_backend::{Compiler, EmitOptions, Emitter, HostIsa, MemoryOrder, Verify};
use calque_ir::helper::HelperEffect;
use calque_ir::verify::allowed_types;
use calque_ir::{Builder, Exit, Format, GuestAddr, Helper, Mem, Op, Reg, Region, RmwOp, Target, Type, Value};
use common::{Random, Runner};

const PC: GuestAddr = GuestAddr(0x40_1000);
const NEXT: GuestAddr = GuestAddr(0x40_1004);

/// Operand `slot` of the wanted type out of the guest registers.
fn operand(b: &mut Builder, slot: usize, ty: Type) -> Value {
    let gpr = [Reg::RAX, Reg::RCX, Reg::RDX][slot];
    match ty {
        Type::I1 => b.get(Type::I1, [Reg::CF, Reg::PF, Reg::AF][slot]),
        ty if ty.is_int() => b.get(ty, gpr),
        ty if ty.is_vector() => b.get(Type::V128, Reg::xmm(slot)),
        ty => b.get(ty, Reg::xmm(slot)),
    }
}

/// Puts a result where the test looks at it.
fn result(b: &mut Builder, v: Value) {
    match b.ty(v) {
        Type::None => {}
        Type::I1 => b.put(Reg::ZF, v),
        Type::I32 | Type::I64 => b.put(Reg::RBX, v),
        Type::I8 | Type::I16 => {
            let wide = b.unary(Op::Uextend, Type::I64, v);
            b.put(Reg::RBX, wide);
        }
        ty if ty.is_vector() => b.put(Reg::xmm(3), v),
        ty => {
            let shape = if ty == Type::F32 { Type::F32x4 } else { Type::F64x2 };
            let vector = b.unary(Op::ScalarToVector, shape, v);
            b.put(Reg::xmm(3), vector);
        }
    }
}

/// Operand types of an operation, in slot order; several if it takes several.
fn operand_types(op: Op, ty: Type) -> Vec<Vec<Type>> {
    let own = ty.value_type();
    let narrower = |to: Type| [Type::I8, Type::I16, Type::I32].into_iter().filter(move |t| t.bits() < to.bits());
    match op {
        Op::Select => vec![vec![Type::I1, own, own]],
        Op::UaddOverflowCin | Op::SaddOverflowCin | Op::UsubOverflowBin | Op::SsubOverflowBin => {
            vec![vec![own, own, Type::I1]]
        }
        Op::InsertLow8 | Op::InsertHigh8 => vec![vec![Type::I64, Type::I8]],
        Op::InsertLow16 => vec![vec![Type::I64, Type::I16]],
        Op::Vshl | Op::Vushr | Op::Vsshr => vec![vec![own, Type::I64]],
        Op::InsertLane => vec![vec![own, ty.lane()]],
        Op::Splat | Op::ScalarToVector => vec![vec![ty.lane()]],
        Op::Concat => vec![vec![Type::I64, Type::I64]],
        Op::Fpromote => vec![vec![Type::F32]],
        Op::Fdemote => vec![vec![Type::F64]],
        Op::Bitcast => match ty {
            Type::I32 => vec![vec![Type::F32]],
            Type::F32 => vec![vec![Type::I32]],
            Type::I64 => vec![vec![Type::F64]],
            Type::F64 => vec![vec![Type::I64]],
            _ => vec![],
        },
        Op::Uextend => narrower(ty).chain([Type::I1]).map(|t| vec![t]).collect(),
        Op::Sextend => narrower(ty).map(|t| vec![t]).collect(),
        Op::Ireduce => {
            let wider = [Type::I8, Type::I16, Type::I32, Type::I64].into_iter().filter(|t| t.bits() > ty.bits());
            wider.map(|t| vec![t]).collect()
        }
        Op::FcvtFromSint if !ty.is_vector() => vec![vec![Type::I32], vec![Type::I64]],
        Op::FcvtToSint | Op::FcvtToSintTrunc if !ty.is_vector() => vec![vec![Type::F32], vec![Type::F64]],
        _ => match op.format() {
            Format::Unary | Format::Extract => vec![vec![own]],
            Format::Binary | Format::Compare | Format::Shuffle => vec![vec![own; 2]],
            Format::Ternary => vec![vec![own; 3]],
            _ => vec![],
        },
    }
}

/// Values of `aux` to try.
fn aux_values(op: Op, ty: Type) -> Vec<u16> {
    match op.format() {
        Format::Compare if op == Op::Fcmp => (0..14).collect(),
        Format::Compare if ty == Type::I1 => (0..2).collect(),
        Format::Compare => (0..10).collect(),
        Format::Extract | Format::Insert => (0..ty.lanes() as u16).collect(),
        _ => vec![0],
    }
}

fn in_region(name: String, body: impl FnOnce(&mut Builder)) -> (String, Region) {
    let mut b = Builder::new();
    let block = b.create_block(PC);
    b.switch_to(block);
    b.insn(PC, 4);
    body(&mut b);
    b.exit(Exit::Goto(Target::Pc(NEXT)));
    let mut region = b.finish();
    region.source = [(PC, 4)].into();
    (name, region)
}

/// Counts of the operand's type below its width, as the row for shifts asks.
fn masked_count(b: &mut Builder, ty: Type, v: Value) -> Value {
    let mask = b.iconst(ty, u64::from(ty.bits()) - 1);
    b.binary(Op::Band, ty, v, mask)
}

fn operation_cases(cases: &mut Vec<(String, Region)>) {
    for &op in Op::ALL {
        for &ty in allowed_types(op) {
            for operands in operand_types(op, ty) {
                for aux in aux_values(op, ty) {
                    let name = format!("{}.{} {operands:?} {aux}", op.name(), ty.name());
                    cases.push(in_region(name, |b| {
                        let mut args = [0; 4];
                        for (slot, &t) in operands.iter().enumerate() {
                            let mut v = operand(b, slot, t);
                            if slot == 1 && matches!(op, Op::Ishl | Op::Ushr | Op::Sshr | Op::Rotl | Op::Rotr) {
                                v = masked_count(b, ty, v);
                            }
                            args[slot] = v.0;
                        }
                        if op == Op::Shuffle {
                            args[2] = b.pool([0x1f02_0311_0405_8007, 0x0f01_1213_8015_1617]);
                        }
                        let v = b.inst(op, ty, aux, args);
                        result(b, v);
                    }));
                }
            }
        }
    }
}

/// Operands that lowering looks at as constants.
fn constant_cases(cases: &mut Vec<(String, Region)>) {
    for ty in [Type::I8x16, Type::I16x8, Type::I32x4, Type::I64x2] {
        for op in [Op::Vshl, Op::Vushr, Op::Vsshr] {
            for count in [0, 1, 7, 15, 31, 63, 64, 255] {
                cases.push(in_region(format!("{}.{} by {count}", op.name(), ty.name()), |b| {
                    let (x, count) = (b.get(Type::V128, Reg::xmm(0)), b.iconst(Type::I64, count));
                    let v = b.binary(op, ty, x, count);
                    result(b, v);
                }));
            }
        }
    }
    for bytes in [[0u64, 0], [0x0706_0504_0302_0100, 0x1716_1514_1312_1110], [!0, !0], [0x1112_1314_1516_1718, !0]] {
        cases.push(in_region(format!("shuffle {bytes:x?}"), |b| {
            let (x, y, k) = (b.get(Type::V128, Reg::xmm(0)), b.get(Type::V128, Reg::xmm(1)), b.pool(bytes));
            let v = b.inst(Op::Shuffle, Type::I8x16, 0, [x.0, y.0, k, 0]);
            result(b, v);
        }));
    }
    for ty in [Type::I8, Type::I16, Type::I32, Type::I64] {
        for op in [Op::Udiv, Op::Urem] {
            cases.push(in_region(format!("{}.{} of 0:low", op.name(), ty.name()), |b| {
                let (high, low, by) = (b.iconst(ty, 0), b.get(ty, Reg::RAX), b.get(ty, Reg::RCX));
                let v = b.ternary(op, ty, high, low, by);
                result(b, v);
            }));
        }
        for op in [Op::Sdiv, Op::Srem] {
            cases.push(in_region(format!("{}.{} of sign:low", op.name(), ty.name()), |b| {
                let (low, by) = (b.get(ty, Reg::RAX), b.get(ty, Reg::RCX));
                let width = b.iconst(ty, u64::from(ty.bits()) - 1);
                let high = b.binary(Op::Sshr, ty, low, width);
                let v = b.ternary(op, ty, high, low, by);
                result(b, v);
            }));
        }
        cases.push(in_region(format!("iadd.{} with its carry", ty.name()), |b| {
            let (x, y) = (b.get(ty, Reg::RAX), b.get(ty, Reg::RCX));
            let sum = b.binary(Op::Iadd, ty, x, y);
            let carry = b.binary(Op::UaddOverflow, ty, x, y);
            result(b, sum);
            result(b, carry);
        }));
        cases.push(in_region(format!("not of icmp.{}", ty.name()), |b| {
            let (x, y) = (b.get(ty, Reg::RAX), b.get(ty, Reg::RCX));
            let less = b.icmp(calque_ir::Cc::SignedLessThan, ty, x, y);
            let not = b.unary(Op::Bnot, Type::I1, less);
            result(b, not);
        }));
    }
    for ty in [Type::I1, Type::I8, Type::I16, Type::I32, Type::I64] {
        for imm in [0, 1, 0x80, 0xffff_8000, !0] {
            cases.push(in_region(format!("iconst.{} {imm:#x}", ty.name()), |b| {
                let v = b.iconst(ty, imm);
                result(b, v);
            }));
        }
    }
    cases.push(in_region("vconst".into(), |b| {
        let v = b.vconst([0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210]);
        result(b, v);
    }));
}

/// Constants as operands, which take a scratch register each in the emitter.
fn constant_operand_cases(cases: &mut Vec<(String, Region)>) {
    let wanted = |op: &&Op| matches!(op.format(), Format::Binary | Format::Ternary | Format::Compare);
    for &op in Op::ALL.iter().filter(wanted).filter(|op| !op.may_stop()) {
        for &ty in allowed_types(op).iter().filter(|ty| ty.is_int()) {
            for operands in operand_types(op, ty) {
                for constants in (0..operands.len()).map(|slot| 1 << slot) {
                    let name = format!("{}.{} constants {constants:#b} {operands:?}", op.name(), ty.name());
                    cases.push(in_region(name, |b| {
                        let mut args = [0; 4];
                        for (slot, &t) in operands.iter().enumerate() {
                            let constant = constants >> slot & 1 != 0;
                            let v = if constant && t != Type::I1 && t.is_int() {
                                b.iconst(t, 0xf1f2_f3f4_0102_8305 & (u64::MAX >> (64 - t.bits())))
                            } else {
                                operand(b, slot, t)
                            };
                            let shifts = matches!(op, Op::Ishl | Op::Ushr | Op::Sshr | Op::Rotl | Op::Rotr);
                            args[slot] = if slot == 1 && shifts { masked_count(b, ty, v).0 } else { v.0 };
                        }
                        let v = b.inst(op, ty, 0, args);
                        result(b, v);
                    }));
                }
            }
        }
    }
}

fn memory_cases(cases: &mut Vec<(String, Region)>) {
    let at = |b: &mut Builder, indexed: bool| Mem {
        base: Some(b.get(Type::I64, Reg::RSI)),
        index: indexed.then(|| b.get(Type::I64, Reg::RDI)),
        scale: 2 * u8::from(indexed),
        disp: 16,
    };
    for &ty in allowed_types(Op::Load) {
        for indexed in [false, true] {
            cases.push(in_region(format!("load.{} indexed={indexed}", ty.name()), |b| {
                let m = at(b, indexed);
                let v = b.load(ty, m);
                result(b, v);
            }));
            cases.push(in_region(format!("store.{} indexed={indexed}", ty.name()), |b| {
                let (m, v) = (at(b, indexed), operand(b, 0, ty));
                b.store(ty, m, v);
            }));
        }
    }
    for (op, to) in
        [(Op::Uextend, Type::I32), (Op::Uextend, Type::I64), (Op::Sextend, Type::I32), (Op::Sextend, Type::I64)]
    {
        for ty in [Type::I8, Type::I16, Type::I32].into_iter().filter(|t| t.bits() < to.bits()) {
            cases.push(in_region(format!("{}.{} of load.{}", op.name(), to.name(), ty.name()), |b| {
                let m = at(b, false);
                let v = b.load(ty, m);
                let wide = b.unary(op, to, v);
                result(b, wide);
            }));
        }
    }
    for &ty in allowed_types(Op::Rmw) {
        for &op in RmwOp::ALL {
            cases.push(in_region(format!("rmw.{} {}", ty.name(), op.name()), |b| {
                let (m, v) = (at(b, false), operand(b, 0, ty));
                let old = b.rmw(op, ty, m, v);
                result(b, old);
            }));
        }
    }
    for &ty in allowed_types(Op::Cas) {
        for matches in [false, true] {
            cases.push(in_region(format!("cas.{} matches={matches}", ty.name()), |b| {
                let m = at(b, false);
                let (base, new) = (m.base.expect("a base"), operand(b, 1, ty));
                let expected = if matches { b.load(ty, m) } else { operand(b, 0, ty) };
                let old = b.cas(ty, base, 16, expected, new);
                result(b, old);
            }));
        }
    }
    cases.push(in_region("uncarried".into(), |b| {
        let v = b.uncarried();
        result(b, v);
    }));
    cases.push(in_region("fence and count".into(), |b| {
        b.fence();
        b.inst(Op::Count, Type::None, 0, calque_ir::Inst::count_args(5, 3, PC));
    }));
}

fn register_cases(cases: &mut Vec<(String, Region)>) {
    for reg in Reg::all().filter(|&r| r != Reg::MXCSR) {
        cases.push(in_region(format!("get and put {reg}"), |b| {
            let v = b.get(reg.ty(), reg);
            let v = if reg.ty() == Type::I1 { b.unary(Op::Bnot, Type::I1, v) } else { v };
            b.put(reg, v);
            let again = b.get(reg.ty(), reg);
            result(b, again);
        }));
    }
    for ty in [Type::I8, Type::I16, Type::I32] {
        cases.push(in_region(format!("low {} of a written register", ty.name()), |b| {
            let v = b.get(Type::I32, Reg::RAX);
            b.put(Reg::RCX, v);
            let low = b.get(ty, Reg::RCX);
            let wide = b.get(Type::I64, Reg::RCX);
            b.put(Reg::RDX, wide);
            result(b, low);
        }));
    }
    for ty in [Type::F32, Type::F64, Type::I32, Type::I64] {
        let shape =
            [(Type::F32, Type::F32x4), (Type::F64, Type::F64x2), (Type::I32, Type::I32x4), (Type::I64, Type::I64x2)];
        let shape = shape.into_iter().find(|s| s.0 == ty).expect("a shape").1;
        cases.push(in_region(format!("low {} of a written vector", ty.name()), |b| {
            let (x, scalar) = (b.get(Type::V128, Reg::xmm(1)), b.get(ty, Reg::xmm(0)));
            let vector = b.insert_lane(shape, x, scalar, 0);
            b.put(Reg::xmm(1), vector);
            let low = b.get(ty, Reg::xmm(1));
            result(b, low);
        }));
    }
}

fn helper_cases(cases: &mut Vec<(String, Region)>) {
    // Integers may be codes, of which not every one is valid; the calls are all alike.
    let total = |h: &&Helper| {
        h.effect() != HelperEffect::Host && (h.args().iter().all(|t| !t.is_int()) || **h == Helper::SdivFaults)
    };
    for &helper in Helper::ALL.iter().filter(total) {
        cases.push(in_region(format!("call {}", helper.name()), |b| {
            let args: Vec<Value> = helper.args().iter().enumerate().map(|(i, &t)| operand(b, i, t)).collect();
            let v = b.call(helper, &args);
            result(b, v);
        }));
    }
    let shifts = [32, 64]
        .into_iter()
        .flat_map(|width| (0..3).map(move |kind| width | kind << 8))
        .filter(|how| *how != 64 | 2 << 8);
    let codes =
        shifts.map(|how| (Helper::ShiftLanes, how)).chain([0, 1, 0x10, 0x11].map(|imm| (Helper::Pclmulqdq, imm)));
    for (helper, code) in codes {
        cases.push(in_region(format!("call {} {code:#x}", helper.name()), |b| {
            let (x, y, code) = (operand(b, 0, Type::V128), operand(b, 1, Type::V128), b.iconst(Type::I32, code));
            let v = b.call(helper, &[x, y, code]);
            result(b, v);
        }));
    }
    cases.push(in_region("call aesenc, aesdeclast in place".into(), |b| {
        let (x, key) = (operand(b, 0, Type::V128), operand(b, 1, Type::V128));
        let x = b.call(Helper::Aesenc, &[x, key]);
        b.put(Reg::xmm(0), x);
        let x = b.call(Helper::Aesdeclast, &[x, key]);
        b.put(Reg::xmm(0), x);
        let sum = b.call(Helper::Sha256msg2, &[key, x]);
        result(b, sum);
    }));
}

fn all_cases() -> Vec<(String, Region)> {
    let mut cases = Vec::new();
    operation_cases(&mut cases);
    constant_cases(&mut cases);
    constant_operand_cases(&mut cases);
    memory_cases(&mut cases);
    register_cases(&mut cases);
    helper_cases(&mut cases);
    for (name, region) in &cases {
        if let Err(problems) = calque_ir::verify::verify(region) {
            panic!("{name}: {}\n{region}", problems[0]);
        }
    }
    cases
}

#[test]
fn every_operation_has_a_case() {
    let cases = all_cases();
    for &op in Op::ALL.iter().filter(|&&op| !matches!(op, Op::Nop | Op::FaultIf)) {
        assert!(cases.iter().any(|(_, r)| r.insts.iter().any(|i| i.op == op)), "{}", op.name());
    }
}

#[test]
fn every_operation_compiles_for_every_host() {
    let mut failures = Vec::new();
    for name in ["x86_64", "aarch64"] {
        let mut compiler = Compiler::with_verifier(HostIsa::parse(name).expect("a host"), Verify::On);
        for memory_order in [calque_backend::MemoryOrder::Plain, calque_backend::MemoryOrder::Tso] {
            let options = calque_backend::CompileOptions { memory_order, first_cell: 1, ..Default::default() };
            for (case, region) in all_cases() {
                if let Err(e) = compiler.compile(&region, &options) {
                    failures.push(format!("{name}: {case}: {}", e.message));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// This machine, and if it has FEAT_AFP the same without, which makes other code for floats.
fn hosts_here() -> Vec<HostIsa> {
    let native = HostIsa::native();
    let without = native.clone().without("afp");
    if native == without { vec![native] } else { vec![native, without] }
}

#[test]
fn code_and_interpreter_agree() {
    let mut failures = Vec::new();
    for host in hosts_here() {
        let mut runner = Runner::new();
        runner.compiler = Compiler::with_verifier(host, Verify::On);
        let mut random = Random::new(1);
        for (name, region) in all_cases() {
            if let Err(report) = runner.compare(&region, 200, &mut random) {
                failures.push(format!("{name}\n{report}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_operation_is_emitted() {
    let mut emitter = Emitter::new(HostIsa::parse("aarch64").expect("a host"));
    let mut failures = Vec::new();
    for memory_order in [MemoryOrder::Plain, MemoryOrder::Tso] {
        let options = EmitOptions { memory_order, first_cell: 1, ..EmitOptions::default() };
        for (case, region) in all_cases() {
            if let Err(e) = emitter.emit(&region, &options) {
                failures.push(format!("{case}: {e}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

#[test]
#[cfg_attr(not(target_arch = "aarch64"), ignore = "the emitter makes AArch64 code")]
fn emitted_code_and_interpreter_agree() {
    let mut failures = Vec::new();
    for memory_order in [MemoryOrder::Plain, MemoryOrder::Tso] {
        let mut runner = Runner::new();
        runner.emitter = Some(Emitter::new(HostIsa::native()));
        runner.options.memory_order = memory_order;
        let mut random = Random::new(1);
        // Without the runtime's signal handler ordered accesses must be aligned.
        let aligned = |name: &str| memory_order == MemoryOrder::Plain || !name.ends_with("indexed=true");
        for (name, region) in all_cases().into_iter().filter(|(name, _)| aligned(name)) {
            if let Err(report) = runner.compare(&region, 200, &mut random) {
                failures.push(format!("{memory_order:?} {name}\n{report}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n"));
}

/// Code of every operation in every type, the first case of each; of atomic ones without LSE, too.
#[test]
fn emitted_operations_are_as_reviewed() {
    let mut sections: Vec<(String, Vec<u32>)> = Vec::new();
    for (host, suffix) in [("aarch64", ""), ("aarch64-v8.0", " without LSE")] {
        let mut emitter = Emitter::new(HostIsa::parse(host).expect("a host"));
        for (case, region) in all_cases() {
            let name = case.split(' ').next().unwrap_or_default();
            let is_atomic = name.starts_with("rmw.") || name.starts_with("cas.");
            let kind = if name == "call" { case.clone() } else { name.to_owned() } + suffix;
            if sections.iter().any(|(known, _)| *known == kind) || !(suffix.is_empty() || is_atomic) {
                continue;
            }
            let code = emitter.emit(&region, &EmitOptions { first_cell: 8, ..Default::default() });
            let code = code.unwrap_or_else(|e| panic!("{case}: {e}"));
            // Without the way out, which is the same for all.
            let words = code.code[..code.hot_words as usize - 1].to_vec();
            sections.push((kind, words));
        }
    }
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lower/tier0/operations.txt");
    let changed = a64::check(&golden, &sections);
    assert!(
        changed.is_none(),
        "{}\nAccept with: BLESS=1 cargo test -p calque-backend --test ops",
        changed.unwrap_or_default()
    );
}
