// Ways in and out of functions that are not call and return. The first argument chooses one.
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
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

static volatile int storming;
static void alarm_in(int us) { setitimer(ITIMER_REAL, &(struct itimerval){{0, 0}, {0, us}}, 0); }

// Asks for the next one itself: on a slow machine, what a timer sends by itself would leave no time for the program.
__attribute__((noipa)) static void tick(int signo) {
    ticks += signo;
    if (storming) alarm_in(50);
}

__attribute__((noipa)) static void repair(int signo) { mprotect(closed, 4096, PROT_READ | PROT_WRITE); }

__attribute__((noipa)) static int climb(int n) { return n < 2 ? n : climb(n - 1) + climb(n - 2); }

// What this and `climb` execute is the same with the timer and without.
__attribute__((noipa)) static void storm(int timer) {
    signal(SIGALRM, tick);
    signal(SIGSEGV, repair);
    storming = timer;
    alarm_in(timer ? 50 : 0);
    for (int i = 0; i < 8; i++) {
        closed = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        sink += climb(22);
        sink ^= 3;
        closed[i] = sink;
        sink += closed[i];
    }
    storming = 0;
    alarm_in(0);
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

__attribute__((noipa)) static int dig(int n) {
    int below = n ? dig(n - 1) : 0;
    return below + sink;
}

static void *leap[5];

__attribute__((noipa)) static void leaps(int n) {
    if (n == 0) __builtin_longjmp(leap, 1);
    leaps(n - 1);
    sink++;
}

// Their return addresses are changed, used as data, and dropped.
void elsewhere(void), reads_pc(void), skipped(void), skips(void);
__asm__(".text\n"
        ".type elsewhere, @function\nelsewhere: call 1f\n2: pause\njmp 2b\n1: lea landed(%rip), %rax\nmov %rax, (%rsp)\nret\n.size elsewhere, .-elsewhere\n"
        ".type landed, @function\nlanded: nop\nnop\nret\n.size landed, .-landed\n"
        ".type reads_pc, @function\nreads_pc: push %rbx\ncall 1f\n1: pop %rbx\nmov $30, %edi\ncall landed\ncall landed\npop %rbx\nret\n.size reads_pc, .-reads_pc\n"
        ".type skipped, @function\nskipped: call skips\nud2\n.size skipped, .-skipped\n"
        ".type skips, @function\nskips: nop\nadd $8, %rsp\nret\n.size skips, .-skips\n");

static ucontext_t here, there;

__attribute__((noipa)) static void other(void) {
    for (int i = 0; i < 3; i++) {
        work(20);
        swapcontext(&there, &here);
    }
}

__attribute__((noipa)) static void switches(void) {
    static char stack[65536];
    getcontext(&there);
    there.uc_stack.ss_sp = stack;
    there.uc_stack.ss_size = sizeof stack;
    there.uc_link = &here;
    makecontext(&there, other, 0);
    for (int i = 0; i < 4; i++) {
        swapcontext(&here, &there);
        work(10);
    }
}

static void pong(int n);
__attribute__((noipa)) static void ping(int n) { if (n) pong(n - 1); }
__attribute__((noipa)) static void pong(int n) {
    sink++;
    if (n) ping(n - 1);
}

#define ONE(n) __attribute__((noipa)) static void one##n(void) { sink += n; }
#define TEN(n) ONE(n##0) ONE(n##1) ONE(n##2) ONE(n##3) ONE(n##4) ONE(n##5) ONE(n##6) ONE(n##7) ONE(n##8) ONE(n##9)
TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9)
#undef ONE
#define ONE(n) one##n,
static void (*const many[])(void) = {TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9)};

__attribute__((noipa)) static void unusual(void) {
    for (int i = 0; i < 2; i++) {
        dig(100000);
        if (setjmp(place) == 0) deep(1000 + i);
        if (__builtin_setjmp(leap) == 0) leaps(20);
        elsewhere();
        reads_pc();
        skipped();
        switches();
        for (int n = 0; n < 1000; n++) many[n * 7 % 90]();
        static char alternate[65536];
        sigaltstack(&(stack_t){.ss_sp = alternate, .ss_size = sizeof alternate}, 0);
        sigaction(SIGUSR2, &(struct sigaction){.sa_handler = escape, .sa_flags = SA_ONSTACK}, 0);
        if (sigsetjmp(safe, 1) == 0) raise(SIGUSR2);
        pong(101);
        work(70);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "jumps")) jumps();
    if (!strcmp(what, "tail")) tail(70);
    if (!strcmp(what, "signals")) interrupted();
    if (!strcmp(what, "unusual")) unusual();
    if (!strcmp(what, "threads")) threads();
    if (!strcmp(what, "children")) children(argv[0]);
    if (!strcmp(what, "storm")) storm(1);
    if (!strcmp(what, "calm")) storm(0);
    if (argc > 2) dies(argv[2]);
    return 0;
}
