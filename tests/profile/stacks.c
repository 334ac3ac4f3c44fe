// Ways in and out of functions that are not call and return. The first argument chooses one.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int sink;
static jmp_buf place;
static sigjmp_buf safe;

__attribute__((noipa)) static void work(int n) {
    for (int i = 0; i < n; i++) sink += i;
}

__attribute__((noipa)) static void deep(int n) {
    if (n == 0) longjmp(place, 1);
    deep(n - 1);
    sink++;
}

__attribute__((noipa)) static void jumps(void) {
    if (setjmp(place) == 0) deep(5);
    work(100);
}

__attribute__((noipa)) static void last(int n) { work(n); }

__attribute__((noipa)) static void tail(int n) {
    sink++;
    __asm__ volatile("mov %0, %%edi\n" ::"r"(n) : "edi");
    last(n);
}

__attribute__((noipa)) static void handler(int signo) {
    work(signo);
}

__attribute__((noipa)) static void escape(int signo) {
    work(signo);
    siglongjmp(safe, 1);
}

__attribute__((noipa)) static void interrupted(void) {
    signal(SIGUSR1, handler);
    raise(SIGUSR1);
    work(50);
    signal(SIGUSR2, escape);
    if (sigsetjmp(safe, 1) == 0) raise(SIGUSR2);
    work(60);
}

__attribute__((noipa)) static void *thread(void *n) {
    work(*(int *)n);
    return n;
}

__attribute__((noipa)) static void threads(void) {
    pthread_t t[3];
    int n = 1000;
    for (int i = 0; i < 3; i++) pthread_create(&t[i], 0, thread, &n);
    for (int i = 0; i < 3; i++) pthread_join(t[i], 0);
}

__attribute__((noipa)) static void children(const char *self) {
    if (fork() == 0) {
        work(2000);
        execl(self, self, "tail", (char *)0);
        _exit(9);
    }
    if (fork() == 0) {
        work(3000);
        _exit(0);
    }
    while (wait(0) > 0) {}
}

static volatile int ticks;
static char *closed;

__attribute__((noipa)) static void tick(int signo) { ticks += signo; }

__attribute__((noipa)) static void repair(int signo) { mprotect(closed, 4096, PROT_READ | PROT_WRITE); }

__attribute__((noipa)) static int climb(int n) { return n < 2 ? n : climb(n - 1) + climb(n - 2); }

// What this and `climb` execute is the same with the timer and without.
__attribute__((noipa)) static void storm(int timer) {
    signal(SIGALRM, tick);
    signal(SIGSEGV, repair);
    struct itimerval often = {{0, 50}, {0, timer ? 50 : 0}};
    setitimer(ITIMER_REAL, &often, 0);
    for (int i = 0; i < 8; i++) {
        closed = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        sink += climb(22);
        sink ^= 3;
        closed[i] = sink;
        sink += closed[i];
    }
    setitimer(ITIMER_REAL, &(struct itimerval){}, 0);
}

static void *ends(void *unused) {
    work(500);
    _exit(5);
    return unused;
}

__attribute__((noipa)) static void dies(const char *how) {
    work(4000);
    if (!strcmp(how, "fault")) *(volatile int *)16 = 1;
    if (!strcmp(how, "term")) kill(getpid(), SIGTERM);
    if (!strcmp(how, "abort")) raise(SIGABRT);
    if (!strcmp(how, "thread")) {
        pthread_t t;
        pthread_create(&t, 0, ends, 0);
        for (;;) sink++;
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "jumps")) jumps();
    if (!strcmp(what, "tail")) tail(70);
    if (!strcmp(what, "signals")) interrupted();
    if (!strcmp(what, "threads")) threads();
    if (!strcmp(what, "children")) children(argv[0]);
    if (!strcmp(what, "storm")) storm(1);
    if (!strcmp(what, "calm")) storm(0);
    if (argc > 2) dies(argv[2]);
    return 0;
}
