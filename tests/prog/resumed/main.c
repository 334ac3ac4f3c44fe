// The first fault that a handler sees, at an access between an instruction that sets flags and one that reads them: the handler makes the page
// accessible and returns, and the flags must be what they were, however they are read. Each case has a process of its own, in which
// nothing has faulted before, and runs a few hundred times first, with the page accessible.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned char *page;
static volatile int faults;

static void handler(int signo, siginfo_t *info, void *context) {
    (void)signo, (void)info, (void)context;
    faults++;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
}

struct result {
    uint64_t a, b, c;
};

// `set` sets flags from rax and rbx, the load from rdi or the store to it may fault, `read` makes something of the flags in rax.
#define CASE(name, set, access, read) \
    static struct result name(unsigned char *p, uint64_t a, uint64_t b) { \
        uint64_t c = 3; \
        __asm__ volatile(set "\n" access "\n" read : "+a"(a), "+b"(b), "+c"(c) : "D"(p) : "rdx", "r8", "r9", "cc", "memory"); \
        return (struct result){a, b, c}; \
    }

#define LOAD "movzbl (%%rdi), %%edx"
#define STORE "mov %%r8b, 1(%%rdi)"
#define ALL "pushfq\n pop %%rax\n and $0x8d5, %%eax"
#define SETS "setb %%al\n sete %%ah\n movzwl %%ax, %%eax\n setl %%bl\n setbe %%bh\n movzwl %%bx, %%ebx\n sets %%cl\n seto %%ch\n movzwl %%cx, %%ecx"
#define CARRY "mov $0, %%eax\n adc $7, %%rax"
// A branch, and flags overwritten on one side of it.
#define BRANCH "jg 1f\n test %%rbx, %%rbx\n mov $1, %%eax\n jmp 2f\n 1: mov $2, %%eax\n sbb %%rcx, %%rcx\n 2: lea 5(%%rax), %%rax"
// Code that nobody knows reads them, behind a computed jump.
#define UNKNOWN "lea 1f(%%rip), %%rdx\n jmp *%%rdx\n 1: pushfq\n pop %%rax\n and $0x8d5, %%eax"
// None are wanted.
#define NONE "xor %%eax, %%eax\n add $9, %%rax"

#define WITH(kind, set) \
    CASE(kind##_load_all, set, LOAD, ALL) \
    CASE(kind##_store_all, set, STORE, ALL) \
    CASE(kind##_load_sets, set, LOAD, SETS) \
    CASE(kind##_store_carry, set, STORE, CARRY) \
    CASE(kind##_load_branch, set, LOAD, BRANCH) \
    CASE(kind##_both_unknown, set, LOAD "\n" STORE, UNKNOWN) \
    CASE(kind##_push_none, set, STORE "\n push %%rdx\n pop %%rdx", NONE)

// None of them leaves a flag undefined.
WITH(sub, "sub %%rbx, %%rax")
WITH(cmp, "cmp %%ebx, %%eax")
WITH(add, "add %%bl, %%al")
WITH(inc, "bt $3, %%rax\n inc %%ebx")
WITH(dec, "bt $2, %%rbx\n dec %%rax")
WITH(adc, "bt $1, %%rbx\n adc %%rbx, %%rax")
WITH(sbb, "bt $0, %%rax\n sbb %%ebx, %%eax")
WITH(neg, "neg %%ax")
WITH(compared_bytes, "cmp %%bl, %%al\n mov %%al, %%r8b")
WITH(partly, "add %%rbx, %%rax\n stc\n cmc")
WITH(maybe, "mov $1, %%ecx\n cmp %%rbx, %%rax\n rol %%cl, %%rdx")

typedef struct result (*Case)(unsigned char *, uint64_t, uint64_t);
#define ROW(kind) \
    {#kind, \
     {kind##_load_all, kind##_store_all, kind##_load_sets, kind##_store_carry, kind##_load_branch, kind##_both_unknown, kind##_push_none}}

static const struct {
    const char *name;
    Case cases[7];
} rows[] = {
    ROW(sub), ROW(cmp), ROW(add), ROW(inc), ROW(dec), ROW(adc), ROW(sbb), ROW(neg), ROW(compared_bytes), ROW(partly), ROW(maybe),
};

static const uint64_t operands[][2] = {{5, 3}, {3, 5}, {0, 0}, {0x80000000, 1}, {0x7fffffffffffffff, UINT64_MAX}, {0xff, 0x01}};

// Whether the case gives the same with a fault as without.
static int run(Case f) {
    page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    enum { N = sizeof operands / sizeof *operands };
    struct result expected[N];
    for (int round = 0; round < 300; round++)
        for (int i = 0; i < N; i++) expected[i] = f(page, operands[i][0], operands[i][1]);
    for (int i = 0; i < N; i++) {
        mprotect(page, 4096, PROT_NONE);
        struct result got = f(page, operands[i][0], operands[i][1]);
        if (got.a != expected[i].a || got.b != expected[i].b || got.c != expected[i].c) return 10 + i;
    }
    return faults == N ? 0 : 1;
}

int main(void) {
    for (unsigned r = 0; r < sizeof rows / sizeof *rows; r++) {
        printf("%s:", rows[r].name);
        for (int c = 0; c < 7; c++) {
            fflush(stdout);
            pid_t child = fork();
            if (child == 0) _exit(run(rows[r].cases[c]));
            int status;
            waitpid(child, &status, 0);
            if (WIFEXITED(status) && WEXITSTATUS(status) == 0) printf(" right");
            else printf(" %#x", status);
        }
        printf("\n");
    }
    return 0;
}
