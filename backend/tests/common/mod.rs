//! Running a region both ways: by the interpreter and as machine code, from the same random state.
//!
//! # Safety
//! Guest memory is a buffer of the runner; regions of the tests access nothing else. Code is entered with all tables in
//! place.
#![allow(unsafe_code, dead_code, unreachable_pub)]

use calque_backend::JumpCache;
use calque_backend::abi::{self, ExitReason};
use calque_backend::{
    CodeCache, CodeKind, CompileOptions, Compiler, EmitOptions, Emitter, HostIsa, Translation, Verify, helpers,
};
use calque_ir::helper::HelperEntry;
use calque_ir::interp::{self, Frame, Host, Next};
use calque_ir::state::V128;
use calque_ir::{CpuState, Helper, Reg, Region};
use std::fmt::Write;
use std::sync::Arc;

/// xorshift64* (Vigna 2016), for reproducible states.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[(self.next() >> 33) as usize % of.len()]
    }

    /// A word that is often awkward.
    pub fn word(&mut self) -> u64 {
        #[rustfmt::skip]
        const INTS: &[u64] = &[
            0, 1, 2, 7, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff,
            i64::MAX as u64, i64::MIN as u64, !0, 0x8080_8080_8080_8080, 0x7f80_ff01_8000_7fff,
        ];
        #[rustfmt::skip]
        const F64S: &[f64] = &[
            0.0, -0.0, 1.0, -1.5, 0.5, 2.5, 1e300, 1e-310, f64::INFINITY, f64::NEG_INFINITY, f64::MAX,
            2147483647.0, 2147483647.5, 2147483648.0, -2147483648.5, -2147483649.0, 9.3e18, -9.3e18,
        ];
        #[rustfmt::skip]
        const F32S: &[u32] = &[
            0, 0x8000_0000, 0x3f80_0000, 0xbfc0_0000, 0x4020_0000, 0x7f80_0000, 0xff80_0000, 0x7f80_0001, 0xffc0_1234,
            0x7fc0_0000, 0x4f00_0000, 0xcf00_0001, 0x5f00_0000, 1, 0x7f7f_ffff,
        ];
        const NANS: &[u64] = &[0x7ff0_0000_0000_0001, 0xfff8_0000_0000_1234, 0x7ff8_0000_0000_0000];
        match self.next() >> 61 {
            0 | 1 => self.next(),
            2 => self.pick(INTS),
            3 => self.next() >> (self.next() & 63),
            4 => self.pick(F64S).to_bits(),
            5 => u64::from(self.pick(F32S)) << 32 | u64::from(self.pick(F32S)),
            6 => self.pick(NANS),
            _ => self.next() & 0xff,
        }
    }
}

/// Bytes of guest memory that regions may access.
const MEMORY: usize = 256;

#[repr(align(64))]
struct Memory([u8; MEMORY]);

/// Runs regions both ways.
pub struct Runner {
    pub cache: CodeCache,
    pub compiler: Compiler,
    pub options: CompileOptions,
    /// If there is one, it makes the code and not the compiler.
    pub emitter: Option<Emitter>,
    helpers: &'static [HelperEntry],
    jump_cache: JumpCache,
    tier0_jumps: JumpCache,
    /// What `count` adds to.
    pub counters: Box<[u64; 8]>,
    /// Of emitted code: [`EmitOptions::precise_everywhere`].
    pub precise_everywhere: bool,
    memory: Box<Memory>,
}

/// Memory of the interpreter: the addresses are real.
struct Direct;

impl Host for Direct {
    type Fault = std::convert::Infallible;

    fn load(&mut self, addr: u64, bytes: u32) -> Result<u64, Self::Fault> {
        let mut word = [0; 8];
        // SAFETY: the runner's memory.
        unsafe { (addr as *const u8).copy_to_nonoverlapping(word.as_mut_ptr(), bytes as usize) };
        Ok(u64::from_le_bytes(word))
    }
    fn load128(&mut self, addr: u64) -> Result<V128, Self::Fault> {
        Ok([self.load(addr, 8)?, self.load(addr + 8, 8)?])
    }
    fn store(&mut self, addr: u64, bytes: u32, value: u64) -> Result<(), Self::Fault> {
        // SAFETY: the runner's memory.
        unsafe { (addr as *mut u8).copy_from_nonoverlapping(value.to_le_bytes().as_ptr(), bytes as usize) };
        Ok(())
    }
    fn store128(&mut self, addr: u64, value: V128) -> Result<(), Self::Fault> {
        self.store(addr, 8, value[0])?;
        self.store(addr + 8, 8, value[1])
    }
    fn fence(&mut self) {}
    fn helper(&mut self, _: &mut CpuState, helper: Helper, _: u64, _: u64, _: u64) -> u64 {
        unreachable!("{} is the runtime's", helper.name())
    }
}

/// Guest pcs that share a slot of a jump cache's first level, but none of its second.
pub const SAME_SLOT: [u64; 3] = [0x5010, 0x6013, 0x7012];

impl Runner {
    pub fn new() -> Self {
        Self {
            cache: CodeCache::new(16 << 20).expect("a code cache"),
            compiler: Compiler::with_verifier(HostIsa::native(), Verify::On),
            options: CompileOptions::default(),
            emitter: None,
            helpers: helpers::table(|_| None),
            jump_cache: JumpCache::new(),
            tier0_jumps: JumpCache::new(),
            counters: Box::default(),
            precise_everywhere: false,
            memory: Box::new(Memory([0; MEMORY])),
        }
    }

    /// Connects a state to the tables.
    pub fn attach(&mut self, cpu: &mut CpuState) {
        cpu.rt.cells = self.cache.cells_address();
        cpu.rt.helpers = self.helpers.as_ptr() as u64;
        cpu.rt.jump_cache = self.jump_cache.address();
        cpu.rt.counters = self.counters.as_mut_ptr() as u64;
        cpu.rt.tier0_jumps = self.tier0_jumps.address();
        cpu.rt.countdown = 1000;
    }

    /// Makes and publishes code for `region`.
    pub fn translate(&mut self, region: &Region) -> Result<Arc<Translation>, String> {
        let Some(emitter) = &mut self.emitter else {
            return self.cache.translate(&mut self.compiler, region, &self.options).map_err(|e| e.to_string());
        };
        let cells = self.cache.reserve_cells(Emitter::cells_needed(region), CodeKind::Tier0).expect("cells");
        let options = EmitOptions {
            memory_order: self.options.memory_order,
            first_cell: cells,
            precise_everywhere: self.precise_everywhere,
        };
        let emitted = emitter.emit(region, &options).map_err(|e| e.to_string())?;
        self.cache.publish_emitted(&emitted).map_err(|e| e.to_string())
    }

    /// Runs code.
    pub fn run(&self, cpu: &mut CpuState, translation: &Translation) -> ExitReason {
        // SAFETY: a translation of this cache; `attach` connected the tables.
        match translation.kind {
            // SAFETY: as above.
            CodeKind::Tail => unsafe { abi::enter(cpu, translation.code) },
            // SAFETY: as above.
            CodeKind::Tier0 => unsafe { abi::enter_tier0(cpu, translation.code) },
        }
    }

    pub fn jump_cache(&self) -> &JumpCache {
        &self.jump_cache
    }

    pub fn tier0_jumps(&self) -> &JumpCache {
        &self.tier0_jumps
    }

    /// A random state; RSI and RDI make addresses inside memory, R15 counts a few rounds.
    pub fn state(&mut self, random: &mut Random) -> CpuState {
        let mut cpu = CpuState::new();
        cpu.gpr = std::array::from_fn(|_| random.word());
        cpu.flags = std::array::from_fn(|i| if i < 7 { (random.next() >> 40 & 1) as u8 } else { 0 });
        cpu.xmm = std::array::from_fn(|_| [random.word(), random.word()]);
        if random.next() >> 62 != 0 {
            cpu.set_ymmh(std::array::from_fn(|_| [random.word(), random.word()]));
        }
        (cpu.fs_base, cpu.gs_base, cpu.flags_rest) = (random.word(), random.word(), random.word() as u32);
        cpu.gpr[6] = self.memory.0.as_mut_ptr() as u64 + 64;
        cpu.gpr[7] = random.next() >> 60;
        cpu.gpr[15] = random.next() >> 60;
        self.attach(&mut cpu);
        cpu
    }

    /// Runs machine code for `region` from `cpu`.
    pub fn enter(&mut self, region: &Region, cpu: &mut CpuState) -> ExitReason {
        let translation = self.translate(region).unwrap_or_else(|e| panic!("{e}\n{region}"));
        self.run(cpu, &translation)
    }

    /// Compares both ways on `rounds` random states.
    pub fn compare(&mut self, region: &Region, rounds: u32, random: &mut Random) -> Result<(), String> {
        let translation = self.translate(region).map_err(|e| format!("{e}\n{region}"))?;
        for _ in 0..rounds {
            self.memory.0 = std::array::from_fn(|_| random.word() as u8);
            let memory = self.memory.0;
            let start = self.state(random);
            let (mut expected, mut got) = (copy(&start), copy(&start));
            let next = interp::run(region, &mut expected, &mut Direct, &mut Frame::default()).expect("no memory fault");
            let expected_memory = std::mem::replace(&mut self.memory.0, memory);
            let reason = self.run(&mut got, &translation);
            let next_got = self.next(&got, reason);
            let mut report = String::new();
            if next_got != next {
                let _ = writeln!(report, "expected {next:?}, got {next_got:?} ({reason:?})");
            }
            differences(&mut report, &start, &expected, &got);
            if got.upper_halves == 0 && got.ymmh != [[0; 2]; 16] {
                report.push_str("upper halves that are not zero are said to be\n");
            }
            if expected_memory != self.memory.0 {
                let _ = writeln!(report, "memory differs");
            }
            if !report.is_empty() {
                let text =
                    self.compiler.explain(region, &self.options).map_or(String::new(), |(_, l)| l.clif + &l.host);
                return Err(format!("{report}{region}\n{text}"));
            }
        }
        Ok(())
    }

    /// The interpreter's word for how code left.
    fn next(&self, cpu: &CpuState, reason: ExitReason) -> Next {
        use calque_ir::GuestAddr;
        match reason {
            ExitReason::Link { cell } => Next::Pc(self.cache.cell_target(cell)),
            ExitReason::Syscall => Next::Syscall { next: GuestAddr(cpu.rip) },
            ExitReason::Fault(kind) => Next::Fault { kind, pc: GuestAddr(cpu.rip) },
            _ => Next::Pc(GuestAddr(cpu.rip)),
        }
    }
}

fn copy(cpu: &CpuState) -> CpuState {
    let mut new = CpuState::new();
    new.copy_guest_from(cpu);
    new.scratch = cpu.scratch;
    (new.rt.cells, new.rt.helpers, new.rt.jump_cache) = (cpu.rt.cells, cpu.rt.helpers, cpu.rt.jump_cache);
    (new.rt.counters, new.rt.tier0_jumps, new.rt.countdown) = (cpu.rt.counters, cpu.rt.tier0_jumps, cpu.rt.countdown);
    new.rt
        .interrupt
        .store(cpu.rt.interrupt.load(std::sync::atomic::Ordering::Relaxed), std::sync::atomic::Ordering::Relaxed);
    new
}

/// A register's storage as two words.
fn register(cpu: &CpuState, reg: Reg) -> [u64; 2] {
    let i = reg.index();
    match i {
        0..16 => [cpu.gpr[i], 0],
        16..32 => cpu.xmm[i - 16],
        32..48 => cpu.ymmh[i - 32],
        48..55 => [cpu.flags[i - 48].into(), 0],
        _ => match reg {
            Reg::FLAGS_REST => [cpu.flags_rest.into(), 0],
            Reg::FS_BASE => [cpu.fs_base, 0],
            Reg::GS_BASE => [cpu.gs_base, 0],
            // The exception flags (bits 0..6) are the host's business; the interpreter raises none.
            _ => [(cpu.mxcsr & !0x3f).into(), 0],
        },
    }
}

/// One line for each register that differs, with the initial values of all that are not zero in it.
fn differences(report: &mut String, start: &CpuState, expected: &CpuState, got: &CpuState) {
    for reg in Reg::all() {
        let (e, g) = (register(expected, reg), register(got, reg));
        if e != g {
            let _ = writeln!(report, "* {reg}: expected {:016x}_{:016x} got {:016x}_{:016x}", e[1], e[0], g[1], g[0]);
        }
    }
    if expected.rt.counters != got.rt.counters {
        let _ = writeln!(report, "* counter: expected {} got {}", expected.rt.counters, got.rt.counters);
    }
    if expected.x87.regs != got.x87.regs || expected.x87.status != got.x87.status {
        let _ = writeln!(report, "* x87 state differs");
    }
    if !report.is_empty() {
        for reg in [Reg::RAX, Reg::RCX, Reg::RDX, Reg::xmm(0), Reg::xmm(1), Reg::xmm(2), Reg::CF, Reg::PF, Reg::AF] {
            let v = register(start, reg);
            let _ = writeln!(report, "  start {reg} = {:016x}_{:016x}", v[1], v[0]);
        }
    }
}
