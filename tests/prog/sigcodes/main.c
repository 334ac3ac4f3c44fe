// Every synchronous fault as its handler sees it: signal, si_code, si_addr, trap number, error code, CR2 of a page fault, and where RIP stands.
// links: dynamic static
// needs: a real kernel (emulators do not report the write bit of all faults)
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

static sigjmp_buf env;
static uint64_t at, pc, data;       // where the instruction stands, where RIP stood, what it accesses

static const char *place(uint64_t address) {
    static char text[2][32];
    static int turn;
    if (address == at) return "pc";
    if (address == pc && address != data) return "rip";
    if (address == data && data) return "data";
    char *out = text[turn ^= 1];
    if (address - data < 8192 && data) sprintf(out, "data+%d", (int)(address - data));
    else sprintf(out, "%#lx", (unsigned long)address);
    return out;
}

static const char *name;
static void handler(int s, siginfo_t *i, void *c) {
    greg_t *r = ((ucontext_t *)c)->uc_mcontext.gregs;
    pc = r[REG_RIP];
    printf("%s: signal %d code %d addr %s trap %d error %lx", name, s, i->si_code, place((uint64_t)i->si_addr), (int)r[REG_TRAPNO], (unsigned long)r[REG_ERR]);
    if (r[REG_TRAPNO] == 14) printf(" cr2 %s", place(r[REG_CR2]));
    if (pc == data) puts(" rip data");
    else printf(" rip +%ld\n", (long)(pc - at));
    siglongjmp(env, 1);
}

// Runs code whose instruction at label 1 faults, with registers as given, and forgets what it has left in the floating-point units.
#define FAULT_AT_1(what, code, ...) do { \
    name = what; \
    if (sigsetjmp(env, 1) == 0) { \
        __asm__ volatile("lea 1f(%%rip), %%r11; mov %%r11, %0; " code : "=m"(at) : __VA_ARGS__ : "r11", "memory", "cc"); \
        printf("%s: nothing\n", what); \
    } \
    __asm__ volatile("fninit; ldmxcsr %0" :: "m"(usual)); \
} while (0)
#define FAULT(what, code, ...) FAULT_AT_1(what, "1: " code, __VA_ARGS__)
static const uint32_t usual = 0x1f80;

static void divisions(void) {
    uint64_t zero = 0;
    FAULT("div 8", "divb %b1", "r"(zero), "a"(1));
    FAULT("div 16", "divw %w1", "r"(zero), "a"(1), "d"(0));
    FAULT("div 32", "divl %k1", "r"(zero), "a"(1), "d"(0));
    FAULT("div 64", "divq %1", "r"(zero), "a"(1), "d"(0));
    FAULT("div too large", "divl %k1", "r"(1), "a"(1), "d"(7));
    FAULT("idiv of the least", "idivl %k1", "r"(-1), "a"(0x80000000), "d"(-1));
    FAULT("div memory", "divl %1", "m"(zero), "a"(1), "d"(0));
}

static void traps(void) {
    FAULT("int3", "int3", "r"(0));
    FAULT("int 3", ".byte 0xcd, 3", "r"(0));
    FAULT("int 4", "int $4", "r"(0));
    FAULT("ud2", "ud2", "r"(0));
    FAULT("ud1", "ud1 %%eax, %%eax", "r"(0));
    FAULT("lock nop", ".byte 0xf0, 0x90", "r"(0));
    FAULT("push es", ".byte 0x06", "r"(0));
    FAULT("lock on registers", ".byte 0xf0, 0x01, 0xc0", "r"(0));
}

static void protection(void) {
    FAULT("hlt", "hlt", "r"(0));
    FAULT("cli", "cli", "r"(0));
    FAULT("in", "in $0x80, %%al", "r"(0));
    FAULT("rdmsr", "rdmsr", "c"(0));
    FAULT("mov cr0", "mov %%cr0, %%rax", "a"(0));
    FAULT("int 0x81", "int $0x81", "r"(0));
    FAULT("selector", "mov %w1, %%es", "r"(0x1234));
    FAULT("not canonical, read", "mov (%1), %%rax", "r"(0x8000000000000000), "a"(0));
    FAULT("not canonical, write", "mov %%rax, (%1)", "r"(0x0001000000000000), "a"(0));
    FAULT_AT_1("not canonical, of the stack", "mov %1, %%rsp; 1: push %%rax", "r"(0x8000000000000000));
    FAULT_AT_1("not canonical, by rbp", "xchg %1, %%rbp; 1: mov (%%rbp), %%rax", "r"(0x8000000000000000), "a"(0));
    FAULT("movaps", "movaps 8(%1), %%xmm0", "r"((uint64_t)&at & -16));
    FAULT("ldmxcsr", "ldmxcsr %1", "m"((uint32_t){0xffffffff}));
}

static void pages(void) {
    unsigned char *p = mmap(NULL, 4 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)*(volatile unsigned char *)p;
    munmap(p + 4096, 4096);
    mprotect(p + 8192, 4096, PROT_NONE);
    data = (uint64_t)p + 4096;
    FAULT("unmapped, read", "mov (%1), %%rax", "r"(data), "a"(0));
    FAULT("unmapped, write", "mov %%rax, (%1)", "r"(data), "a"(0));
    FAULT("unmapped, add", "addl $1, (%1)", "r"(data));
    FAULT("unmapped, lock add", "lock addl $1, (%1)", "r"(data));
    FAULT("unmapped, xchg", "xchg %%eax, (%1)", "r"(data), "a"(0));
    FAULT("unmapped, cmpxchg16b", "cmpxchg16b (%1)", "r"(data), "a"(0), "d"(0));
    FAULT_AT_1("unmapped, push", "mov %1, %%rsp; 1: push %%rax", "r"(data + 8));
    FAULT("unmapped, x87", "fldl (%1)", "r"(data));
    FAULT_AT_1("unmapped, fstp", "fldz; 1: fstpl (%1)", "r"(data));
    FAULT("unmapped, vector", "movups (%1), %%xmm0", "r"(data));
    FAULT("half of it", "mov -4(%1), %%rax", "r"(data), "a"(0));
    FAULT("half a vector", "movups -8(%1), %%xmm0", "r"(data));
    FAULT("jump", "jmp *%1", "r"(data));
    data = (uint64_t)p;
    FAULT("read only, write", "mov %%rax, (%1)", "r"(data), "a"(0));
    FAULT("read only, or", "orb $0, (%1)", "r"(data));
    FAULT("read only, vector", "movups %%xmm0, (%1)", "r"(data));
    FAULT("read only, jump", "jmp *%1", "r"(data));
    FAULT("read only, call", "call *%1", "r"(data));
    FAULT("strings", "rep stosb", "D"(data + 8), "a"(0), "c"(5));
    data = (uint64_t)p + 8192;
    FAULT("none, read", "mov (%1), %%rax", "r"(data), "a"(0));
    FAULT("none, jump", "jmp *%1", "r"(data));
    data = 8;
    FAULT("null", "mov 8, %%rax", "a"(0));
    data = 0xffff800000000000;
    FAULT("the kernel's", "mov (%1), %%rax", "r"(data), "a"(0));
    char file[] = "/tmp/sigcodes-XXXXXX";
    int fd = mkstemp(file);
    unlink(file);
    if (ftruncate(fd, 100)) return;
    data = (uint64_t)mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) + 4096;
    FAULT("past the file, read", "mov (%1), %%rax", "r"(data), "a"(0));
    FAULT("past the file, write", "mov %%rax, (%1)", "r"(data), "a"(0));
    data = 0;
}

// Exceptions by the bit of the status word that they set; one of them is not masked.
static void floats(void) {
    static const char *names[] = {"invalid", "denormal", "by zero", "overflow", "underflow", "inexact"};
    static const double zero = 0, one = 1, three = 3, most = 1.7976931348623157e308, least = 2.2250738585072014e-308, tiny = 4.9406564584124654e-324;
    const double *operands[][2] = {{&zero, &zero}, {&tiny, &one}, {&one, &zero}, {&most, &least}, {&least, &most}, {&one, &three}};
    for (int i = 0; i < 6; i++) {
        char text[64];
        uint32_t mxcsr = 0x1f80 & ~(0x80u << i);
        sprintf(text, "SSE %s", names[i]);
        __asm__ volatile("ldmxcsr %0" :: "m"(mxcsr));
        FAULT(text, "divsd %1, %%xmm0", "m"(*operands[i][1]), "Yz"(*operands[i][0]));
        uint16_t control = 0x037f & ~(1u << i);
        static const long double large = 1e4000L, small = 1e-4000L;
        sprintf(text, "x87 %s", names[i]);
        // The exception is raised by the next instruction that waits.
        if (i == 3) FAULT_AT_1(text, "fldcw %1; fldt %2; fmul %%st, %%st; 1: fwait", "m"(control), "m"(large));
        else if (i == 4) FAULT_AT_1(text, "fldcw %1; fldt %2; fmul %%st, %%st; 1: fwait", "m"(control), "m"(small));
        else if (i == 1) FAULT_AT_1(text, "fldcw %1; fldl %2; 1: fwait", "m"(control), "m"(tiny));
        else FAULT_AT_1(text, "fldcw %1; fldl %2; fdivl %3; 1: fwait", "m"(control), "m"(*operands[i][0]), "m"(*operands[i][1]));
    }
    uint16_t control = 0x037e;
    FAULT_AT_1("x87 stack", "fldcw %1; fninit; fldcw %1; fstp %%st; 1: fwait", "m"(control));
}

int main(void) {
    static char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP};
    for (int i = 0; i < 5; i++) sigaction(signals[i], &action, NULL);
    divisions();
    traps();
    protection();
    pages();
    floats();
    return 0;
}
