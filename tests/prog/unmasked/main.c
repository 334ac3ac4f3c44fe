// Floating-point exceptions that are not masked, as SBCL, FreePascal and gfortran's -ffpe-trap have them: in hot loops of integers with
// floats in between, with handlers that see exact registers and go on, in one of two threads, and masked again.
// With "integers": a loop of integers and a few floats, for whoever counts what becomes of it.
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

enum { MASKED = 0x1f80, UNMASKED = MASKED & ~(1 << 7 | 1 << 9 | 1 << 10), FTZ = 0x8000, STATUS = 0x8d5 };

static void set_mxcsr(uint32_t v) {
    __asm__ volatile("ldmxcsr %0" : : "m"(v) : "memory");
}

static uint32_t mxcsr(void) {
    uint32_t v;
    __asm__ volatile("stmxcsr %0" : "=m"(v) : : "memory");
    return v;
}

__attribute__((noinline)) static uint32_t step(uint32_t h, uint32_t n) {
    h = h * 1664525 + 1013904223;
    h ^= h >> 13;
    return h & 1 ? h + n : h ^ n;
}

__attribute__((noinline)) static double mixed(uint32_t rounds, uint32_t every) {
    uint32_t h = 1;
    double sum = 0;
    for (uint32_t n = 0; n < rounds; n++) {
        h = step(h, n);
        if (n % every == 0)
            sum = sum * 0.75 + h;
    }
    return sum + h;
}

static _Thread_local struct {
    int count, code, exact;
    uint64_t rbx, flags;
    double xmm0;
} seen;

extern const char divides[], converts[], compares[], packed[], waits[];

// What the handler sees of the faults, all the same way repaired: operands become 1.
static void on_fpe(int signo, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    char *image = (char *)u->uc_mcontext.fpregs;
    uint64_t pc = u->uc_mcontext.gregs[REG_RIP];
    const double ones[2] = {1, 1};
    (void)signo;
    seen.count++;
    seen.code = info->si_code;
    seen.exact = (uint64_t)info->si_addr == pc;
    seen.rbx = u->uc_mcontext.gregs[REG_RBX];
    seen.flags = u->uc_mcontext.gregs[REG_EFL] & STATUS;
    memcpy(&seen.xmm0, image + 160, 8);
    if (pc == (uint64_t)waits) {
        u->uc_mcontext.fpregs->cwd = 0x37f;
        u->uc_mcontext.fpregs->swd &= 0x7f00;
        return;
    }
    seen.exact &= pc == (uint64_t)divides || pc == (uint64_t)converts || pc == (uint64_t)compares || pc == (uint64_t)packed;
    memcpy(image + 160, ones, 16);
    memcpy(image + 176, ones, 16);
}

static void report(const char *name, uint64_t result) {
    printf("%s: %d, code %d, %s, rbx %d, flags %#x, xmm0 %g, result %#lx\n", name, seen.count, seen.code,
           seen.exact ? "exact" : "elsewhere", (int)seen.rbx, (int)seen.flags, seen.xmm0, (unsigned long)result);
    memset(&seen, 0, sizeof seen);
}

#define LOOP(label, before, instruction)                                                                                   \
    "xor %%ebx, %%ebx\n1:\tmov %%ebx, %%eax\n\timul $77, %%eax, %%eax\n\txor %%eax, %%ecx\n\tinc %%ebx\n\t" before       \
    "\n\tcmp $4990, %%ebx\n" label ":\t" instruction "\n\tsetb %%al\n\tmovzbl %%al, %%eax\n\tadd %%eax, %%edx\n\t"         \
    "cmp $5000, %%ebx\n\tjne 1b"

static void loops(void) {
    // Each gets to something that is not allowed in its last rounds.
    uint64_t n = 0, x = 0;
    __asm__ volatile(LOOP("divides", "mov $4999, %%eax\n\tsub %%ebx, %%eax\n\tcvtsi2sd %%ebx, %%xmm0\n\tcvtsi2sd %%eax, %%xmm1", "divsd %%xmm1, %%xmm0")
                     : "+d"(n), "+c"(x) : : "rax", "rbx", "xmm0", "xmm1", "cc");
    report("divides", n << 32 | (uint32_t)x);
    __asm__ volatile(LOOP("converts", "mov $1, %%rax\n\tshl $50, %%rax\n\tadd %%rbx, %%rax\n\tcvtsi2sd %%rax, %%xmm0\n\tmov %%ebx, %%eax\n\t"
                                      "shr $12, %%eax\n\tcvtsi2sd %%eax, %%xmm1\n\tsqrtsd %%xmm1, %%xmm1\n\tmulsd %%xmm1, %%xmm0\n\tmov %%ebx, %%eax\n\t"
                                      "cmp $4997, %%eax\n\tja 2f\n\txorps %%xmm0, %%xmm0\n2:", "cvttsd2si %%xmm0, %%esi")
                     : "+d"(n), "+c"(x) : : "rax", "rbx", "rsi", "xmm0", "xmm1", "cc");
    report("converts", n << 32 | (uint32_t)x);
    __asm__ volatile(LOOP("compares", "xorps %%xmm0, %%xmm0\n\txorps %%xmm1, %%xmm1\n\tcmp $4996, %%ebx\n\tjb 2f\n\tpcmpeqd %%xmm1, %%xmm1\n2:", "cmpltsd %%xmm1, %%xmm0")
                     : "+d"(n), "+c"(x) : : "rax", "rbx", "xmm0", "xmm1", "cc");
    report("compares", n << 32 | (uint32_t)x);
    __asm__ volatile(LOOP("packed", "mov $0x7f000000, %%eax\n\tshl $32, %%rax\n\tmovq %%rax, %%xmm0\n\tmovddup %%xmm0, %%xmm0\n\tmovaps %%xmm0, %%xmm1\n\tcmp $4995, %%ebx\n\tja 2f\n\t"
                                    "xorps %%xmm0, %%xmm0\n2:", "mulpd %%xmm1, %%xmm0")
                     : "+d"(n), "+c"(x) : : "rax", "rbx", "xmm0", "xmm1", "cc");
    report("packed", n << 32 | (uint32_t)x);
}

static void x87_loop(void) {
    uint16_t control = 0x37b;
    uint64_t n = 0, x = 0;
    __asm__ volatile("fldcw %0" : : "m"(control));
    __asm__ volatile(LOOP("waits", "cmp $4000, %%ebx\n\tjne 2f\n\tfld1\n\tfldz\n\tfdivrp\n2:", "fwait") : "+d"(n), "+c"(x) : : "rax", "rbx", "cc");
    seen.xmm0 = 0;
    report("x87", n << 32 | (uint32_t)x);
    __asm__ volatile("fninit");
}

// As calls of foreign functions do.
__attribute__((noinline)) static double toggles(int rounds) {
    double sum = 0;
    for (int n = 0; n < rounds; n++) {
        set_mxcsr(MASKED);
        volatile double zero = 0;
        sum += 1 / zero > 0 ? step(n, n) % 8 : 0;
        set_mxcsr(UNMASKED);
        sum = sum * 0.5 + n;
    }
    return sum;
}

static double masked_sum;
static int masked_signals;

static void *masked_thread(void *rounds) {
    volatile double zero = 0;
    double sum = 0;
    set_mxcsr(MASKED);
    for (int n = 0; n < *(int *)rounds; n++)
        sum += 1 / zero > n ? step(n, n) % 8 : 0;
    masked_sum = sum;
    masked_signals = seen.count;
    return NULL;
}

int main(int argc, char **argv) {
    struct sigaction action = {.sa_sigaction = on_fpe, .sa_flags = SA_SIGINFO};
    int rounds = 20000;
    pthread_t thread;
    set_mxcsr(UNMASKED);
    if (argc > 1 && !strcmp(argv[1], "integers")) {
        printf("%g\n", mixed(500000, 1000));
        return 0;
    }
    printf("no handler: %g\n", mixed(100000, 7));
    sigaction(SIGFPE, &action, NULL);
    for (int n = 0; n < 2; n++) {
        printf("handler: %g\n", mixed(100000, 7));
        loops();
        x87_loop();
    }
    printf("toggled: %g, mxcsr %#x\n", toggles(5000), mxcsr() & MASKED);
    pthread_create(&thread, NULL, masked_thread, &rounds);
    loops();
    pthread_join(thread, NULL);
    printf("masked beside: %g, %d signals\n", masked_sum, masked_signals);
    set_mxcsr(MASKED | FTZ);
    printf("flushing results: %g\n", mixed(100000, 7));
    set_mxcsr(MASKED);
    printf("masked again: %g, flags %#x\n", mixed(100000, 7), mxcsr() & 0x1d);
    masked_thread(&rounds);
    printf("masked alone: %g, %d signals\n", masked_sum, masked_signals);
    return 0;
}
