// PUSHes and POPs in a row, of which each in turn is the first that leaves the accessible page: the handler must find the registers as in front of
// that one, with those before it executed, and what follows must go on once the page can be accessed. Hot code, before and after the
// first fault of the process.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { PAGE = 4096, ROUNDS = 6000 };

static unsigned char *pages; // Three: the middle one stays accessible.
extern char push_row[], pop_row[];

static struct seen {
    long rip, rsp, addr;
    uint64_t rbx, r12, rcx, below;
} seen;
static volatile int faults;
static char *row;

static void handler(int signo, siginfo_t *info, void *context) {
    (void)signo;
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned char *at = info->si_addr;
    seen = (struct seen){
        regs[REG_RIP] - (long)row, regs[REG_RSP] - (long)(pages + PAGE), at - (pages + PAGE),
        regs[REG_RBX], regs[REG_R12], regs[REG_RCX], 0,
    };
    memcpy(&seen.below, (void *)(pages + PAGE), 8);
    faults++;
    mprotect(at < pages + PAGE ? pages : pages + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE);
}

// Four PUSHes from `rsp` on, with what changes the registers pushed in between; yields RSP behind them.
__attribute__((noinline)) static uint64_t pushes(uint64_t rsp) {
    static const uint64_t values[] = {0x1111, 0x2222, 0x3333};
    __asm__ volatile("mov %%rsp, %%r13\n"
                     "mov (%1), %%rbx\n mov 8(%1), %%r12\n mov 16(%1), %%rcx\n"
                     "mov %0, %%rsp\n"
                     ".globl push_row\n push_row:\n"
                     "push %%rbx\n lea 1(%%rbx), %%rbx\n push %%r12\n lea 1(%%rbx), %%r12\n"
                     "push %%rcx\n add %%rbx, %%rcx\n push %%rbx\n"
                     "mov %%rsp, %0\n mov %%r13, %%rsp\n"
                     : "+r"(rsp)
                     : "r"(values)
                     : "rbx", "rcx", "r12", "r13", "cc", "memory");
    return rsp;
}

// Four POPs.
__attribute__((noinline)) static uint64_t pops(uint64_t rsp, uint64_t out[4]) {
    uint64_t a, b, c;
    __asm__ volatile("mov %%rsp, %%r13\n"
                     "mov $0x5555, %%ebx\n mov $0x6666, %%r12d\n mov $0x7777, %%ecx\n"
                     "mov %0, %%rsp\n"
                     ".globl pop_row\n pop_row:\n"
                     "pop %%rbx\n mov %%rbx, %%rdx\n pop %%r12\n lea 1(%%r12), %%rax\n"
                     "pop %%rcx\n pop %%rbx\n"
                     "mov %%rsp, %0\n mov %%r13, %%rsp\n"
                     : "+r"(rsp), "=&d"(a), "=&a"(b), "=&c"(c)
                     :
                     : "rbx", "r12", "r13", "cc", "memory");
    out[0] = a, out[1] = b, out[2] = c;
    return rsp;
}

static void fill(void) {
    for (int i = 0; i < 3 * PAGE / 8; i++) {
        uint64_t word = 0x1000 + i;
        memcpy(pages + 8 * i, &word, 8);
    }
}

static void report(const char *what, int n, long moved) {
    printf("%s %d: %d fault, at +%ld, rsp %ld, address %ld, rbx %lx, r12 %lx, rcx %lx, below %lx; moved %ld\n", what, n, faults, seen.rip,
           seen.rsp, seen.addr, (long)seen.rbx, (long)seen.r12, (long)seen.rcx, (long)seen.below, moved);
}

int main(void) {
    static char stack[65536];
    sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, NULL);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    pages = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t low = (uint64_t)pages + PAGE, high = low + PAGE, out[4];
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < ROUNDS; i++) pushes(low + 64), pops(low, out);
        for (int n = 0; n < 4; n++) {
            row = push_row, faults = 0;
            fill();
            mprotect(pages, PAGE, PROT_NONE);
            uint64_t rsp = pushes(low + 8 * n);
            report("push", n, (long)(rsp - low) - 8 * n);
            uint64_t words[4];
            memcpy(words, (void *)rsp, sizeof words);
            printf("  pushed %lx %lx %lx %lx\n", words[0], words[1], words[2], words[3]);
        }
        for (int n = 0; n < 4; n++) {
            row = pop_row, faults = 0;
            fill();
            mprotect(pages + 2 * PAGE, PAGE, PROT_NONE);
            uint64_t rsp = pops(high - 8 * n, out);
            report("pop", n, (long)(rsp - high) + 8 * n);
            printf("  popped %lx %lx %lx\n", out[0], out[1], out[2]);
        }
    }
    return 0;
}
