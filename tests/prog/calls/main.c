// links: dynamic static
// Control flow: indirect calls, switch tables, varargs, setjmp, deep recursion, coroutines by swapcontext.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

static long add(long a, long b) { return a + b; }
static long sub(long a, long b) { return a - b; }
static long mul(long a, long b) { return a * b; }
static long (*const table[])(long, long) = {add, sub, mul};

static int classify(int x) {
    switch (x) {
    case 0: return 5; case 1: return 9; case 2: return 1; case 3: return 77; case 4: return 4; case 5: return 6;
    case 6: return 12; case 7: return 3; case 8: return 8; case 100: return 1000; default: return -1;
    }
}
static double total(int n, ...) {
    va_list ap; double s = 0;
    va_start(ap, n);
    for (int i = 0; i < n; i++) s += i % 2 ? va_arg(ap, double) : va_arg(ap, int);
    va_end(ap);
    return s;
}
static jmp_buf deep;
__attribute__((noinline)) static int dive(int n) { if (n == 0) longjmp(deep, 42); volatile int keep = n; return dive(n - 1) + keep; }
__attribute__((noinline)) static long depth(long n) { volatile long keep = n; return n ? depth(n - 1) + keep : 0; }

static ucontext_t main_context, side;
static int handed;
static void coroutine(void) { for (int i = 0; i < 5; i++) { handed = i * i; swapcontext(&side, &main_context); } }
static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int main(void) {
    long r = 1;
    for (int i = 0; i < 3000; i++) r = table[i % 3](r, i) % 1000003;
    printf("indirect %ld\n", r);
    long c = 0;
    for (int i = -2; i < 3000; i++) c = c * 3 + classify(i % 11) + (i == 100 ? classify(i) : 0), c %= 1000003;
    printf("switch %ld\n", c);
    printf("varargs %.2f\n", total(6, 1, 2.5, 3, 4.5, 5, 6.5));
    for (int i = 0; i < 3; i++) { int v = setjmp(deep); if (v == 0) dive(200); printf("longjmp %d\n", v); }
    printf("recursion %ld\n", depth(50000));
    getcontext(&side);
    side.uc_stack.ss_sp = malloc(65536); side.uc_stack.ss_size = 65536; side.uc_link = &main_context;
    makecontext(&side, coroutine, 0);
    for (int i = 0; i < 5; i++) { swapcontext(&main_context, &side); printf("coroutine %d\n", handed); }
    int values[50];
    for (int i = 0; i < 50; i++) values[i] = i * 37 % 50;
    qsort(values, 50, sizeof *values, by_value);
    printf("sorted %d %d\n", values[0], values[49]);
    int labels = 0; static void *go[] = {&&a, &&b, &&end};
    for (int i = 0;; i++) { goto *go[i < 10 ? i % 2 : 2]; a: labels += 1; continue; b: labels += 100; continue; end: break; }
    printf("computed goto %d\n", labels);
    return 0;
}
