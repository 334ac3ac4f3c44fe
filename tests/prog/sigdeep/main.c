// Signals in depth: temporary masks, nested and stacked frames, contexts, alternate stacks, who gets what, what execve
// hands on.
// links: dynamic static
// needs: a real kernel (emulators keep a fault that is blocked or ignored for themselves)
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t hits, depth, max_depth, in_mask, seen[65];
static char order[256];
static int budget = 20;
static sigjmp_buf env;

static int blocked(int s) {
    sigset_t m;
    pthread_sigmask(SIG_SETMASK, NULL, &m);
    return sigismember(&m, s);
}
static void count(int s, siginfo_t *i, void *c) {
    (void)i; (void)c;
    hits++; seen[s]++;
    in_mask = blocked(SIGUSR2) * 4 + blocked(SIGUSR1) * 2 + blocked(SIGALRM);
    char name[8];
    snprintf(name, sizeof name, "%d ", s);
    if (strlen(order) < 200) strcat(order, name);
}
static void nest(int s, siginfo_t *i, void *c) {
    (void)i; (void)c;
    if (++depth > max_depth) max_depth = depth;
    if (depth < 5 && budget-- > 0) raise(s);
    depth--;
}
static struct sigaction on(int s, void (*h)(int, siginfo_t *, void *), int flags, ...) {
    struct sigaction a = {.sa_sigaction = h, .sa_flags = SA_SIGINFO | flags}, old;
    sigaction(s, &a, &old);
    return old;
}
static void timer(int ms, int every) {
    struct itimerval t = {.it_value = {.tv_usec = ms * 1000}, .it_interval = {.tv_usec = every * 1000}};
    setitimer(ITIMER_REAL, &t, NULL);
}

static void temporary_masks(void) {
    sigset_t set, none, cur;
    sigemptyset(&none); sigemptyset(&set);
    sigaddset(&set, SIGUSR1); sigaddset(&set, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    on(SIGUSR1, count, 0); on(SIGALRM, count, SA_RESTART);
    hits = 0;
    raise(SIGUSR1);
    printf("before %d\n", hits);
    int r = sigsuspend(&none);
    printf("sigsuspend %d %d hits %d mask in handler %d after %d\n", r, errno == EINTR, hits, in_mask, blocked(SIGUSR1));
    raise(SIGUSR1);
    struct timespec long_time = {5, 0};
    r = ppoll(NULL, 0, &long_time, &none);
    printf("ppoll %d %d hits %d after %d\n", r, errno == EINTR, hits, blocked(SIGUSR1));
    raise(SIGUSR1);
    r = pselect(0, NULL, NULL, NULL, &long_time, &none);
    printf("pselect %d %d hits %d after %d\n", r, errno == EINTR, hits, blocked(SIGUSR1));
    raise(SIGUSR1);
    int ep = epoll_create1(0);
    struct epoll_event ev;
    r = epoll_pwait(ep, &ev, 1, 5000, &none);
    printf("epoll_pwait %d %d hits %d after %d\n", r, errno == EINTR, hits, blocked(SIGUSR1));
    close(ep);
    // Ready at once: the mask is never in effect for a handler.
    int p[2];
    if (pipe(p)) exit(1);
    if (write(p[1], "x", 1) != 1) exit(1);
    raise(SIGUSR1);
    struct pollfd pf = {p[0], POLLIN, 0};
    r = ppoll(&pf, 1, &long_time, &none);
    sigpending(&cur);
    printf("ready %d or interrupted, pending or hit %d\n", r == 1 || errno == EINTR, sigismember(&cur, SIGUSR1) || hits == 5);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    printf("unblocked hits %d\n", hits);
    close(p[0]); close(p[1]);
}

static void frames(void) {
    on(SIGUSR2, nest, SA_NODEFER);
    raise(SIGUSR2);
    printf("nested %d\n", max_depth);
    max_depth = 0;
    on(SIGUSR2, nest, 0);
    raise(SIGUSR2);
    printf("deferred %d\n", max_depth > 1);
    on(SIGUSR2, count, SA_RESETHAND);
    raise(SIGUSR2);
    struct sigaction a;
    sigaction(SIGUSR2, NULL, &a);
    printf("reset %d\n", a.sa_handler == SIG_DFL);
    // Several pending at once: lowest number first, frames stack, so the last runs first.
    sigset_t set;
    sigemptyset(&set);
    for (int s = SIGRTMIN; s < SIGRTMIN + 4; s++) { sigaddset(&set, s); on(s, count, 0); }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    order[0] = 0;
    for (int s = SIGRTMIN + 3; s >= SIGRTMIN; s--) { raise(s); raise(s); }
    int before = hits;
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    printf("queued real-time signals %d\n", hits - before);
}

static void change(int s, siginfo_t *i, void *c) {
    (void)s; (void)i;
    ucontext_t *u = c;
    double x = 3.0; x = x / 7.0;
    __asm__ volatile("pxor %%xmm8, %%xmm8\n fld1\n fldpi" : : : "xmm8", "st");
    unsigned mxcsr;
    __asm__ volatile("stmxcsr %0" : "=m"(mxcsr));
    u->uc_mcontext.gregs[REG_R12] += mxcsr == 0x1f80;
    u->uc_mcontext.gregs[REG_EFL] |= 1;
    u->uc_mcontext.fpregs->_xmm[9].element[0] = 0x1234;
}
static void contexts(void) {
    on(SIGUSR1, change, 0);
    long r12, carry;
    unsigned xmm8, xmm9, round = 0x3f80, back;
    long pid = getpid(), tid = gettid();
    unsigned one = 0xabcd;
    __asm__ volatile(
        "mov $41, %%r12d\n movd %4, %%xmm8\n movd %4, %%xmm9\n ldmxcsr %8\n clc\n"
        "mov $234, %%eax\n mov %6, %%rdi\n mov %7, %%rsi\n mov $10, %%edx\n syscall\n"
        "setc %%al\n movzbl %%al, %%eax\n mov %%rax, %1\n mov %%r12, %0\n movd %%xmm8, %2\n movd %%xmm9, %3\n stmxcsr %5\n"
        : "=&r"(r12), "=&r"(carry), "=&r"(xmm8), "=&r"(xmm9), "+r"(one), "=m"(back)
        : "r"(pid), "r"(tid), "m"(round)
        : "rax", "rdi", "rsi", "rdx", "rcx", "r11", "r12", "xmm8", "xmm9", "cc", "memory");
    printf("context r12 %ld carry %ld xmm8 %x xmm9 %x mxcsr %x\n", r12, carry, xmm8, xmm9, back);
    unsigned normal = 0x1f80;
    __asm__ volatile("ldmxcsr %0" : : "m"(normal));
}

static char *alt;
static volatile sig_atomic_t on_alt, alt_flags, eperm;
static void overflowed(int s, siginfo_t *i, void *c) {
    (void)s; (void)i; (void)c;
    char here;
    on_alt = &here > alt && &here < alt + 65536;
    stack_t st, other = {.ss_sp = alt, .ss_size = 65536};
    sigaltstack(NULL, &st);
    alt_flags = st.ss_flags;
    eperm = sigaltstack(&other, NULL) == -1 && errno == EPERM;
    siglongjmp(env, 1);
}
#pragma GCC diagnostic ignored "-Winfinite-recursion"
#pragma GCC diagnostic ignored "-Warray-bounds"
static int recurse(int n) { volatile char room[4096]; room[0] = n; return recurse(n + 1) + room[0]; }
static void stacks(void) {
    alt = malloc(65536);
    stack_t st = {.ss_sp = alt, .ss_size = 65536}, old;
    sigaltstack(&st, &old);
    printf("no stack before %d\n", old.ss_flags == SS_DISABLE);
    on(SIGSEGV, overflowed, SA_ONSTACK);
    if (sigsetjmp(env, 1) == 0) printf("%d\n", recurse(0));
    else printf("overflow on alternate stack %d flags %d EPERM %d\n", on_alt, alt_flags, eperm);
    stack_t small = {.ss_sp = alt, .ss_size = 100};
    printf("too small %d\n", sigaltstack(&small, NULL) == -1 && errno == ENOMEM);
    stack_t off = {.ss_flags = SS_DISABLE};
    sigaltstack(&off, NULL);
    signal(SIGSEGV, SIG_DFL);
}

static void sent_faults(void) {
    on(SIGSEGV, count, 0);
    sigset_t set, pending;
    sigemptyset(&set); sigaddset(&set, SIGSEGV);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int before = seen[SIGSEGV];
    kill(getpid(), SIGSEGV);
    sigpending(&pending);
    printf("sent SIGSEGV blocked %d pending %d\n", seen[SIGSEGV] - before, sigismember(&pending, SIGSEGV));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    printf("delivered %d\n", seen[SIGSEGV] - before);
    signal(SIGSEGV, SIG_IGN);
    kill(getpid(), SIGSEGV);
    fflush(stdout);
    pid_t pid = fork();
    int st;
    if (pid == 0) { struct rlimit none = {0, 0}; setrlimit(RLIMIT_CORE, &none); *(volatile int *)8 = 1; _exit(0); }
    waitpid(pid, &st, 0);
    printf("ignored, yet died of %d\n", WTERMSIG(st));
    if ((pid = fork()) == 0) {
        struct rlimit none = {0, 0}; setrlimit(RLIMIT_CORE, &none);
        on(SIGSEGV, count, 0); sigprocmask(SIG_BLOCK, &set, NULL); *(volatile int *)8 = 1; _exit(0);
    }
    waitpid(pid, &st, 0);
    printf("blocked, and died of %d\n", WTERMSIG(st));
    signal(SIGSEGV, SIG_DFL);
}

static void sleeps(void) {
    on(SIGALRM, count, SA_RESTART);
    timer(20, 0);
    struct timespec want = {0, 200000000}, rest = {0, 0};
    int r = nanosleep(&want, &rest);
    printf("nanosleep %d %d rest %d\n", r, errno == EINTR, rest.tv_nsec > 100000000 && rest.tv_nsec < 190000000);
    timer(20, 0);
    r = poll(NULL, 0, 300);
    printf("poll is not restarted %d %d\n", r, errno == EINTR);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) { usleep(60000); _exit(9); }
    timer(20, 0);
    int st;
    r = waitpid(pid, &st, 0);
    printf("waitpid is %d %d\n", r == pid, WEXITSTATUS(st));
    on(SIGALRM, count, 0);
    if ((pid = fork()) == 0) { usleep(60000); _exit(9); }
    timer(20, 0);
    r = waitpid(pid, &st, 0);
    printf("but not here %d %d\n", r, errno == EINTR);
    waitpid(pid, &st, 0);
    sigset_t set;
    sigemptyset(&set); sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGUSR2, SIG_DFL);
    union sigval v = {.sival_int = 77};
    sigqueue(getpid(), SIGUSR2, v);
    siginfo_t info;
    struct timespec zero = {0, 0};
    r = sigtimedwait(&set, &info, &zero);
    printf("sigtimedwait %d value %d code %d pid %d\n", r == SIGUSR2, info.si_value.sival_int, info.si_code == SI_QUEUE, info.si_pid == getpid());
    r = sigtimedwait(&set, &info, &zero);
    printf("again %d %d\n", r, errno == EAGAIN);
    int fd = signalfd(-1, &set, 0);
    raise(SIGUSR2);
    struct signalfd_siginfo si;
    int full = read(fd, &si, sizeof si) == sizeof si;
    printf("signalfd %d %d\n", full, si.ssi_signo == SIGUSR2);
    close(fd);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static pthread_barrier_t barrier;
static volatile pid_t got[4];
static void who(int s, siginfo_t *i, void *c) { (void)s; (void)i; (void)c; got[gettid() != getpid() ? 1 : 0]++; }
static void *taker(void *arg) {
    sigset_t set;
    sigemptyset(&set); sigaddset(&set, SIGUSR1);
    pthread_sigmask(arg ? SIG_UNBLOCK : SIG_BLOCK, &set, NULL);
    pthread_barrier_wait(&barrier);
    for (int i = 0; i < 2000 && got[1] < 50; i++) usleep(1000);
    return NULL;
}
static void *waiter(void *arg) {
    sigset_t set;
    sigemptyset(&set); sigaddset(&set, SIGUSR2);
    int s, n = 0;
    (void)arg;
    for (int i = 0; i < 10; i++) { if (sigwait(&set, &s) == 0 && s == SIGUSR2) n++; }
    return (void *)(intptr_t)n;
}
static void *sleeper(void *arg) { (void)arg; for (;;) pause(); return NULL; }
static void threads(void) {
    on(SIGUSR1, who, SA_RESTART);
    sigset_t set;
    sigemptyset(&set); sigaddset(&set, SIGUSR1); sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    pthread_t a, b;
    pthread_barrier_init(&barrier, NULL, 3);
    pthread_create(&a, NULL, taker, (void *)1);
    pthread_create(&b, NULL, taker, NULL);
    pthread_barrier_wait(&barrier);
    for (int i = 1; i <= 50; i++) {
        kill(getpid(), SIGUSR1);
        for (int k = 0; k < 5000 && got[1] < i; k++) usleep(100);
    }
    pthread_join(a, NULL); pthread_join(b, NULL);
    printf("process signals went to the thread that takes them: main %d other %d\n", got[0], got[1]);
    void *n;
    pthread_create(&a, NULL, waiter, NULL);
    for (int i = 0; i < 10; i++) { pthread_kill(a, SIGUSR2); usleep(3000); }
    // A standard signal that is pending already is merged: send until the thread has all it wants.
    while (pthread_tryjoin_np(a, &n)) { pthread_kill(a, SIGUSR2); usleep(1000); }
    printf("sigwait %d\n", (int)(intptr_t)n);
    pthread_create(&a, NULL, sleeper, NULL);
    usleep(5000);
    printf("cancel %d", pthread_cancel(a));
    pthread_join(a, &n);
    printf(" %d\n", n == PTHREAD_CANCELED);
    signal(SIGUSR2, SIG_IGN);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    // Per-thread timer.
    timer_t t;
    struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 5, .sigev_value.sival_int = 3};
    ev._sigev_un._tid = gettid();
    on(SIGRTMIN + 5, count, 0);
    int before = hits;
    timer_create(CLOCK_MONOTONIC, &ev, &t);
    struct itimerspec its = {.it_value = {0, 5000000}};
    timer_settime(t, 0, &its, NULL);
    while (hits == before) pause();
    timer_delete(t);
    printf("timer for a thread\n");
}

static void show(void) {
    sigset_t m;
    struct sigaction a;
    sigprocmask(SIG_SETMASK, NULL, &m);
    for (int s = 1; s < 65; s++) {
        if (s == SIGKILL || s == SIGSTOP || s == 32 || s == 33) continue;
        sigaction(s, NULL, &a);
        if (a.sa_handler == SIG_IGN) printf("ignored %d\n", s);
        else if (a.sa_handler != SIG_DFL) printf("handled %d\n", s);
        if (sigismember(&m, s)) printf("blocked %d\n", s);
    }
    sigpending(&m);
    printf("pending SIGUSR1 %d\n", sigismember(&m, SIGUSR1));
}

static void storm(void) {
    on(SIGALRM, count, SA_RESTART);
    on(SIGPROF, count, SA_RESTART);
    struct itimerval t = {.it_value = {.tv_usec = 4000}, .it_interval = {.tv_usec = 4000}};
    int before = hits;
    setitimer(ITIMER_REAL, &t, NULL);
    setitimer(ITIMER_PROF, &t, NULL);
    uint64_t h = 1469598103934665603u;
    double d = 1;
    int p[2];
    if (pipe(p)) exit(1);
    for (int i = 0; i < 4000; i++) {
        char c = i, e = 0;
        if (write(p[1], &c, 1) != 1 || read(p[0], &e, 1) != 1 || e != c) { printf("lost at %d %s\n", i, strerror(errno)); exit(1); }
        h = (h ^ (unsigned char)e) * 1099511628211u;
        d = d * 1.000001 + 0.5 / (i + 1);
    }
    while (hits < before + 20) d += 1e-9;
    memset(&t, 0, sizeof t);
    setitimer(ITIMER_REAL, &t, NULL);
    setitimer(ITIMER_PROF, &t, NULL);
    printf("storm %llx\n", (unsigned long long)h);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc > 1 && !strcmp(argv[1], "show")) { show(); return 0; }
    for (int s = 1; s < 32; s++) signal(s, SIG_DFL);    // nohup and CI runners ignore some
    temporary_masks();
    frames();
    contexts();
    stacks();
    sent_faults();
    sleeps();
    storm();
    threads();
    sigset_t set;
    sigemptyset(&set); sigaddset(&set, SIGUSR1); sigaddset(&set, SIGSEGV); sigaddset(&set, SIGRTMIN + 7);
    signal(SIGUSR2, SIG_IGN); signal(SIGFPE, SIG_IGN); signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &set, NULL);
    raise(SIGUSR1);
    char *args[] = {argv[0], "show", NULL};
    execv("/proc/self/exe", args);
    return 1;
}
