// Functions that are written anew before each call, in every part: constants, opcodes, destinations, lengths, displacements; by the thread that
// calls them, by another, and by themselves; across pages; and some that stay for thousands of calls in between. With the name of a part it does
// a lot of that one, for counts of faults and translations.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { PAGE = 4096 };
static const int RWX = PROT_READ | PROT_WRITE | PROT_EXEC;
static uint64_t random_state = 0x9e3779b97f4a7c15;

static uint64_t next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    return random_state ^= random_state << 17;
}

static unsigned char *pages(int count) {
    unsigned char *p = mmap(NULL, count * PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) exit(1);
    return p;
}

static uint64_t call(const unsigned char *p) { return ((uint64_t(*)(void))p)(); }

// Writes a function that differs from the last one in the constants of its MOVs, and half of the time in one thing more; what it returns.
static uint64_t write_function(unsigned char *p) {
    static int is_wide, adds, in_ecx, operation, displacement, skipped;
    static int32_t sum;
    unsigned char code[40];
    uint64_t wide = next();
    uint32_t low = wide, other = next();
    switch (next() >> 20 & 15) {
    case 0: is_wide ^= 1; break;
    case 1: case 2: adds ^= 1; break;
    case 3: in_ecx ^= 1; break;
    case 4: operation = next() >> 20 & 3; break;
    case 5: displacement = next() >> 20 & 0x7f; break;
    case 6: skipped = next() >> 20 & 3; break;
    case 7: sum = next(); break;
    }
    // 48 b8: mov rax, constant of 64 bits; 90 b8: nop and mov eax, constant of 32 bits, the rest of which are nops.
    code[0] = is_wide ? 0x48 : 0x90;
    code[1] = 0xb8;
    memcpy(code + 2, &wide, 8);
    if (!is_wide) memset(code + 6, 0x90, 4);
    // add, sub, xor or cmp rax, constant of 32 bits
    code[10] = 0x48;
    code[11] = (unsigned char[]){0x05, 0x2d, 0x35, 0x3d}[operation];
    memcpy(code + 12, &sum, 4);
    // mov ecx or edx, constant; add or sub eax, ecx or edx
    code[16] = in_ecx ? 0xb9 : 0xba;
    memcpy(code + 17, &other, 4);
    code[21] = adds ? 0x01 : 0x29;
    code[22] = in_ecx ? 0xc8 : 0xd0;
    // lea rax, [rax + displacement]; jmp over so many int3; ret
    code[23] = 0x48, code[24] = 0x8d, code[25] = 0x40, code[26] = displacement;
    code[27] = 0xeb, code[28] = skipped;
    memset(code + 29, 0xcc, 4);
    code[29 + skipped] = 0xc3;
    memcpy(p, code, 33);
    uint64_t rax = is_wide ? wide : low;
    uint64_t extended = (int64_t)sum;
    rax = operation == 0 ? rax + extended : operation == 1 ? rax - extended : operation == 2 ? rax ^ extended : rax;
    rax = (uint32_t)(adds ? rax + other : rax - other);
    return rax + displacement;
}

// Writes one constant of the function; what it returns.
static uint64_t write_constant(unsigned char *p, uint32_t value) {
    memcpy(p + 1, &value, 4);
    return value;
}

static unsigned char *constant_function(unsigned char *p) {
    memcpy(p, "\xb8\0\0\0\0\xc3", 6); // mov eax, constant; ret
    return p;
}

static long functions(unsigned char *p, int rounds) {
    long wrong = 0;
    for (int i = 0; i < rounds; i++) {
        uint64_t expected = write_function(p);
        wrong += call(p) != expected;
    }
    return wrong;
}

static long constants(unsigned char *p, int rounds) {
    long wrong = 0;
    constant_function(p);
    for (int i = 0; i < rounds; i++) {
        uint64_t expected = write_constant(p, i * 0x9e3779b9);
        wrong += call(p) != expected;
    }
    return wrong;
}

// Written a few times, then called for long, for ever longer; what was written first must be seen, and seen at once.
static long phases(unsigned char *p, int calls) {
    long wrong = 0;
    for (int phase = 0; phase < 6; phase++) {
        uint64_t expected = 0;
        for (int i = 0; i < 6; i++) {
            expected = i % 3 == 2 ? write_constant(constant_function(p), next()) : write_function(p);
            wrong += call(p) != expected;
        }
        for (int i = 0; i < calls; i++) wrong += call(p) != expected;
    }
    return wrong;
}

// Data that changes beside code that does not.
static long beside(unsigned char *p, int rounds) {
    long wrong = 0;
    uint64_t expected = write_function(p);
    for (int i = 0; i < rounds; i++) {
        p[1024 + i % 64] = i;
        wrong += call(p) != expected;
    }
    return wrong;
}

// ---- Another thread writes ----

static unsigned char *theirs;
static uint64_t expected_there;
static int asked, written;

static void *write_when_asked(void *rounds) {
    for (int i = 1; i <= (int)(intptr_t)rounds; i++) {
        while (__atomic_load_n(&asked, __ATOMIC_ACQUIRE) != i) sched_yield();
        expected_there = write_function(theirs);
        __atomic_store_n(&written, i, __ATOMIC_RELEASE);
    }
    return NULL;
}

static long by_another(unsigned char *p, int rounds) {
    pthread_t thread;
    long wrong = 0;
    theirs = p;
    if (pthread_create(&thread, NULL, write_when_asked, (void *)(intptr_t)rounds)) exit(1);
    for (int i = 1; i <= rounds; i++) {
        __atomic_store_n(&asked, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&written, __ATOMIC_ACQUIRE) != i) sched_yield();
        wrong += call(p) != expected_there;
    }
    pthread_join(thread, NULL);
    return wrong;
}

// ---- By itself ----

// Each instruction writes the next one's constant, destination or opcode.
static long by_itself(unsigned char *p, int rounds) {
    static const unsigned char code[] = {
        0x89, 0x35, 1, 0, 0, 0,                     // mov [rip + 1], esi
        0xb8, 0, 0, 0, 0,                           // mov eax, constant        <- esi
        0x40, 0x88, 0x3d, 0, 0, 0, 0,               // mov [rip], dil
        0xf8,                                       // clc or stc               <- dil
        0x15, 0, 0, 0, 0,                           // adc eax, 0
        0x88, 0x15, 1, 0, 0, 0,                     // mov [rip + 1], dl
        0x41, 0xb8, 7, 0, 0, 0,                     // mov r8d or r9d, 7        <- dl
        0x44, 0x01, 0xc0,                           // add eax, r8d
        0x44, 0x01, 0xc8,                           // add eax, r9d
        0xc3,
    };
    memcpy(p, code, sizeof code);
    long wrong = 0;
    for (int i = 0; i < rounds; i++) {
        uint32_t constant = next();
        int carry = next() & 1, r9 = next() & 1;
        register uint64_t r8_in __asm__("r8") = 100, r9_in __asm__("r9") = 1000;
        uint64_t rax;
        __asm__ volatile("sub $136, %%rsp\n call *%[code]\n add $136, %%rsp"
                         : "=a"(rax), "+r"(r8_in), "+r"(r9_in)
                         : [code] "r"(p), "S"((uint64_t)constant), "D"((uint64_t)(0xf8 + carry)), "d"((uint64_t)(0xb8 + r9))
                         : "memory", "cc", "rcx", "r10", "r11");
        wrong += (uint32_t)rax != constant + carry + (r9 ? 107 : 1007);
    }
    return wrong;
}

// ---- Over the end of a page ----

static sigjmp_buf after;
static void *volatile fault_address, *volatile faulted_at;

static void on_fault(int s, siginfo_t *info, void *context) {
    fault_address = info->si_addr;
    faulted_at = (void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(after, s);
}

static long over_an_edge(unsigned char *p, int rounds) {
    long wrong = 0;
    unsigned char *code = p + PAGE - 5; // mov rax, constant of 64 bits, five bytes of which are in the next page
    memcpy(code, "\x48\xb8\0\0\0\0\0\0\0\0\xc3", 11);
    for (int i = 0; i < rounds; i++) {
        uint64_t expected = next();
        memcpy(code + 2, &expected, 8);
        wrong += call(code) != expected;
        if (i % 50 != 49) continue;
        // Without the second page.
        mprotect(p + PAGE, PAGE, PROT_READ | PROT_WRITE);
        faulted_at = fault_address = NULL;
        if (sigsetjmp(after, 1) == 0) call(code);
        wrong += faulted_at != code || fault_address != p + PAGE;
        mprotect(p + PAGE, PAGE, RWX);
    }
    return wrong;
}

static const struct part { const char *name; long (*run)(unsigned char *, int); int rounds, many; } parts[] = {
    {"constants", constants, 3000, 100000},
    {"functions", functions, 500, 5000},
    {"phases", phases, 12000, 100000},
    {"beside", beside, 5000, 100000},
    {"by_another", by_another, 300, 3000},
    {"by_itself", by_itself, 500, 5000},
    {"over_an_edge", over_an_edge, 300, 3000},
};

int main(int argc, char **argv) {
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &fault, NULL);
    for (const struct part *part = parts; part < parts + sizeof parts / sizeof *parts; part++) {
        if (argc == 2 && strcmp(argv[1], part->name)) continue;
        long wrong = part->run(pages(2), argc == 2 ? part->many : part->rounds);
        printf("%s: %ld wrong\n", part->name, wrong);
    }
    return 0;
}
