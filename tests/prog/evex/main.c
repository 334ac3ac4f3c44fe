// links: static
// Random EVEX-encoded instructions, one at a time, from random registers; a hash of what they leave: registers, memory, signals. Two executions on
// the same processor have the same. `evex COUNT SEED` runs so many; without arguments, none.
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

// Where the code, and its data, are in any execution. No sum of a few such addresses is where a translator has its own.
#define CODE 0x10000000ul
#define DATA 0x10010000ul
#define DATA_SIZE 0x4000ul

typedef struct {
    uint64_t zmm[32][8], k[8], gpr[16], rsp, back, mxcsr, unused;
} __attribute__((aligned(64))) State;

static State *const state = (State *)(DATA + 0x8000);

#define EACH_ZMM(m)                                                                                                        \
    m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15) m(16) m(17) m(18) m(19) m(20)    \
        m(21) m(22) m(23) m(24) m(25) m(26) m(27) m(28) m(29) m(30) m(31)
#define EACH_K(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7)
#define EACH_GPR(m) m(0, rax) m(1, rcx) m(2, rdx) m(3, rbx) m(5, rbp) m(6, rsi) m(7, rdi) m(8, r8) m(9, r9) m(10, r10)     \
    m(11, r11) m(12, r12) m(13, r13) m(14, r14) m(15, r15)
#define AT "0x10018000"
#define LOAD_ZMM(n) "vmovdqu64 " AT "+64*" #n ", %zmm" #n "\n"
#define STORE_ZMM(n) "vmovdqu64 %zmm" #n ", " AT "+64*" #n "\n"
#define LOAD_K(n) "kmovq " AT "+2048+8*" #n ", %k" #n "\n"
#define STORE_K(n) "kmovq %k" #n ", " AT "+2048+8*" #n "\n"
#define LOAD_GPR(n, r) "mov " AT "+2112+8*" #n ", %" #r "\n"
#define STORE_GPR(n, r) "mov %" #r ", " AT "+2112+8*" #n "\n"

// Loads the state, runs what is at CODE, and stores it.
__asm__(".text\n.globl run_code\nrun_code:\npush %rbx\npush %rbp\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, " AT "+2240\n ldmxcsr " AT "+2256\n" EACH_ZMM(LOAD_ZMM) EACH_K(LOAD_K) EACH_GPR(LOAD_GPR)
        "jmp *1f(%rip)\n1: .quad 0x10000000\n.globl come_back\ncome_back:\n" EACH_GPR(STORE_GPR) EACH_ZMM(STORE_ZMM) EACH_K(STORE_K)
        "mov " AT "+2240, %rsp\nvzeroupper\nstmxcsr " AT "+2256\nmovl $0x1f80, -8(%rsp)\nldmxcsr -8(%rsp)\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbp\npop %rbx\nret\n");
void run_code(void);
void come_back(void);

static uint64_t x, hash = 0xcbf29ce484222325;

static uint64_t next(void) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return x * 0x2545f4914f6cdd1d;
}

static void add(const void *bytes, size_t len) {
    for (size_t i = 0; i < len; i += 8) {
        uint64_t word;
        memcpy(&word, (char *)bytes + i, 8);
        hash = (hash ^ word) * 0x100000001b3;
        hash ^= hash >> 29;
    }
}

// What is in memory.
static char last[DATA_SIZE];
static uint64_t signals, illegal;

static void handler(int s, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    uint64_t what[3] = {s, (uint64_t)info->si_addr, r[REG_RIP]};
    add(what, sizeof what);
    signals++, illegal += s == SIGILL;
    r[REG_RIP] = (greg_t)come_back;
}

// Map, prefix, W and opcode of the last one, and of those that there are.
static unsigned char tried[4], good[4096][4];
static unsigned known;

// An instruction, perhaps, with its length. Each vector that is an index is small.
static int instruction(unsigned char *p) {
    static const unsigned char maps[] = {1, 1, 1, 2, 2, 2, 2, 3, 3, 5, 6};
    unsigned char *start = p;
    uint64_t r = next();
    if (r % 16 == 0) *p++ = 0x67;
    int map = maps[(r >> 8) % sizeof maps], prefix = r >> 16 & 3, mask = r >> 18 & 1 ? r >> 20 & 7 : 0;
    // Without VVVV, which many instructions do not have; broadcast or rounding; zeroing.
    int sources = r >> 23 & 1 ? 0 : 31, b = (r >> 24 & 3) == 0, z = mask && r >> 26 & 1;
    sources ^= r >> 23 & 1 ? r >> 27 & 31 : 0;
    int opcode = r >> 32 & 0xff, w = next() & 0x80;
    if (known && r >> 30 & 3) {
        const unsigned char *one = good[next() % known];
        map = one[0], prefix = one[1], w = one[2], opcode = one[3];
    }
    tried[0] = map, tried[1] = prefix, tried[2] = w, tried[3] = opcode;
    int modrm = r >> 40 & 0xff, sib = r >> 48 & 0xff;
    *p++ = 0x62;
    unsigned char high = next();
    *p++ = (high & 0xf0) | map;
    *p++ = w | (sources & 15) << 3 | 4 | prefix;
    *p++ = z << 7 | (int)((next() >> 8) % 3) << 5 | b << 4 | (sources >> 4 & 1) << 3 | mask;
    *p++ = opcode;
    // No operand is RSP, nor is a base.
    if ((modrm >> 3 & 7) == 4) modrm |= 8;
    if (modrm >> 6 == 3 && (modrm & 7) == 4) modrm |= 1;
    *p++ = modrm;
    int mode = modrm >> 6, rm = modrm & 7;
    int by_rip = mode == 0 && rm == 5, by_sib = mode != 3 && rm == 4;
    if (by_sib) *p++ = sib = (sib & 7) == 4 ? sib | 3 : sib;
    int baseless = mode == 0 && by_sib && (sib & 7) == 5;
    if (mode == 2 || by_rip || baseless) {
        int32_t displacement = (int32_t)(next() % 0x800) - 0x400;
        if (by_rip) displacement += DATA + DATA_SIZE / 2 - CODE;
        if (baseless) displacement += DATA + DATA_SIZE / 2;
        memcpy(p, &displacement, 4), p += 4;
    }
    if (mode == 1) *p++ = next();
    if (map == 3 || (map == 1 && ((opcode >= 0x70 && opcode <= 0x73) || opcode == 0xc2 || (opcode >= 0xc4 && opcode <= 0xc6))))
        *p++ = next();
    if (by_sib && map == 2 && ((opcode & 0xec) == 0x80 || (opcode & 0xfc) == 0x90 || (opcode & 0xfc) == 0xa0)) {
        int index = (sib >> 3 & 7) | (high & 0x40 ? 0 : 8) | (sources & 16 ? 0 : 16);
        for (int i = 0; i < 8; i++) state->zmm[index][i] &= 0x0000003f0000003f;
    }
    return (int)(p - start);
}

static void one(void) {
    unsigned char *code = (unsigned char *)CODE;
    uint64_t *words = (uint64_t *)state;
    for (size_t i = 0; i < offsetof(State, gpr) / 8; i++) words[i] = next();
    for (int i = 0; i < 16; i++) state->gpr[i] = DATA + DATA_SIZE / 2 + (next() % 0x100) * 8;
    for (int i = 0; i < 4; i++) state->gpr[next() % 16] = next() % 64;
    state->mxcsr = 0x1f80;
    int len = instruction(code);
    static const unsigned char jump[6] = {0xff, 0x25};
    void (*back)(void) = come_back;
    memcpy(code + len, jump, 6);
    memcpy(code + len + 6, &back, 8);
    uint64_t before = illegal;
    run_code();
    if (illegal == before && known < 4096) memcpy(good[known++], tried, 4);
    state->rsp = 0;
    add(state, offsetof(State, back));
    add(&state->mxcsr, 8);
    if (memcmp((void *)DATA, last, DATA_SIZE)) {
        memcpy(last, (void *)DATA, DATA_SIZE);
        add(last, DATA_SIZE);
    }
}

int main(int argc, char **argv) {
    int count = argc == 3 ? atoi(argv[1]) : 0;
    x = argc == 3 ? strtoul(argv[2], NULL, 0) * 0x9e3779b97f4a7c15 : 1;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
    mmap((void *)CODE, 0x1000, PROT_READ | PROT_WRITE | PROT_EXEC, flags, -1, 0);
    if (mmap((void *)DATA, 0x10000, PROT_READ | PROT_WRITE, flags, -1, 0) != (void *)DATA) return 1;
    mprotect((void *)(DATA + DATA_SIZE), 0x1000, PROT_NONE);
    static char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&alternate, NULL);
    struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
    for (int s = SIGILL; s <= SIGSEGV; s++)
        if (s == SIGILL || s == SIGTRAP || s == SIGBUS || s == SIGFPE || s == SIGSEGV) sigaction(s, &a, NULL);
    for (size_t i = 0; i < DATA_SIZE / 8; i++) ((uint64_t *)DATA)[i] = next();
    for (int i = 0; i < count; i++) {
        one();
        if (i % 1000 == 999) printf("%d %lx %lu %lu\n", i, hash, signals, illegal);
    }
    printf("done\n");
    return 0;
}
