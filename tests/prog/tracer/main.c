// A process in the program's memory stops the program's threads by ptrace, looks at their registers, and lets them go: as LeakSanitizer does.
// needs: a real kernel (emulated ones know the flags of pthread_create and of fork alone)
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 3 };
static volatile long rounds[THREADS], done;
static volatile int tids[THREADS], ready, go;
static uintptr_t stacks[THREADS];

// Works, calls, or sleeps, with a mark in a register that the kernel shows.
static void *work(void *arg) {
    long i = (long)arg;
    stacks[i] = (uintptr_t)__builtin_frame_address(0);
    tids[i] = syscall(SYS_gettid);
    __atomic_fetch_add(&ready, 1, __ATOMIC_SEQ_CST);
    if (i == 2) {
        int word = 0;
        while (!done) syscall(SYS_futex, &word, 0, 0, &(struct timespec){10, 0}, 0, 0), rounds[i]++;
        return 0;
    }
    register long mark __asm__("r12") = 0x1234567800 + i;
    register long *counter __asm__("r13") = (long *)&rounds[i];
    register long calls __asm__("r14") = i;
    __asm__ volatile("movq %%r12, %%xmm9\n"
                     "1: incq (%%r13)\n\ttest %%r14, %%r14\n\tjz 2f\n\tmov $110, %%eax\n\tsyscall\n"
                     "2: cmpq $0, %[done]\n\tje 1b"
                     : : "r"(mark), "r"(counter), "r"(calls), [done] "m"(done) : "rax", "rcx", "r11", "memory", "xmm9");
    return 0;
}

static char stack[256 << 10] __attribute__((aligned(64)));
static volatile int steps[12];
static struct user_regs_struct regs[THREADS];
static unsigned char extended[8192];

static int tracer(void *unused) {
    (void)unused;
    while (!go) sched_yield();
    int status;
    steps[0] = ptrace(PTRACE_ATTACH, 999999999, 0, 0) == -1 && errno == ESRCH;
    steps[1] = ptrace(PTRACE_GETREGS, tids[0], 0, &regs[0]) == -1 && errno == ESRCH;
    int attached = 0, stopped = 0, still = 0, marked = 0, on_stack = 0;
    for (int i = 0; i < THREADS; i++) {
        attached += ptrace(PTRACE_ATTACH, tids[i], 0, 0) == 0;
        stopped += waitpid(tids[i], &status, __WALL) == tids[i] && WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
    }
    steps[2] = ptrace(PTRACE_ATTACH, tids[1], 0, 0) == -1 && errno == EPERM;
    long before[THREADS];
    for (int i = 0; i < THREADS; i++) before[i] = rounds[i];
    usleep(30000);
    for (int i = 0; i < THREADS; i++) {
        still += rounds[i] == before[i];
        if (ptrace(PTRACE_GETREGS, tids[i], 0, &regs[i])) continue;
        marked += i == 2 || (regs[i].r12 == 0x1234567800 + (unsigned long)i && regs[i].r13 == (uintptr_t)&rounds[i]);
        on_stack += stacks[i] - regs[i].rsp < 65536 || regs[i].rsp - stacks[i] < 256;
    }
    steps[3] = attached, steps[4] = stopped, steps[5] = still, steps[6] = marked, steps[7] = on_stack;
    struct user_regs_struct again;
    struct iovec io = {&again, sizeof again};
    steps[8] = ptrace(PTRACE_GETREGSET, tids[0], NT_PRSTATUS, &io) == 0 && io.iov_len == sizeof again && again.r12 == regs[0].r12 && again.cs == 0x33;
    io = (struct iovec){extended, sizeof extended};
    // XMM9 in what XSAVE stores.
    steps[9] = ptrace(PTRACE_GETREGSET, tids[1], NT_X86_XSTATE, &io) == 0 && io.iov_len >= 832 && *(uint64_t *)(extended + 160 + 16 * 9) == 0x1234567801;
    steps[10] = ptrace(PTRACE_PEEKDATA, tids[0], &rounds[0], 0) == rounds[0];
    // The last one is let go by the tracer's end.
    int detached = 0;
    for (int i = 0; i < THREADS - 1; i++) detached += ptrace(PTRACE_DETACH, tids[i], 0, 0) == 0;
    steps[11] = detached;
    _exit(0);
}

int main(void) {
    pthread_t t[THREADS];
    for (long i = 0; i < THREADS; i++) pthread_create(&t[i], 0, work, (void *)i);
    while (ready != THREADS) sched_yield();
    int status = -1, told = 0;
    for (int round = 0; round < 5; round++) {
        go = 0;
        memset((void *)steps, 0, sizeof steps);
        pid_t pid = clone(tracer, stack + sizeof stack, CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED | SIGCHLD, 0);
        prctl(PR_SET_PTRACER, pid, 0, 0, 0);
        go = 1;
        while (waitpid(pid, &status, __WALL) != pid) if (errno != EINTR) return 1;
        long before[2] = {rounds[0], rounds[1]};
        while (rounds[0] == before[0] || rounds[1] == before[1]) sched_yield();
        int right = status == 0;
        for (int i = 0; i < 12; i++) right &= steps[i] == (i >= 3 && i <= 7 ? THREADS : i == 11 ? THREADS - 1 : 1);
        if (!right && !told++) for (int i = 0; i < 12; i++) printf("%d ", steps[i]);
        printf("%d", right);
    }
    done = 1;
    for (int i = 0; i < THREADS; i++) if (i != 2) pthread_join(t[i], 0);
    printf(" traced, and going on\n");
    return 0;
}
