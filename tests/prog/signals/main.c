// Signals: handlers with siginfo, masks, alternate stack, faults that are survived, EINTR and SA_RESTART, timers.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

static volatile sig_atomic_t count, last, code, on_alt, child_status;
static sigjmp_buf env;
static char *alt;
static void *volatile fault_address;

static void note(int s, siginfo_t *i, void *c) {
    (void)c; char here;
    count++; last = s; code = i->si_code;
    on_alt = alt && &here > alt && &here < alt + 65536;
}
static void jump(int s, siginfo_t *i, void *c) {
    (void)c; last = s; code = i->si_code; fault_address = i->si_addr;
    siglongjmp(env, 1);
}
static void skip(int s, siginfo_t *i, void *c) {
    ucontext_t *u = c; (void)i; last = s;
    u->uc_mcontext.gregs[REG_RIP] += 2;
    u->uc_mcontext.gregs[REG_RAX] = 77;
}
static void reap(int s) { (void)s; int st; while (waitpid(-1, &st, WNOHANG) > 0) child_status = WEXITSTATUS(st); }
static void install(int s, void (*h)(int, siginfo_t *, void *), int flags) {
    struct sigaction a = {.sa_sigaction = h, .sa_flags = SA_SIGINFO | flags};
    sigaction(s, &a, NULL);
}

int main(void) {
    install(SIGUSR1, note, 0);
    raise(SIGUSR1);
    printf("raise %d %d %d\n", count, last == SIGUSR1, code == SI_TKILL);
    kill(getpid(), SIGUSR1);
    printf("kill %d %d\n", count, code == SI_USER);
    sigset_t set, old, pending;
    sigemptyset(&set); sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, &old);
    kill(getpid(), SIGUSR1); kill(getpid(), SIGUSR1);
    sigpending(&pending);
    printf("blocked %d pending %d\n", count, sigismember(&pending, SIGUSR1));
    sigprocmask(SIG_SETMASK, &old, NULL);
    printf("unblocked %d\n", count);
    union sigval v = {.sival_int = 5};
    install(SIGRTMIN, note, 0);
    sigqueue(getpid(), SIGRTMIN, v);
    printf("queued %d %d\n", last == SIGRTMIN, code == SI_QUEUE);

    alt = malloc(65536);
    stack_t ss = {.ss_sp = alt, .ss_size = 65536};
    sigaltstack(&ss, NULL);
    install(SIGUSR2, note, SA_ONSTACK);
    raise(SIGUSR2);
    printf("alternate stack %d\n", on_alt);

    install(SIGSEGV, jump, SA_ONSTACK | SA_NODEFER);
    char *guard = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    volatile long keep = 1;
    for (int i = 0; i < 3; i++)
        if (sigsetjmp(env, 1) == 0) { keep++; *(volatile char *)(guard + 100 + i) = 1; }
        else printf("write fault %d %ld kept %ld\n", code == SEGV_ACCERR, (long)((char *)fault_address - guard), keep);
    if (sigsetjmp(env, 1) == 0) printf("%d\n", *(volatile int *)0x10);
    else printf("null fault %d %p\n", code == SEGV_MAPERR, fault_address);
    install(SIGFPE, jump, SA_NODEFER);
    volatile int zero = 0, seven = 7;
    if (sigsetjmp(env, 1) == 0) printf("%d\n", seven / zero);
    else printf("division %d %d\n", last == SIGFPE, code == FPE_INTDIV);
    install(SIGILL, skip, 0);
    long result = 0;
    __asm__ volatile("xor %%eax, %%eax\n ud2\n mov %%rax, %0" : "=r"(result) : : "rax");
    printf("skipped ud2 %d %ld\n", last == SIGILL, result);

    install(SIGALRM, note, 0);
    int fds[2]; char c;
    if (pipe(fds)) return 1;
    // Again and again: the first may come before the call on a busy machine.
    struct itimerval soon = {.it_value = {.tv_usec = 20000}}, often = {soon.it_value, soon.it_value}, never = {0};
    setitimer(ITIMER_REAL, &often, NULL);
    int interrupted = read(fds[0], &c, 1) == -1 && errno == EINTR;
    setitimer(ITIMER_REAL, &never, NULL);
    printf("interrupted %d %d\n", interrupted, last == SIGALRM);
    install(SIGALRM, note, SA_RESTART);
    setitimer(ITIMER_REAL, &soon, NULL);
    pid_t pid = fork();
    if (pid == 0) { usleep(80000); _exit(write(fds[1], "z", 1) != 1); }
    printf("restarted %d\n", read(fds[0], &c, 1) == 1 && c == 'z');
    waitpid(pid, NULL, 0);
    signal(SIGCHLD, reap);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, &old);
    if (fork() == 0) _exit(6);
    while (!child_status) sigsuspend(&old);
    printf("child %d\n", child_status);
    sigprocmask(SIG_SETMASK, &old, NULL);

    int before = count;
    struct itimerval ticks = {.it_value = {.tv_usec = 2000}, .it_interval = {.tv_usec = 2000}};
    setitimer(ITIMER_REAL, &ticks, NULL);
    volatile unsigned long spins = 0;
    while (count < before + 10) spins++;
    memset(&ticks, 0, sizeof ticks);
    setitimer(ITIMER_REAL, &ticks, NULL);
    printf("a busy loop is interrupted\n");
    signal(SIGPIPE, SIG_IGN);
    close(fds[0]);
    printf("ignored %d\n", write(fds[1], "x", 1) == -1 && errno == EPIPE);
    fflush(stdout);
    signal(SIGTERM, SIG_DFL);
    raise(SIGTERM);
    return 0;
}
