// One thing at a time, often: micro WHAT TIMES prints nanoseconds for each.
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long one(long x) { return x + 1; }
static long two(long x) { return x ^ 3; }
static long (*volatile functions[2])(long) = {one, two};
__attribute__((noinline)) static long leaf(long x) { __asm__ volatile(""); return x + 1; }
static volatile long handled;
static void handler(int s) { handled += s; }

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    long times = atol(argv[2]), x = 0;
    struct timespec a, b;
    signal(SIGUSR1, handler);
    clock_gettime(CLOCK_MONOTONIC, &a);
    if (!strcmp(argv[1], "syscall")) for (long i = 0; i < times; i++) x += syscall(SYS_getppid);
    else if (!strcmp(argv[1], "indirect")) for (long i = 0; i < times; i++) x = functions[x & 1](x);
    else if (!strcmp(argv[1], "call")) for (long i = 0; i < times; i++) x = leaf(x);
    else if (!strcmp(argv[1], "loop")) for (long i = 0; i < times; i++) { x = x * 3 + i; __asm__ volatile("" : "+r"(x)); }
    else if (!strcmp(argv[1], "signal")) for (long i = 0; i < times; i++) raise(SIGUSR1);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("%.3f\n", ((b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec)) / times);
    return x == 42;
}
