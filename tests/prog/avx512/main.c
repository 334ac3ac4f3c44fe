// The state of AVX-512: ZMM0 to ZMM31 and K0 to K7, kept over whatever may happen between two instructions. Where CPUID does not announce it, nothing
// is done, and standard error says so.
#define _GNU_SOURCE
#include <cpuid.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

typedef struct {
    uint64_t zmm[32][8];
    uint64_t k[8];
} __attribute__((aligned(64))) State;

#define EACH_ZMM(m)                                                                                                        \
    m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15) m(16) m(17) m(18) m(19) m(20)    \
        m(21) m(22) m(23) m(24) m(25) m(26) m(27) m(28) m(29) m(30) m(31)
#define EACH_K(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7)
#define LOAD_ZMM(n) "vmovdqu64 64*" #n "(%%rbx), %%zmm" #n "\n"
#define STORE_ZMM(n) "vmovdqu64 %%zmm" #n ", 64*" #n "(%%rbp)\n"
#define LOAD_K(n) "kmovq 2048+8*" #n "(%%rbx), %%k" #n "\n"
#define STORE_K(n) "kmovq %%k" #n ", 2048+8*" #n "(%%rbp)\n"

// Runs `code` with all registers as in RBX's state, and stores them to RBP's. R12 to R15 are `a` to `d`.
#define WITH(code, in, out, a, b, c, d)                                                                                    \
    do {                                                                                                                   \
        register uint64_t r12_ __asm__("r12") = (uint64_t)(a), r13_ __asm__("r13") = (uint64_t)(b);                        \
        register uint64_t r14_ __asm__("r14") = (uint64_t)(c), r15_ __asm__("r15") = (uint64_t)(d);                        \
        register uint64_t r8_ __asm__("r8") = (uint64_t)(out);                                                             \
        __asm__ volatile("lea -256(%%rsp), %%rsp\n mov %%rbp, 8(%%rsp)\n mov %%r8, %%rbp\n" EACH_ZMM(LOAD_ZMM)             \
                         EACH_K(LOAD_K) code "\n" EACH_ZMM(STORE_ZMM) EACH_K(STORE_K)                                      \
                         "mov 8(%%rsp), %%rbp\n lea 256(%%rsp), %%rsp\n vzeroupper\n"                                     \
                         : "+r"(r12_), "+r"(r13_), "+r"(r14_), "+r"(r15_), "+r"(r8_)                                       \
                         : "b"(in)                                                                                         \
                         : "rax", "rcx", "rdx", "rsi", "rdi", "r9", "r10", "r11", "memory", "cc", EACH_ZMM(CLOBBER)        \
                           "k1", "k2", "k3", "k4", "k5", "k6", "k7");                                                      \
    } while (0)
#define CLOBBER(n) "xmm" #n,
#define EVERYTHING __attribute__((noinline, target("avx512f,avx512bw,avx512dq,avx512vl")))

static void fill(State *s, uint64_t seed) {
    uint64_t x = seed * 0x9e3779b97f4a7c15 + 1;
    for (size_t i = 0; i < sizeof *s / 8; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        ((uint64_t *)s)[i] = x;
    }
}

static int failures;

static void compare(const char *what, const State *want, const State *got) {
    for (int n = 0; n < 32; n++)
        for (int i = 0; i < 8; i++)
            if (want->zmm[n][i] != got->zmm[n][i]) {
                printf("%s: zmm%d[%d] is %lx, not %lx\n", what, n, i, got->zmm[n][i], want->zmm[n][i]);
                failures++;
                goto masks;
            }
masks:
    for (int n = 0; n < 8; n++)
        if (want->k[n] != got->k[n]) printf("%s: k%d is %lx, not %lx\n", what, n, got->k[n], want->k[n]), failures++;
}

static void expect(const char *what, uint64_t want, uint64_t got) {
    if (want != got) printf("%s: %lx, not %lx\n", what, got, want), failures++;
}

// Places of the components, by number, and the size of all.
static uint32_t place[8], size_of_all;

static void look_at_the_processor(void) {
    uint32_t a, b, c, d, xcr0, high;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
    expect("components", 0xe7, xcr0 & 0xe7);
    __cpuid_count(0xd, 0, a, b, c, d);
    expect("components by CPUID", xcr0, a);
    size_of_all = b;
    static const uint32_t sizes[8] = {0, 0, 256, 0, 0, 64, 512, 1024};
    for (int n = 2; n < 8; n++) {
        if (sizes[n] == 0) continue;
        __cpuid_count(0xd, n, a, b, c, d);
        expect("size of a component", sizes[n], a);
        place[n] = b;
        if (b + a > size_of_all) printf("component %d is behind the end\n", n);
    }
    __cpuid_count(7, 0, a, b, c, d);
    static const int bits[] = {16, 17, 28, 30, 31};
    for (int i = 0; i < 5; i++) expect("a feature of x86-64-v4", 1, b >> bits[i] & 1);
}

static void *image_of(void *context) { return ((ucontext_t *)context)->uc_mcontext.fpregs; }

// What a frame's image has of a component; zeros if it is not there.
static const uint64_t *component(char *image, int n) {
    static const uint64_t none[128];
    uint64_t present;
    memcpy(&present, image + 512, 8);
    return present >> n & 1 ? (uint64_t *)(image + place[n]) : none;
}

// Handlers.
static State in_frame;
static void *page;
static volatile int caught, changes;

EVERYTHING static void clobber(void) {
#define JUNK(n) "vpternlogd $0xff, %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n"
#define JUNK_K(n) "kxnorq %%k" #n ", %%k" #n ", %%k" #n "\n"
    __asm__ volatile(EACH_ZMM(JUNK) EACH_K(JUNK_K) : : : EACH_ZMM(CLOBBER) "k1", "k2", "k3", "k4", "k5", "k6", "k7");
}

static void on_signal(int s, siginfo_t *info, void *context) {
    char *image = image_of(context);
    uint32_t size, begin, end;
    memcpy(&begin, image + 464, 4), memcpy(&size, image + 480, 4), memcpy(&end, image + size, 4);
    if (begin != 0x46505853 || end != 0x46505845) printf("magic numbers: %x %x\n", begin, end);
    for (int n = 0; n < 16; n++) {
        memcpy(in_frame.zmm[n], image + 160 + 16 * n, 16);
        memcpy(in_frame.zmm[n] + 2, component(image, 2) + 2 * n, 16);
        memcpy(in_frame.zmm[n] + 4, component(image, 6) + 4 * n, 32);
        memcpy(in_frame.zmm[n + 16], component(image, 7) + 8 * n, 64);
    }
    memcpy(in_frame.k, component(image, 5), 64);
    if (changes) {
        uint64_t *hi256 = (uint64_t *)(image + place[6]), *hi16 = (uint64_t *)(image + place[7]);
        hi256[4 * 5 + 3] = 0x5555, hi16[8 * 9 + 7] = 0x2525, ((uint64_t *)(image + place[5]))[3] = 0x3333;
    }
    caught++;
    if (s == SIGSEGV) mprotect(page, 4096, PROT_READ | PROT_WRITE);
    if (s == SIGILL) ((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 2;
    (void)info;
    clobber();
}

#define SYSCALL(n) "mov $" #n ", %%eax\n syscall\n"

EVERYTHING static void system_calls(void) {
    State in, out;
    fill(&in, 1);
    WITH(SYSCALL(39) SYSCALL(24) "mov %%r12, %%rdi\n mov $0x100, %%esi\n xor %%edx, %%edx\n" SYSCALL(318), &in, &out,
         &(char[0x100]){0}, 0, 0, 0);
    compare("system calls", &in, &out);
}

EVERYTHING static void handlers(void) {
    State in, out;
    for (int round = 0; round < 4; round++) {
        fill(&in, 2 + round);
        changes = round & 1, caught = 0;
        memset(&in_frame, 0, sizeof in_frame);
        if (round < 2)
            WITH("mov %%r12, %%rdi\n mov %%r13, %%rsi\n mov $10, %%edx\n" SYSCALL(234), &in, &out, getpid(), gettid(), 0, 0);
        else
            WITH("ud2", &in, &out, 0, 0, 0, 0);
        expect("handlers that ran", 1, caught);
        compare("frame", &in, &in_frame);
        if (changes) in.zmm[5][7] = 0x5555, in.zmm[25][7] = 0x2525, in.k[3] = 0x3333;
        compare("behind a handler", &in, &out);
    }
    changes = 0;
}

EVERYTHING static void interpreted(void) {
    State in, out;
    fill(&in, 10);
    WITH("mov %%rbx, %%rsi\n mov $1, %%eax\n xor %%ecx, %%ecx\n cpuid\n mov %%rsi, %%rbx\n pushfq\n popfq\n xor %%ecx, %%ecx\n xgetbv\n"
         "fninit\n fnstenv (%%r12)\n fxsave64 (%%r13)\n fxrstor64 (%%r13)",
         &in, &out, &(char[64]){0}, &(struct { char b[512]; } __attribute__((aligned(64)))){{0}}, 0, 0);
    compare("instructions that are interpreted", &in, &out);
    // GS is 0 here. VEX-encoded instructions clear what is above.
    uint64_t four[4] = {1, 2, 3, 4};
    WITH("vmovdqu %%gs:(%%r12), %%ymm3\n vmovdqu %%gs:(%%r12), %%xmm4", &in, &out, four, 0, 0, 0);
    memset(in.zmm[3], 0, 64), memset(in.zmm[4], 0, 64), memcpy(in.zmm[3], four, 32), memcpy(in.zmm[4], four, 16);
    compare("what VEX clears", &in, &out);
}

EVERYTHING static void zeroes(void) {
    State in, out;
    fill(&in, 11);
    WITH("vzeroupper\n" SYSCALL(39), &in, &out, 0, 0, 0, 0);
    for (int n = 0; n < 16; n++) memset(in.zmm[n] + 2, 0, 48);
    compare("vzeroupper", &in, &out);
    WITH("vzeroall\n" SYSCALL(39), &in, &out, 0, 0, 0, 0);
    for (int n = 0; n < 16; n++) memset(in.zmm[n], 0, 64);
    compare("vzeroall", &in, &out);
    fill(&in, 12);
    WITH("vmovdqa %%xmm1, %%xmm1\n vmovdqa %%ymm2, %%ymm2\n vmovdqa64 %%xmm17, %%xmm17\n" SYSCALL(39), &in, &out, 0, 0, 0, 0);
    memset(in.zmm[1] + 2, 0, 48), memset(in.zmm[2] + 4, 0, 32), memset(in.zmm[17] + 2, 0, 48);
    compare("moves to themselves", &in, &out);
}

// RBX, R11 and RIP in operands of EVEX-encoded instructions.
EVERYTHING static void operands(void) {
    State in, out;
    fill(&in, 13);
    WITH("mov %%rbx, %%r11\n vpaddq 64(%%r11), %%zmm0, %%zmm16\n vpaddq 128(%%r13,%%r11,1), %%zmm0, %%zmm17\n"
         "mov $0x1234567, %%r11d\n vpbroadcastd %%r11d, %%zmm18\n" SYSCALL(39) "mov $0x89abcde, %%r11d\n"
         "vpbroadcastq %%r11, %%zmm19\n mov $7, %%eax\n vpbroadcastd %%eax, %%zmm11\n"
         "vmovq %%xmm20, %%r11\n vpinsrq $1, %%r11, %%xmm21, %%xmm21\n"
         "vpbroadcastd 7f(%%rip), %%zmm22\n vpaddd 7f(%%rip)%{1to16%}, %%zmm22, %%zmm23\n"
         "jmp 8f\n 7: .long 0x77777777\n 8:",
         &in, &out, 0, 0, 0, 0);
    State want = in;
    for (int i = 0; i < 8; i++) {
        want.zmm[16][i] = in.zmm[0][i] + in.zmm[1][i], want.zmm[17][i] = in.zmm[0][i] + in.zmm[2][i];
        want.zmm[18][i] = 0x0123456701234567, want.zmm[19][i] = 0x89abcde, want.zmm[11][i] = 0x700000007;
        want.zmm[22][i] = 0x7777777777777777, want.zmm[23][i] = 0xeeeeeeeeeeeeeeee;
    }
    memset(want.zmm[21] + 2, 0, 48), want.zmm[21][1] = in.zmm[20][0];
    compare("operands", &want, &out);
}

EVERYTHING static void saved_by_the_guest(void) {
    State in, out, other;
    char *area;
    if (posix_memalign((void **)&area, 64, (size_of_all + 63) & ~63)) return;
    fill(&in, 14), fill(&other, 15);
    memset(area, 0, size_of_all);
    WITH("mov $0xe6, %%eax\n xor %%edx, %%edx\n xsave64 (%%r12)", &in, &out, area, 0, 0, 0);
    compare("XSAVE", &in, &out);
    WITH("mov $0xe6, %%eax\n xor %%edx, %%edx\n xrstor64 (%%r12)", &other, &out, area, 0, 0, 0);
    compare("XRSTOR", &in, &out);
    // Only some are asked for; of these, one is not there.
    uint64_t present;
    memcpy(&present, area + 512, 8);
    expect("XSTATE_BV", 0xe6, present);
    present &= ~(1ul << 7);
    memcpy(area + 512, &present, 8);
    WITH("mov $0xa0, %%eax\n xor %%edx, %%edx\n xrstor64 (%%r12)", &other, &out, area, 0, 0, 0);
    memcpy(other.k, in.k, 64), memset(other.zmm + 16, 0, 1024);
    compare("XRSTOR of two components", &other, &out);
    fill(&other, 16);
    WITH("mov $0x40, %%eax\n xor %%edx, %%edx\n xrstor (%%r12)", &other, &out, area, 0, 0, 0);
    for (int n = 0; n < 16; n++) memcpy(other.zmm[n] + 4, in.zmm[n] + 4, 32);
    compare("XRSTOR of upper halves", &other, &out);
    free(area);
}

EVERYTHING static void faults(void) {
    State in, out;
    char *edge = (char *)page;
    fill(&in, 17);
    in.k[1] = 0xffff, in.k[2] = 0x1ffff;
    uint8_t want[64] = {0};
    for (int i = 0; i < 64; i++) edge[i - 64] = i;
    for (int i = 0; i < 16; i++) want[i] = 48 + i;
    // What is masked does not fault.
    mprotect(page, 4096, PROT_NONE);
    caught = 0;
    WITH("vmovdqu8 -16(%%r12), %%zmm1%{%%k1%}%{z%}\n vmovdqu8 %%zmm1, -16(%%r12)%{%%k1%}\n", &in, &out, edge, 0, 0, 0);
    expect("faults of what is masked", 0, caught);
    memcpy(in.zmm[1], want, 64);
    compare("masked", &in, &out);
    // The seventeenth byte does.
    WITH("vmovdqu8 -16(%%r12), %%zmm29%{%%k2%}%{z%}\n", &in, &out, edge, 0, 0, 0);
    expect("faults of a load", 1, caught);
    compare("frame of a load", &in, &in_frame);
    memcpy(in.zmm[29], want, 64);
    compare("a load", &in, &out);
    mprotect(page, 4096, PROT_NONE);
    WITH("vmovdqu8 %%zmm29, -16(%%r12)%{%%k2%}\n", &in, &out, edge, 0, 0, 0);
    expect("faults of a store", 2, caught);
    compare("a store", &in, &out);
    // A gather of which half the elements are there.
    for (int i = 0; i < 16; i++) ((uint32_t *)in.zmm[30])[i] = (i - 8) * 4;
    mprotect(page, 4096, PROT_NONE);
    WITH("vpgatherdd (%%r12,%%zmm30,1), %%zmm31%{%%k1%}\n", &in, &out, edge, 0, 0, 0);
    expect("faults of a gather", 3, caught);
    for (int i = 0; i < 16; i++) memcpy((uint32_t *)in.zmm[31] + i, edge + (i - 8) * 4, 4);
    in.k[1] = 0;
    compare("a gather", &in, &out);
}

EVERYTHING static void children(void) {
    static State in, out, theirs;
    int status = 0;
    fill(&in, 20);
    State *shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
#define BORN "mov %%rax, %%r14\n test %%eax, %%eax\n jnz 9f\n mov %%r13, %%rbp\n" EACH_ZMM(STORE_ZMM) EACH_K(STORE_K) \
             "xor %%edi, %%edi\n" SYSCALL(231) "9:\n"
    WITH(SYSCALL(57) BORN, &in, &out, 0, shared, 0, 0);
    wait(&status);
    compare("parent", &in, &out), compare("child", &in, shared);
    fill(&in, 21);
    WITH("mov $0x4111, %%edi\n xor %%esi, %%esi\n xor %%edx, %%edx\n xor %%r10d, %%r10d\n xor %%r8d, %%r8d\n" SYSCALL(56) BORN,
         &in, &out, 0, &theirs, 0, 0);
    wait(&status);
    compare("parent that has lent its memory", &in, &out), compare("child in its parent's memory", &in, &theirs);
}

EVERYTHING static void *thread(void *seed) {
    State in, out;
    for (int i = 0; i < 300; i++) {
        fill(&in, (uintptr_t)seed * 1000 + i);
        WITH(SYSCALL(24) "mov $3000, %%ecx\n 5: dec %%ecx\n jnz 5b\n", &in, &out, 0, 0, 0, 0);
        compare("thread", &in, &out);
    }
    return NULL;
}

static void on_tick(int s) {
    (void)s;
    clobber();
}

// Threads that have not come to AVX-512 while others have; signals that come at any time.
static void threads(void) {
    pthread_t t[4];
    struct sigaction a = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &a, NULL);
    ualarm(1000, 500);
    for (uintptr_t i = 0; i < 4; i++) pthread_create(&t[i], NULL, thread, (void *)(i + 1));
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    ualarm(0, 0);
}

// A thread that is on its way, in code without AVX-512, when another comes to the first instruction of it, and then comes to such.
static volatile int started, go;

static void *late(void *unused) {
    started = 1;
    while (!go) {}
    return thread(unused);
}

int main(void) {
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl")) {
        fprintf(stderr, "skipped: no AVX-512\n");
        printf("done\n");
        return 0;
    }
    pthread_t other;
    pthread_create(&other, NULL, late, (void *)9);
    while (!started) {}
    look_at_the_processor();
    struct sigaction a = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &a, NULL), sigaction(SIGILL, &a, NULL), sigaction(SIGSEGV, &a, NULL);
    char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page = pages + 4096;
    system_calls();
    go = 1;
    handlers();
    interpreted();
    zeroes();
    operands();
    saved_by_the_guest();
    faults();
    children();
    threads();
    pthread_join(other, NULL);
    printf("done\n");
    return failures != 0;
}
