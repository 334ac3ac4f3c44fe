// clone and clone3 as the C libraries, Go and others call them; processes that end while their threads do all kinds of things; many threads.
// links: dynamic static
// needs: a real kernel (emulated ones know the flags of pthread_create and of fork alone)
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef CLONE_CLEAR_SIGHAND
#define CLONE_CLEAR_SIGHAND 0x100000000ULL
#endif
#define OF_THREADS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)
#define STACK (64 << 10)

struct args { uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup; };

static char stack[STACK] __attribute__((aligned(64)));
static char block[4096] __attribute__((aligned(64))); // of thread-local data: its first word is its address
static volatile int ran, child_tid, parent_tid;

// What a thread without a C library does: no calls into one, which would look for thread-local data.
static long raw(long n, long a, long b, long c, long d, long e) {
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8) : "rcx", "r11", "memory");
    return n;
}

static uint64_t fs_word(void) { uint64_t v; __asm__ volatile("mov %%fs:0, %0" : "=r"(v)); return v; }

__attribute__((noinline)) static void body(long sets_tls) {
    // Go's threads come without, and set it themselves.
    if (sets_tls) raw(SYS_arch_prctl, ARCH_SET_FS, (long)block, 0, 0, 0);
    ran = fs_word() == (uint64_t)block ? 1 : 2;
    raw(SYS_exit, 0, 0, 0, 0, 0);
}

// clone or clone3, the child goes to `body` on the stack it got.
static long start(long nr, long a, long b, long c, long d, long e, long sets_tls) {
    long result = nr;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r12 __asm__("r12") = sets_tls;
    __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tand $-16, %%rsp\n\tmov %%r12, %%rdi\n\tcall *%[body]\n\tud2\n1:"
                     : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r12), [body] "b"(body) : "rcx", "r11", "r9", "r13", "r14", "r15", "memory");
    return result;
}

static void wait_cleared(void) {
    for (int tid; (tid = child_tid) != 0;) syscall(SYS_futex, &child_tid, FUTEX_WAIT, tid, NULL, NULL, 0);
}

static void thread_by_clone(const char *who, long flags, int sets_tls) {
    ran = 0, child_tid = -1, parent_tid = 0;
    if (flags & CLONE_CHILD_SETTID) child_tid = -2;
    long tid = start(SYS_clone, flags, (long)(stack + STACK), (long)&parent_tid, (long)&child_tid, (long)block, sets_tls);
    if (flags & CLONE_CHILD_CLEARTID) wait_cleared();
    while (!ran) sched_yield();
    printf("%s: %d, thread data %d, parent's word %d\n", who, tid > 0, ran, flags & CLONE_PARENT_SETTID ? parent_tid == tid : parent_tid == 0);
}

static void thread_by_clone3(const char *who, uint64_t flags, size_t size) {
    ran = 0, child_tid = -1, parent_tid = 0;
    struct args a = {.flags = flags, .child_tid = (uintptr_t)&child_tid, .parent_tid = (uintptr_t)&parent_tid, .stack = (uintptr_t)stack, .stack_size = STACK, .tls = (uintptr_t)block};
    long tid = start(SYS_clone3, (long)&a, size, 0, 0, 0, 0);
    if (tid > 0) { wait_cleared(); while (!ran) sched_yield(); }
    printf("%s: %d, thread data %d, parent's word %d\n", who, tid > 0, ran, parent_tid == tid);
}

static void threads_by_hand(void) {
    *(uint64_t *)block = (uintptr_t)block;
    long glibc = OF_THREADS | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID;
    thread_by_clone("glibc", glibc, 0);
    thread_by_clone("musl", glibc | 0x400000 /* CLONE_DETACHED */, 0);
    thread_by_clone("Go", OF_THREADS | CLONE_SYSVSEM, 1);
    thread_by_clone("Go with C", OF_THREADS | CLONE_SYSVSEM | CLONE_SETTLS, 0);
    thread_by_clone("without semaphores", OF_THREADS | CLONE_SETTLS | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID, 0);
    thread_by_clone("own files", (OF_THREADS & ~(CLONE_FILES | CLONE_FS)) | CLONE_SETTLS | CLONE_CHILD_CLEARTID, 0);
    thread_by_clone3("clone3", glibc, 88);
    thread_by_clone3("clone3, first size", glibc, 64);
    long wrong[] = {CLONE_VM | CLONE_THREAD, CLONE_SIGHAND, OF_THREADS & ~CLONE_VM, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM | CLONE_NEWPID, CLONE_FS | CLONE_NEWNS};
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        long r = syscall(SYS_clone, wrong[i], stack + STACK, 0, 0, 0);
        printf("%s ", r < 0 ? strerrorname_np(errno) : "?");
    }
    struct args bad[] = {{.flags = CLONE_SIGHAND | CLONE_CLEAR_SIGHAND}, {.flags = 0xff}, {.exit_signal = 1000}, {.stack_size = 4096}, {.stack = (uintptr_t)stack}, {.flags = 1ull << 60}};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) printf("%s ", syscall(SYS_clone3, &bad[i], sizeof *bad) < 0 ? strerrorname_np(errno) : "?");
    printf("%s\n", syscall(SYS_clone3, bad, 63) < 0 ? strerrorname_np(errno) : "?");
}

static int status(pid_t pid) {
    int st;
    while (waitpid(pid, &st, __WALL) != pid) if (errno != EINTR) return -errno;
    return WIFEXITED(st) ? WEXITSTATUS(st) : 1000 + WTERMSIG(st);
}

static volatile sig_atomic_t handled;
static void on_usr(int s) { handled = s; }

// Processes: their exit signal, what they share, what they forget.
static void processes(void) {
    long pid = syscall(SYS_clone, CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, 0, 0, &child_tid, 0);
    if (!pid) _exit(child_tid == getpid() ? 3 : 4);
    printf("fork as glibc's %d", status(pid));
    struct args a = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&parent_tid, .exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &a, sizeof a);
    if (!pid) _exit(5);
    struct pollfd p = {parent_tid, POLLIN, 0};
    int polled = poll(&p, 1, 10000);
    siginfo_t info;
    printf(", with a descriptor %d %d", polled, waitid(P_PIDFD, parent_tid, &info, WEXITED) == 0 ? info.si_status : -1);
    close(parent_tid);
    signal(SIGUSR1, on_usr);
    signal(SIGUSR2, SIG_IGN);
    a = (struct args){.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    pid = syscall(SYS_clone3, &a, sizeof a);
    if (!pid) {
        struct sigaction one, two;
        sigaction(SIGUSR1, 0, &one), sigaction(SIGUSR2, 0, &two);
        _exit((one.sa_handler == SIG_DFL) * 2 + (two.sa_handler == SIG_IGN));
    }
    printf(", without handlers %d", status(pid));
    a = (struct args){.exit_signal = SIGUSR1};
    pid = syscall(SYS_clone3, &a, sizeof a);
    if (!pid) _exit(6);
    int st = status(pid);
    printf(", another signal %d %d\n", st, handled == SIGUSR1);
    int fd = open("/dev/null", O_RDONLY);
    pid = syscall(SYS_clone, CLONE_FILES | CLONE_FS | SIGCHLD, 0, 0, 0, 0);
    if (!pid) { close(fd); _exit(chdir("/") ? 1 : 0); }
    st = status(pid);
    char where[64];
    printf("shared files %d %s %s\n", st, fcntl(fd, F_GETFD) < 0 ? "closed" : "open", getcwd(where, sizeof where));
    pid = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
    if (!pid) _exit(0);
    printf("a sibling %d\n", waitpid(pid, &st, __WALL) == -1 && errno == ECHILD);
}

// Threads that sit in calls, or work, when their process ends.
static int pipes[2];
static void *sits(void *how) {
    sigset_t set;
    struct timespec long_time = {1000, 0};
    char c;
    static int word;
    switch ((long)how % 8) {
    case 0: read(pipes[0], &c, 1); break;
    case 1: syscall(SYS_futex, &word, FUTEX_WAIT, 0, 0, 0, 0); break;
    case 2: nanosleep(&long_time, 0); break;
    case 3: { int ep = epoll_create1(0); struct epoll_event e; epoll_wait(ep, &e, 1, -1); break; }
    case 4: sigemptyset(&set), sigaddset(&set, SIGUSR2); sigwaitinfo(&set, 0); break;
    case 5: poll(0, 0, -1); break;
    case 6: for (;;) ((volatile int *)&word)[0] += 0; break;
    case 7: for (;;) { void *m = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); memset(m, 1, 65536); munmap(m, 65536); }
    }
    return 0;
}

static void *ends(void *how) {
    usleep(20000);
    if (how == 0) syscall(SYS_exit_group, 17);
    if (how == (void *)1) raise(SIGSEGV);
    if (how == (void *)2) kill(getpid(), SIGTERM);
    if (how == (void *)3) execl("/bin/sh", "sh", "-c", "exit 18", NULL);
    return 0;
}

static void endings(void) {
    pipe(pipes);
    for (long how = 0; how < 4; how++) {
        printf("ending %ld:", how);
        for (int round = 0; round < 6; round++) {
            fflush(stdout);
            pid_t pid = fork();
            if (!pid) {
                signal(SIGUSR2, SIG_DFL);
                pthread_t t;
                pthread_attr_t small;
                pthread_attr_init(&small);
                pthread_attr_setstacksize(&small, STACK);
                for (long i = 0; i < 18; i++) pthread_create(&t, &small, sits, (void *)i);
                if (round & 1) ends((void *)how);
                else { pthread_create(&t, &small, ends, (void *)how); sits((void *)(long)round); pause(); }
            }
            printf(" %d", status(pid));
        }
        printf("\n");
    }
}

// Hundreds at once; and thousands one after the other.
static pthread_barrier_t barrier;
static long total;
static void *one_of_many(void *arg) {
    pthread_barrier_wait(&barrier);
    __atomic_fetch_add(&total, (long)arg, __ATOMIC_RELAXED);
    pthread_barrier_wait(&barrier);
    return arg;
}
static void *short_lived(void *arg) { __atomic_fetch_add(&total, 1, __ATOMIC_RELAXED); return arg; }

static void many(void) {
    enum { MANY = 400 };
    static pthread_t t[MANY];
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, STACK);
    pthread_barrier_init(&barrier, 0, MANY);
    int made = 0;
    for (long i = 0; i < MANY; i++) made += pthread_create(&t[i], &small, one_of_many, (void *)i) == 0;
    for (int i = 0; i < MANY; i++) pthread_join(t[i], 0);
    printf("many %d sum %ld", made, total);
    total = 0;
    for (int i = 0; i < 2000; i++) { pthread_t s; if (pthread_create(&s, &small, short_lived, 0) == 0) { if (i & 1) pthread_join(s, 0); else pthread_detach(s); } }
    while (__atomic_load_n(&total, __ATOMIC_RELAXED) != 2000) sched_yield();
    printf(" one after the other %ld\n", total);
}

// A process in its parent's memory, with threads of its own, becomes another program.
static volatile int lodger_threads, stop;
static int lodger_thread(void *how) {
    __atomic_fetch_add(&lodger_threads, 1, __ATOMIC_SEQ_CST);
    if ((long)how & 1) for (;;) raw(SYS_getppid, 0, 0, 0, 0, 0);
    if ((long)how & 2) for (;;) raw(SYS_futex, (long)&stop, FUTEX_WAIT, 0, 0, 0);
    for (;;) stop = 0;
    return 0;
}
static int lodger(void *how) {
    static char stacks[3][STACK];
    for (long i = 0; i < 3; i++) clone(lodger_thread, stacks[i] + STACK, OF_THREADS | CLONE_SYSVSEM, (void *)i);
    while (lodger_threads != 3) raw(SYS_sched_yield, 0, 0, 0, 0, 0);
    if ((long)how == 0) raw(SYS_execve, (long)"/bin/true", (long)(char *[]){"true", 0}, (long)(char *[]){0}, 0, 0);
    raw(SYS_exit_group, 30, 0, 0, 0, 0);
    return 0;
}

static void lodgers(void) {
    for (long round = 0; round < 10; round++) {
        lodger_threads = 0;
        pid_t pid = clone(lodger, stack + STACK, CLONE_VM | SIGCHLD, (void *)(round & 1));
        printf("%d ", status(pid));
        total = 0;
        pthread_t t;
        pthread_create(&t, 0, short_lived, 0);
        pthread_join(t, 0);
    }
    printf("lodgers with threads, a thread since %ld\n", total);
}

static void barriers(void) {
    enum { QUERY = 0, GLOBAL = 1, PRIVATE = 8, REGISTER_PRIVATE = 16, SYNC = 32, REGISTER_SYNC = 64 };
    printf("membarrier %d", (syscall(SYS_membarrier, QUERY, 0, 0) & (GLOBAL | PRIVATE | REGISTER_PRIVATE)) == (GLOBAL | PRIVATE | REGISTER_PRIVATE));
    int commands[] = {GLOBAL, PRIVATE, REGISTER_PRIVATE, PRIVATE, REGISTER_SYNC, SYNC};
    for (unsigned i = 0; i < sizeof commands / sizeof *commands; i++) printf(" %ld", syscall(SYS_membarrier, commands[i], 0, 0));
    printf(" %s\n", syscall(SYS_membarrier, 3, 0, 0) < 0 ? strerrorname_np(errno) : "?");
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    threads_by_hand();
    processes();
    barriers();
    many();
    endings();
    lodgers();
    return 0;
}
