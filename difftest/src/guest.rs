//! The engines under test, on the same code, registers and data as the processor.

use crate::End;
use crate::jit::Jit;
use crate::pages::{CODE, DATA, DATA_SIZE, Pages, TAKEN, tail};
use calque_backend::{StateAtFaults, Translation, abi};
use calque_frontend::decode::{Bytes, MAX_INSN};
use calque_frontend::direct::{self, Direct, Source};
use calque_frontend::{CodeReader, LiftOptions, Profile, lift_block, lift_region};
use calque_ir::interp::{self, Frame, Host, Next};
use calque_ir::pass::{Optimizer, Options, Precise};
use calque_ir::state::V128;
use calque_ir::state::float_code;
use calque_ir::{CpuState, FaultKind, GuestAddr, Helper, Region, verify};
use std::sync::Arc;

/// What is known of the guest's registers at a fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AtFaults {
    /// All of them, as the processor has them.
    Exact,
    /// Only the pc: code that nobody asked for more.
    OnlyPc,
}

macro_rules! engines {
    ($( $(#[doc = $doc:literal])* $engine:ident $name:literal $faults:ident, )*) => {
        /// What runs the lifted code. A row: variant, name on the command line, what it knows at faults.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Engine { $( $(#[doc = $doc])* $engine, )* }

        impl Engine {
            /// All of them.
            pub const ALL: &'static [Engine] = &[ $( Engine::$engine, )* ];

            /// On the command line.
            pub fn name(self) -> &'static str { match self { $( Engine::$engine => $name, )* } }

            /// One line for people.
            pub fn doc(self) -> &'static str { match self { $( Engine::$engine => concat!($($doc),*), )* } }

            /// What registers hold at faults.
            pub fn at_faults(self) -> AtFaults { match self { $( Engine::$engine => AtFaults::$faults, )* } }
        }
    };
}

#[rustfmt::skip]
engines! {
    /// The interpreter on what the lifter gives, block by block.
    Interp    "interp" Exact,
    /// The interpreter behind all passes.
    Optimized "opt"    Exact,
    /// Compiled code, block by block, registers exact at faults.
    Jit       "jit"    Exact,
    /// Compiled regions as hot code runs: nothing exact at faults.
    Hot       "hot"    OnlyPc,
    /// Block by block in turns: the interpreter (on AArch64 hosts: emitted code), compiled code.
    Auto      "auto"   Exact,
    /// What can be carried out directly, and the interpreter.
    Direct    "direct" Exact,
}

impl Engine {
    /// The engine of this name.
    pub fn from_name(name: &str) -> Option<Engine> {
        Self::ALL.iter().copied().find(|e| e.name() == name)
    }
}

/// Whether this host runs emitted code.
const EMITS: bool = cfg!(target_arch = "aarch64");

/// How the guest's code ended, in the terms of [`End`]; `Unimplemented` is no answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Ended(End),
    Unimplemented,
    /// The verifier's problems: our bug.
    Invalid(String),
}

/// The engines, with what they keep from one case to the next.
pub struct Guest {
    optimizer: Optimizer,
    frame: Frame,
    jit: Jit,
    /// The code that `ready` was made from.
    code: Vec<u8>,
    ready: Vec<Ready>,
    direct: Direct,
    /// Of the code, for `direct`.
    version: u64,
}

/// A translation of the code under test.
struct Ready {
    form: Form,
    pc: u64,
    run: Run,
}

/// What a translation was made for; engines share them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Form {
    Plain,
    Optimized,
    Precise,
    Hot,
    Emitted,
}

enum Run {
    Interpret(Region),
    Enter(Arc<Translation>),
}

/// Whether code for this host needs [`LiftOptions::flushing`] where MXCSR has DAZ set.
const FLUSHES_APART: bool = cfg!(target_arch = "aarch64");

impl Engine {
    /// The form of the `n`th block.
    fn form(self, n: usize) -> Form {
        match self {
            Engine::Interp | Engine::Direct => Form::Plain,
            Engine::Optimized => Form::Optimized,
            Engine::Jit => Form::Precise,
            Engine::Hot => Form::Hot,
            // What `auto` stands for on this host.
            Engine::Auto if EMITS => [Form::Emitted, Form::Precise][n % 2],
            Engine::Auto => [Form::Optimized, Form::Precise][n % 2],
        }
    }
}

impl Guest {
    /// Fresh engines.
    pub fn new() -> Self {
        let (optimizer, frame) = (Optimizer::default(), Frame::default());
        let direct = Direct::default();
        Self { optimizer, frame, jit: Jit::new(), code: Vec::new(), ready: Vec::new(), direct, version: 0 }
    }

    /// Runs `code` at [`CODE`] from `cpu` and `data`. Translations are kept while the code stays the same.
    pub fn run(
        &mut self,
        engine: Engine,
        pages: &mut Pages,
        code: &[u8],
        cpu: &mut CpuState,
        data: &mut [u8],
    ) -> Outcome {
        if self.code != code {
            self.code = code.to_vec();
            self.ready.clear();
            self.version += 1;
            self.jit.make_room();
        }
        let end = CODE + code.len() as u64;
        let reader = Code(Bytes { pc: GuestAddr(CODE), bytes: code });
        let mut pc = CODE;
        for n in 0..10_000 {
            if pc == end {
                return Outcome::Ended(End::Through);
            }
            if pc == TAKEN {
                return Outcome::Ended(End::Taken);
            }
            if engine == Engine::Direct {
                cpu.rip = pc;
                let mut memory = Memory { data: &mut *data, code, pages };
                let (ran, done) =
                    self.direct.run(&mut Source::new(&reader, self.version), cpu, &mut memory, remaining(code, pc));
                pc = cpu.rip;
                match ran {
                    direct::End::Fault(()) => {
                        return Outcome::Ended(End::Signal { number: libc::SIGSEGV, code: 0, pc });
                    }
                    direct::End::Before if done == 0 => {}
                    direct::End::Before | direct::End::Behind => continue,
                }
            }
            // As the dispatcher does.
            let form = if abi::carries_floats(cpu) { engine.form(n) } else { Form::Plain };
            let at = match self.prepare(form, code, pc) {
                Ok(at) => at,
                Err(problems) => return Outcome::Invalid(problems),
            };
            let next = match &self.ready[at].run {
                Run::Enter(entry) => self.jit.run(entry, pages, cpu, data),
                Run::Interpret(region) => {
                    let mut memory = Memory { data: &mut *data, code, pages };
                    interp::run(region, cpu, &mut memory, &mut self.frame)
                }
            };
            match next {
                Ok(Next::Pc(to) | Next::Fault { kind: FaultKind::FloatControl, pc: to }) => pc = to.0,
                Ok(Next::Fault { kind: FaultKind::Unimplemented, .. } | Next::Syscall { .. }) => {
                    return Outcome::Unimplemented;
                }
                Ok(Next::Fault { kind, pc }) => return Outcome::Ended(signal_of(kind, pc.0, cpu)),
                Err(trap) => return Outcome::Ended(End::Signal { number: libc::SIGSEGV, code: 0, pc: trap.pc.0 }),
            }
        }
        Outcome::Invalid("10000 blocks and no end".into())
    }

    /// The place in `ready` of the translation at `pc`.
    fn prepare(&mut self, form: Form, code: &[u8], pc: u64) -> Result<usize, String> {
        if let Some(at) = self.ready.iter().position(|r| r.form == form && r.pc == pc) {
            return Ok(at);
        }
        let reader = Code(Bytes { pc: GuestAddr(CODE), bytes: code });
        let region = self.translate(form, &reader, pc, remaining(code, pc))?;
        let run = match form {
            Form::Plain | Form::Optimized => Run::Interpret(region),
            Form::Precise => Run::Enter(self.jit.translate(&region, StateAtFaults::Precise)?),
            Form::Hot => Run::Enter(self.jit.translate(&region, StateAtFaults::PcOnly)?),
            Form::Emitted => self.jit.emit(&region)?.map_or(Run::Interpret(region), Run::Enter),
        };
        self.ready.push(Ready { form, pc, run });
        Ok(self.ready.len() - 1)
    }

    /// The region of this form at `pc`.
    fn translate(&mut self, form: Form, reader: &Code<'_>, pc: u64, block_insns: u32) -> Result<Region, String> {
        if form == Form::Hot {
            let opts = LiftOptions { flushing: FLUSHES_APART, ..LiftOptions::default() };
            let mut region = lift_region(reader, GuestAddr(pc), reader, &opts);
            check(&region)?;
            self.optimizer.optimize(&mut region, &Options::default());
            check(&region)?;
            return Ok(region);
        }
        let opts = LiftOptions {
            precise: true,
            precise_everywhere: true,
            precise_floats: true,
            flushing: FLUSHES_APART,
            block_insns,
            defers: form == Form::Emitted,
            ..LiftOptions::default()
        };
        let pc = GuestAddr(pc);
        let mut region =
            if form == Form::Precise { lift_region(reader, pc, reader, &opts) } else { lift_block(reader, pc, &opts) };
        check(&region)?;
        if !matches!(form, Form::Plain | Form::Emitted) {
            let precise = Options { precise: Precise::Yes, ..Options::default() };
            self.optimizer.optimize(&mut region, &precise);
            check(&region)?;
        }
        Ok(region)
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

/// Instructions of `code` from `pc` on.
fn remaining(code: &[u8], pc: u64) -> u32 {
    let Some(rest) = pc.checked_sub(CODE).and_then(|at| code.get(at as usize..)) else { return 1 };
    iced_x86::Decoder::with_ip(64, rest, pc, 0).into_iter().count() as u32
}

fn check(region: &Region) -> Result<(), String> {
    verify::verify(region).map_err(|problems| problems.iter().map(|p| format!("{p}\n")).collect())
}

/// The signal that the runtime makes of a fault.
fn signal_of(kind: FaultKind, pc: u64, cpu: &CpuState) -> End {
    let (number, code) = match kind {
        FaultKind::DivideError => (libc::SIGFPE, FPE_INTDIV),
        FaultKind::SimdFloat => (libc::SIGFPE, float_code(cpu.mxcsr & !(cpu.mxcsr >> 7))),
        FaultKind::X87Float => (libc::SIGFPE, float_code(u32::from(cpu.x87.status & !cpu.x87.control))),
        FaultKind::InvalidOpcode | FaultKind::Unimplemented => (libc::SIGILL, 0),
        FaultKind::GeneralProtection | FaultKind::Fetch | FaultKind::Overflow | FaultKind::Compatibility => {
            (libc::SIGSEGV, 0)
        }
        FaultKind::Stale | FaultKind::SingleStep | FaultKind::FloatControl | FaultKind::ExtendedState => {
            unreachable!("checked blocks, code that sets TF, processors with AVX-512; that of control words goes on")
        }
        FaultKind::Breakpoint | FaultKind::Debug => (libc::SIGTRAP, 0),
    };
    End::Signal { number, code, pc }
}

/// asm-generic/siginfo.h
pub(crate) const FPE_INTDIV: i32 = 1;

/// The code under test; a region ends where it ends.
pub struct Code<'a>(Bytes<'a>);

impl CodeReader for Code<'_> {
    fn read(&self, pc: GuestAddr, buf: &mut [u8; MAX_INSN]) -> usize {
        self.0.read(pc, buf)
    }
}

impl Profile for Code<'_> {
    fn executed(&self, pc: GuestAddr) -> bool {
        (CODE..CODE + self.0.bytes.len() as u64).contains(&pc.0)
    }

    fn likely_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
        Vec::new()
    }

    fn all_targets(&self, _: GuestAddr) -> Vec<GuestAddr> {
        Vec::new()
    }
}

/// The data pages and the code, as a host of the interpreter.
struct Memory<'a> {
    data: &'a mut [u8],
    code: &'a [u8],
    /// On x86-64 hosts: what else is in the code page.
    pages: &'a Pages,
}

impl Memory<'_> {
    /// Bytes that may be written.
    fn at(&mut self, addr: u64, len: usize) -> Result<&mut [u8], ()> {
        let at = addr.checked_sub(DATA).ok_or(())?;
        let end = at.checked_add(len as u64).filter(|end| *end <= DATA_SIZE).ok_or(())?;
        Ok(&mut self.data[at as usize..end as usize])
    }

    /// One byte of whatever can be read.
    fn byte(&self, addr: u64) -> Option<u8> {
        let within = |start: u64| addr.checked_sub(start).map(|at| at as usize);
        let data = within(DATA).and_then(|at| self.data.get(at));
        let tail = || within(DATA + DATA_SIZE).and_then(|at| tail().get(at));
        let code = || within(CODE).and_then(|at| self.code.get(at).copied().or_else(|| self.pages.code(at)));
        data.or_else(tail).copied().or_else(code)
    }
}

impl Host for Memory<'_> {
    type Fault = ();

    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, ()> {
        let mut word = [0; 8];
        if let Ok(data) = self.at(addr, bytes as usize) {
            word[..bytes as usize].copy_from_slice(data);
            return Ok(u64::from_le_bytes(word));
        }
        for (i, to) in word[..bytes as usize].iter_mut().enumerate() {
            *to = self.byte(addr.wrapping_add(i as u64)).ok_or(())?;
        }
        Ok(u64::from_le_bytes(word))
    }

    fn load128(&mut self, addr: u64) -> Result<V128, ()> {
        Ok([self.load(addr, 8)?, self.load(addr.wrapping_add(8), 8)?])
    }

    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), ()> {
        self.at(addr, bytes as usize)?.copy_from_slice(&value.to_le_bytes()[..bytes as usize]);
        Ok(())
    }

    fn store128(&mut self, addr: u64, value: V128) -> Result<(), ()> {
        self.at(addr, 16)?;
        self.store(addr, 8, value[0])?;
        self.store(addr + 8, 8, value[1])
    }

    fn fence(&mut self) {}

    fn helper(&mut self, _: &mut CpuState, helper: Helper, _: u64, _: u64, _: u64) -> u64 {
        panic!("{} has no place in a comparison", helper.name())
    }
}
