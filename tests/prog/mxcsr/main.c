// MXCSR and the x87 control word in code that is hot: every rounding mode, flushing of operands and results apart, exceptions that are
// masked and seen as flags, and exceptions that are not and become SIGFPE, with registers as they were.
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

enum { DE = 2, MASKS = 0x1f80, DAZ = 0x40, FTZ = 0x8000 };

static uint64_t bits(double v) {
    uint64_t b;
    memcpy(&b, &v, 8);
    return b;
}

static double number(uint64_t b) {
    double v;
    memcpy(&v, &b, 8);
    return v;
}

// The operation of this number under `mxcsr`, which becomes what it is behind.
static double compute(int op, double a, double b, uint32_t *mxcsr) {
    uint32_t usual = MASKS;
    long n = 0;
    __asm__ volatile("ldmxcsr %0" : : "m"(*mxcsr) : "memory");
    switch (op) {
    case 0: __asm__ volatile("addsd %1, %0" : "+x"(a) : "x"(b)); break;
    case 1: __asm__ volatile("mulsd %1, %0" : "+x"(a) : "x"(b)); break;
    case 2: __asm__ volatile("divsd %1, %0" : "+x"(a) : "x"(b)); break;
    case 3: __asm__ volatile("sqrtsd %1, %0" : "+x"(a) : "x"(b)); break;
    case 4: __asm__ volatile("minsd %1, %0" : "+x"(a) : "x"(b)); break;
    case 5: __asm__ volatile("cvtsd2ss %1, %0" : "+x"(a) : "x"(b)); break;
    case 6: __asm__ volatile("cvtsd2si %1, %k0" : "+r"(n) : "x"(b)); break;
    case 7: __asm__ volatile("cvttsd2si %1, %0" : "+r"(n) : "x"(b)); break;
    case 8: __asm__ volatile("comisd %1, %2; setb %b0" : "+r"(n) : "x"(b), "x"(a) : "cc"); break;
    case 9: __asm__ volatile("ucomisd %1, %2; setp %b0" : "+r"(n) : "x"(b), "x"(a) : "cc"); break;
    case 10: __asm__ volatile("cmpltpd %1, %0" : "+x"(a) : "x"(b)); break;
    case 11: __asm__ volatile("cmpeqpd %1, %0" : "+x"(a) : "x"(b)); break;
    default: __asm__ volatile("haddpd %1, %0" : "+x"(a) : "x"(b)); break;
    }
    __asm__ volatile("stmxcsr %0\n\tldmxcsr %1" : "=m"(*mxcsr) : "m"(usual) : "memory");
    return n ? (double)n : a;
}

enum { OPS = 13 };

static const uint64_t values[] = {
    0x3ff0000000000000, 0xbff8000000000001, 0x0010000000000001, 0x7fefffffffffffff, 0x41dfffffffe00000, 0xc1e0000000180000,
    0x0000000000000000, 0x8000000000000000, 0x7ff0000000000000, 0x7ff8000000000000, 0xfff0000000000001, 0x36a0000000000000,
    0x000fffffffffffff, 0x43e0000000000000, 0x3810000000000000, 0x8000000000000001,
};
enum { VALUES = sizeof values / sizeof *values };

static uint64_t mix(uint64_t h, uint64_t v) {
    return (h ^ v) * 0x9e3779b97f4a7c15 >> 7 ^ h << 11;
}

static uint64_t masked(uint32_t control) {
    uint64_t sum = 0;
    for (int op = 0; op < OPS; op++)
        for (int i = 0; i < VALUES; i++)
            for (int k = 0; k < VALUES; k++) {
                uint32_t mxcsr = MASKS | control;
                uint64_t r = bits(compute(op, number(values[i]), number(values[k]), &mxcsr));
                sum = mix(mix(sum, r), mxcsr & ~DE); // which not every host has (docs/ISA.md)
            }
    return sum;
}

static sigjmp_buf back;
static volatile int code;
static volatile uint32_t flags;
static volatile uint64_t rbx, mantissa;
static volatile uint16_t status;

static void on_fpe(int signo, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    (void)signo;
    code = info->si_code;
    flags = u->uc_mcontext.fpregs->mxcsr & 0x3f;
    status = u->uc_mcontext.fpregs->swd;
    rbx = u->uc_mcontext.gregs[REG_RBX];
    mantissa = *(uint64_t *)((char *)u->uc_mcontext.fpregs + 160);
    siglongjmp(back, 1);
}

// Divides, with rbx and xmm0 known, until the exception that is not masked comes.
static void trap(const char *name, uint32_t unmasked, uint64_t a, uint64_t b) {
    uint32_t mxcsr = MASKS & ~unmasked, usual = MASKS;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("movq %1, %%xmm0\n\tmovq %2, %%xmm1\n\tmov $77, %%ebx\n\tldmxcsr %0\n\tdivsd %%xmm1, %%xmm0\n\t"
                         "mov $78, %%ebx\n\tldmxcsr %3"
                         :
                         : "m"(mxcsr), "r"(a), "r"(b), "m"(usual)
                         : "rbx", "xmm0", "xmm1", "memory");
        printf("%s: nothing\n", name);
    } else {
        printf("%s: code %d, flags %#x, rbx %d, xmm0 %s\n", name, code, flags, (int)rbx, mantissa == a ? "as before" : "lost");
    }
}

static void trap_x87(void) {
    uint16_t control = 0x37b, usual = 0x37f;
    if (sigsetjmp(back, 1) == 0) {
        __asm__ volatile("fldcw %0\n\tfldz\n\tfld1\n\tfdivp\n\tfwait\n\tfldcw %1" : : "m"(control), "m"(usual));
        puts("x87: nothing");
    } else {
        printf("x87: code %d, status %#x\n", code, status & 0x80ff);
    }
    __asm__ volatile("fninit");
}

int main(void) {
    static const uint32_t flushing[] = {0, FTZ | DAZ, FTZ, DAZ};
    struct sigaction action = {.sa_sigaction = on_fpe, .sa_flags = SA_SIGINFO};
    for (int f = 0; f < 4; f++)
        for (uint32_t rounding = 0; rounding < 4; rounding++) {
            uint64_t sum = 0;
            for (int n = 0; n < 8; n++)
                sum = mix(sum, masked(flushing[f] | rounding << 13));
            printf("flushing %#x, rounding %u: %016lx\n", flushing[f], rounding, (unsigned long)sum);
        }
    sigaction(SIGFPE, &action, NULL);
    for (int n = 0; n < 2; n++) {
        trap("division by zero", 1 << 9, bits(1), 0);
        trap("invalid", 1 << 7, 0, 0);
        trap("denormal", 1 << 8, 1, bits(1));
        trap("overflow", 1 << 10, bits(1e300), bits(1e-300));
        trap("underflow", 1 << 11, bits(1e-300), bits(1e300));
        trap("inexact", 1 << 12, bits(1), bits(3));
        trap("masked", 1 << 12, bits(1), bits(2));
        trap_x87();
    }
    return 0;
}
