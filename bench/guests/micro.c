// One mechanism at a time: micro WHAT prints nanoseconds for each. The first seven are the nanobenchmarks of Adams and Agesen
// ("A comparison of software and hardware techniques for x86 virtualization", 2006) as a user-mode program can have them.
#define _GNU_SOURCE
#include <cpuid.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static volatile long sink;
static char *page;
static jmp_buf place;
static sigjmp_buf after_fault;

static void do_syscall(long n) { while (n--) syscall(SYS_getppid); }
static void do_rdtsc(long n) { unsigned long x = 0; while (n--) x += __builtin_ia32_rdtsc(); sink = x; }
static void do_cpuid(long n) { unsigned a = 0, b = 0, c = 0, d = 0; while (n--) __cpuid(0, a, b, c, d); sink = a + b + c + d; }
__attribute__((target("fsgsbase"))) static void do_fsbase(long n) {
    unsigned long base = _readfsbase_u64();
    while (n--) _writefsbase_u64(base);
}
static void do_mxcsr(long n) { unsigned control = _mm_getcsr(); while (n--) _mm_setcsr(control); }
__attribute__((noinline)) static long leaf(long x) { __asm__ volatile(""); return x + 1; }
static void do_leaf(long n) { long x = 0; while (n--) x = leaf(x); sink = x; }
__attribute__((noinline)) static long deep(long x) {
    if (x == 0) return 0;
    long below = deep(x - 1);
    __asm__ volatile("" : "+r"(below));
    return below + 1;
}
static void do_deep(long n) { for (; n > 0; n -= 1000) sink = deep(999); }
__attribute__((noinline)) static long fib(long x) { return x < 2 ? 1 : fib(x - 1) + fib(x - 2); }
static void do_fib(long n) { for (; n > 0; n -= 21891) sink = fib(20); }
static void do_setjmp(long n) { volatile long left = n; if (setjmp(place), left-- > 0) longjmp(place, 1); }

// The handler takes the protection away, as garbage collectors do.
static void open_page(int s) { (void)s; mprotect(page, 4096, PROT_READ | PROT_WRITE); }
static void do_pgfault(long n) {
    signal(SIGSEGV, open_page);
    while (n--) { mprotect(page, 4096, PROT_NONE); *(volatile char *)page = 1; }
}
static void leave(int s) { (void)s; siglongjmp(after_fault, 1); }
static void do_divzero(long n) {
    signal(SIGFPE, leave);
    volatile long left = n;
    volatile int zero = 0;
    sigsetjmp(after_fault, 1);
    if (left-- > 0) sink = 100 / zero;
}
// A store into a page that holds code, and then the code: "mov eax, 1; ret" whose constant changes.
static void do_ptemod(long n) {
    static const unsigned char code[] = {0xb8, 1, 0, 0, 0, 0xc3};
    memcpy(page, code, sizeof code);
    mprotect(page, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
    long x = 0;
    while (n--) { page[1] = n; x += ((int (*)(void))page)(); }
    sink = x;
}
static long one(long x) { return x + 1; }
static long two(long x) { return x ^ 3; }
static long (*volatile functions[2])(long) = {one, two};
static void do_indirect(long n) { long x = 0; while (n--) x = functions[x & 1](x); sink = x; }
static void do_loop(long n) { long x = 0; while (n--) { x = x * 3 + n; __asm__ volatile("" : "+r"(x)); } sink = x; }
static void count(int s) { sink += s; }
static void do_signal(long n) { signal(SIGUSR1, count); while (n--) raise(SIGUSR1); }
static void do_clock(long n) { struct timespec t; while (n--) clock_gettime(CLOCK_MONOTONIC, &t); }


// Two threads that run the same function at once.
static void in_two(void *(*function)(void *), long n) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) pthread_create(&threads[i], NULL, function, (void *)n);
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
}
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static void *lock_often(void *n) {
    for (long i = (long)n; i > 0; i--) { pthread_mutex_lock(&mutex); sink++; pthread_mutex_unlock(&mutex); }
    return NULL;
}
static void do_mutex(long n) { in_two(lock_often, n / 2); }
static atomic_int turn;
static atomic_int players;
static void futex(int operation, int value) { syscall(SYS_futex, &turn, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0); }
static void *play(void *n) {
    int me = players++ & 1;
    for (long i = (long)n; i > 0; i--) {
        while (turn != me) futex(FUTEX_WAIT, !me);
        turn = !me;
        futex(FUTEX_WAKE, 1);
    }
    return NULL;
}
static void do_pingpong(long n) { turn = players = 0; in_two(play, n); }

static const struct { const char *name; void (*run)(long); } all[] = {
    {"syscall", do_syscall}, {"rdtsc", do_rdtsc}, {"cpuid", do_cpuid}, {"fsbase", do_fsbase}, {"mxcsr", do_mxcsr},
    {"leaf", do_leaf}, {"deep", do_deep}, {"setjmp", do_setjmp}, {"pgfault", do_pgfault}, {"divzero", do_divzero},
    {"ptemod", do_ptemod}, {"fib", do_fib}, {"indirect", do_indirect}, {"loop", do_loop}, {"signal", do_signal},
    {"clock", do_clock}, {"mutex", do_mutex}, {"pingpong", do_pingpong},
};

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int main(int argc, char **argv) {
    page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (argc == 2 && !strcmp(argv[1], "fsbase") && !(getauxval(AT_HWCAP2) & 2)) return 3; // HWCAP2_FSGSBASE
    for (unsigned i = 0; argc == 2 && i < sizeof all / sizeof *all; i++) {
        if (strcmp(argv[1], all[i].name)) continue;
        // As often as it takes: twice as many until they last 60 ms, so that what happens once does not count.
        for (long n = 1;; n *= 2) {
            double start = seconds();
            all[i].run(n);
            double took = seconds() - start;
            if (took < 0.06) continue;
            printf("%.3f\n", took / n * 1e9);
            return 0;
        }
    }
    return 2;
}
