// Instructions whose results are the host's: what must hold of them whatever they are.
#define _GNU_SOURCE
#include <cpuid.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>
#include <signal.h>
#include <sched.h>
#include <sys/auxv.h>
#include <unistd.h>

static unsigned frame_size, frame_features;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    const unsigned *words = (const unsigned *)((char *)uc->uc_mcontext.fpregs + 464); // struct _fpx_sw_bytes
    frame_features = words[2];
    frame_size = words[4];
    (void)signal, (void)info;
}

static uint64_t xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

static uint64_t rdtsc(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return (uint64_t)high << 32 | low;
}

#define RANDOM(name, suffix, type)                                                                                      \
    static int name##suffix(void)                                                                                      \
    {                                                                                                                  \
        type first = 0, differs = 0;                                                                                   \
        for (int n = 0; n < 64; n++) {                                                                                 \
            type v = 0;                                                                                                \
            uint64_t flags;                                                                                            \
            do /* may have nothing for a moment */                                                                     \
                __asm__ volatile("cmp $1, %1\n" #name " %0\npushfq\npop %1" : "=r"(v), "=&r"(flags) : "1"((uint64_t)0) : "cc"); \
            while (!(flags & 1));                                                                                      \
            if (flags & 0x8d4)                                                                                         \
                return 0;                                                                                              \
            first = n ? first : v;                                                                                     \
            differs |= v ^ first;                                                                                      \
        }                                                                                                              \
        return (differs >> (8 * sizeof differs - 1) & 1) && differs & 1;                                               \
    }
RANDOM(rdrand, 16, uint16_t)
RANDOM(rdrand, 32, uint32_t)
RANDOM(rdrand, 64, uint64_t)
RANDOM(rdseed, 16, uint16_t)
RANDOM(rdseed, 32, uint32_t)
RANDOM(rdseed, 64, uint64_t)

static void bases(void)
{
    uint64_t fs, gs, again, other = 0x123456789a8, narrow;
    __asm__ volatile("rdfsbase %0\nrdgsbase %1\n"
                     "wrgsbase %3\nrdgsbase %2\nmov $-1, %4\nrdgsbase %k4\nwrgsbase %1"
                     : "=&r"(fs), "=&r"(gs), "=&r"(again), "+r"(other), "=&r"(narrow));
    uint64_t self;
    __asm__ volatile("mov %%fs:0, %0" : "=r"(self));
    printf("bases: fs %s, gs %s, 32 bits %s\n", fs == self ? "right" : "wrong", again == other ? "right" : "wrong",
           narrow == (uint32_t)other ? "right" : "wrong");
    uint64_t kept, found = (uint64_t)&fs;
    __asm__ volatile("rdfsbase %0\nwrfsbase %1\nmov %%fs:0, %1\nwrfsbase %0" : "=&r"(kept), "+r"(found) : : "memory");
    printf("wrfsbase: %s\n", found == fs && kept == fs ? "right" : "wrong");
}

int main(void)
{
    unsigned a, b, c, d;
    __cpuid(0, a, b, c, d);
    printf("highest leaf: %s\n", a >= 0xd ? "enough" : "too low");
    __cpuid(1, a, b, c, d);
    printf("osxsave %d, avx %d, sse4.2 %d, popcnt %d, fma %d, movbe %d, f16c %d\n", c >> 27 & 1, c >> 28 & 1, c >> 20 & 1, c >> 23 & 1, c >> 12 & 1,
           c >> 22 & 1, c >> 29 & 1);
    __cpuid_count(7, 0, a, b, c, d);
    printf("bmi1 %d, avx2 %d, bmi2 %d\n", b >> 3 & 1, b >> 5 & 1, b >> 8 & 1);
    // The kernel says by itself that WRFSBASE may be used (Documentation/arch/x86/x86_64/fsgs.rst).
    printf("fsgsbase %d, by the kernel %lu\n", b & 1, getauxval(AT_HWCAP2) >> 1 & 1);
    __cpuid_count(0xd, 0, a, b, c, d);
    struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    raise(SIGUSR1);
    // XCR0 says what is on, leaf 0xd how large it is, and signal frames have it.
    printf("leaf 0xd: components %s, size %s, in frames %s\n", (xcr0() & a) == xcr0() && (xcr0() & 7) == 7 ? "right" : "wrong",
           b >= 832 && b <= c ? "right" : "wrong", (frame_features & 7) == 7 && frame_size >= 832 && frame_size <= c ? "right" : "wrong");
    __cpuid_count(0xd, 2, a, b, c, d);
    printf("avx state: %u bytes at %u\n", a, b);

    uint64_t before = rdtsc();
    usleep(1000);
    printf("rdtsc: %s\n", rdtsc() > before ? "goes on" : "stands");
    cpu_set_t one;
    sched_getaffinity(0, sizeof one, &one);
    for (int n = 0; n < CPU_SETSIZE; n++)
        if (CPU_ISSET(n, &one)) {
            CPU_ZERO(&one);
            CPU_SET(n, &one);
            break;
        }
    sched_setaffinity(0, sizeof one, &one);
    uint32_t low, high, aux;
    uint64_t pid;
    __asm__ volatile("rdtscp" : "=a"(low), "=d"(high), "=c"(aux));
    __asm__ volatile("rdpid %0" : "=r"(pid));
    printf("rdtscp: %s, rdpid %s\n", (aux & 0xfff) == (unsigned)sched_getcpu() ? "right" : "wrong", pid == aux ? "right" : "wrong");
    printf("random: %d%d%d %d%d%d\n", rdrand16(), rdrand32(), rdrand64(), rdseed16(), rdseed32(), rdseed64());
    bases();
    return 0;
}
