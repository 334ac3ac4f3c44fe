// Divisions that fault again and again, by zero and by overflow, between others that do not: all widths and kinds of divisor; what the handler
// sees of registers, and that it can repair them.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

static volatile long faults, wrong;
static volatile uint64_t expected_pc, expected_rcx, repair_to;
static volatile int repaired;

// Repairs the register that the division names, or the memory, and lets it run again.
static uint64_t memory;
static int in_memory;
static void on_fpe(int s, siginfo_t *info, void *p) {
    greg_t *r = ((ucontext_t *)p)->uc_mcontext.gregs;
    faults++;
    wrong += s != SIGFPE || info->si_code != FPE_INTDIV || (uint64_t)info->si_addr != expected_pc;
    wrong += (uint64_t)r[REG_RIP] != expected_pc || (uint64_t)r[REG_RCX] != expected_rcx || r[REG_TRAPNO] != 0;
    if (in_memory) memory = repair_to; else r[repaired] = repair_to;
}

// rax / divisor, whatever the divisor's width and place.
#define DIVIDE(NAME, INSN, REG, IN_MEMORY, BEFORE)                                                                            \
    static uint64_t NAME(uint64_t dividend, uint64_t divisor, uint64_t repair) {                                              \
        uint64_t a = dividend, d = 0, c = divisor, pc;                                                                        \
        memory = divisor, in_memory = IN_MEMORY, repaired = REG, repair_to = repair, expected_rcx = divisor;                  \
        __asm__ volatile("lea 1f(%%rip), %[pc]\n mov %[pc], %[expected]\n mov %%rcx, %%r11\n mov %%rcx, %%rbx\n" BEFORE       \
                         "1: " INSN "\n"                                                                                      \
                         : "+a"(a), "+d"(d), "+c"(c), [pc] "=&r"(pc), [expected] "=m"(expected_pc)                            \
                         : [memory] "r"(&memory)                                                                              \
                         : "rbx", "r11", "cc", "memory");                                                                     \
        return a * 31 + d;                                                                                                    \
    }

DIVIDE(div64, "div %%rcx", REG_RCX, 0, "")
DIVIDE(idiv64, "idiv %%rbx", REG_RBX, 0, "")
DIVIDE(div32, "div %%r11d", REG_R11, 0, "")
DIVIDE(idiv32m, "idivl (%[memory])", 0, 1, "")
DIVIDE(div16, "divw %%cx", REG_RCX, 0, "")
DIVIDE(idiv16m, "idivw (%[memory])", 0, 1, "")
DIVIDE(div8, "divb %%cl", REG_RCX, 0, "")
DIVIDE(div8h, "divb %%bh", REG_RBX, 0, "shl $8, %%rbx\n")
DIVIDE(idiv8, "idivb %%r11b", REG_R11, 0, "")
DIVIDE(div64rip, "divq memory(%%rip)", 0, 1, "")

static uint64_t (*const all[])(uint64_t, uint64_t, uint64_t) = {
    div64, idiv64, div32, idiv32m, div16, idiv16m, div8, div8h, idiv8, div64rip,
};

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fpe, .sa_flags = SA_SIGINFO};
    sigaction(SIGFPE, &action, NULL);
    for (unsigned k = 0; k < sizeof all / sizeof *all; k++) {
        uint64_t sum = 0;
        faults = 0;
        for (int i = 0; i < 300; i++) {
            uint64_t divisor = i % 3 ? i % 64 + 1 : 0;
            sum = sum * 31 + all[k](i & 127, divisor, k == 7 ? 7 << 8 : 7);
        }
        printf("%u: %016lx, %ld faults\n", k, sum, faults);
    }
    // The quotient does not fit: 128 bits by 64, and the lowest number by -1.
    faults = 0;
    uint64_t sum = 0;
    for (int i = 0; i < 100; i++) {
        sum += idiv32m(i, i & 1 ? -1 : 0, 5);
        sum += div8(0x7fff, i & 1, 0xff);
    }
    printf("overflow: %016lx, %ld faults\n", sum, faults);
    printf("wrong %ld\n", wrong);
}
