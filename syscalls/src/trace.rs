//! ptrace(2) of threads in the caller's memory, as leak checks use it; no other guest's registers are where a debugger would look for them.

use crate::call::Call;
use calque_runtime::signal::frame::{FXSAVE_SIZE, FpImage, USER_CS, USER_SS};
use calque_runtime::{CpuState, GuestAddr, access};
use nix::errno::Errno;
use std::sync::atomic::{AtomicBool, Ordering};

type Result = std::result::Result<u64, Errno>;

/// Operations (linux/ptrace.h, asm/ptrace-abi.h).
const PTRACE_PEEKTEXT: u64 = 1;
const PTRACE_PEEKDATA: u64 = 2;
const PTRACE_GETREGS: u64 = 12;
const PTRACE_ATTACH: u64 = 16;
const PTRACE_DETACH: u64 = 17;
const PTRACE_GETREGSET: u64 = 0x4204;

/// Sets of registers (linux/elf.h).
const NT_PRSTATUS: u64 = 1;
const NT_PRFPREG: u64 = 2;
const NT_X86_XSTATE: u64 = 0x202;

/// `struct user_regs_struct` (asm/user_64.h), as words.
type UserRegs = [u64; 27];

/// How wait(2) says that a thread has stopped (`W_STOPCODE`, bits/waitstatus.h).
const STOPPED: i32 = libc::SIGSTOP << 8 | 0x7f;

/// `long ptrace(long op, long pid, void *addr, void *data)`.
pub(crate) fn ptrace(call: &mut Call<'_>) -> Result {
    let [op, _, addr, data, ..] = call.args;
    let tid = call.int(1);
    if !call.thread.can_trace() {
        return refuse();
    }
    match op {
        PTRACE_ATTACH => call.thread.attach(tid).map(|()| 0),
        PTRACE_DETACH => call.thread.detach(tid).map(|()| 0),
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => {
            call.thread.registers_of(tid, |_| ())?;
            let word: u64 = access::read(call.addr(2)).map_err(|_| Errno::EIO)?;
            call.write(3, &word)
        }
        PTRACE_GETREGS => {
            let regs = call.thread.registers_of(tid, user_regs)?;
            call.write(3, &regs)
        }
        PTRACE_GETREGSET => {
            let set = call.thread.registers_of(tid, |cpu| register_set(cpu, addr))??;
            let [base, len] = access::read::<[u64; 2]>(call.addr(3))?;
            let len = set.len().min(len as usize);
            access::write_bytes(GuestAddr(base), &set[..len])?;
            access::write(GuestAddr(data + 8), &(len as u64))?;
            Ok(0)
        }
        _ => refuse(),
    }
}

fn refuse() -> Result {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if !TOLD.swap(true, Ordering::Relaxed) {
        eprintln!(
            "calque: ptrace is refused but for leak checks, so debuggers and strace do not work in here; `calque run --strace` prints system calls"
        );
    }
    Err(Errno::EPERM)
}

/// The set of this number; EINVAL if there is none.
fn register_set(cpu: &CpuState, number: u64) -> std::result::Result<Vec<u8>, Errno> {
    match number {
        NT_PRSTATUS => Ok(bytemuck::bytes_of(&user_regs(cpu)).to_vec()),
        NT_PRFPREG => Ok(FpImage::xsave(cpu)[..FXSAVE_SIZE].to_vec()),
        NT_X86_XSTATE => Ok(FpImage::xsave(cpu)),
        _ => Err(Errno::EINVAL),
    }
}

fn user_regs(cpu: &CpuState) -> UserRegs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = cpu.gpr;
    // A stopped thread is in no system call that it would start again.
    let orig_rax = u64::MAX;
    #[rustfmt::skip]
    let regs = [
        r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax,
        cpu.rip, USER_CS.into(), cpu.rflags(), rsp, USER_SS.into(), cpu.fs_base, cpu.gs_base, 0, 0, 0, 0,
    ];
    regs
}

/// `pid_t wait4(pid_t pid, int *status, int options, struct rusage *usage)`: of a thread that the caller has stopped, that it has stopped.
pub(crate) fn wait4(call: &mut Call<'_>) -> Result {
    let pid = call.int(0);
    if !call.thread.can_trace() || !call.thread.takes_stop(pid) {
        return call.pass();
    }
    if call.args[1] != 0 {
        call.write(1, &STOPPED)?;
    }
    Ok(pid as u64)
}
