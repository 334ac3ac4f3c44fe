// 256-bit registers in signal frames: saved, found by the handler in the extended image, restored with what it changed there.
#define _GNU_SOURCE
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

static int magic, announced;

__attribute__((target("avx2"))) static void handler(int s, siginfo_t *i, void *c) {
    (void)s; (void)i;
    // struct _fpx_sw_bytes at 464, XSAVE header at 512, upper halves at 576 (asm/sigcontext.h, SDM vol. 1 13.4).
    char *image = (char *)((ucontext_t *)c)->uc_mcontext.fpregs;
    uint32_t begin, size, end;
    uint64_t present;
    memcpy(&begin, image + 464, 4);
    memcpy(&size, image + 480, 4);
    memcpy(&end, image + size, 4);
    memcpy(&present, image + 512, 8);
    magic = begin == 0x46505853 && end == 0x46505845;
    announced = (present & 4) != 0;
    __m256i junk = _mm256_set1_epi8(0x55);
    __asm__ volatile("vmovdqa %0, %%ymm3" : : "m"(junk) : "xmm3");
    uint64_t changed = 0x4444;
    memcpy(image + 576 + 16 * 4, &changed, 8);
}

__attribute__((target("avx2"))) static void try_it(void) {
    uint64_t in[4] = {1, 2, 3, 4}, kept[4], changed[4];
    long pid = getpid(), tid = gettid();
    __asm__ volatile(
        "vmovdqu (%0), %%ymm3\n vmovdqu (%0), %%ymm4\n"
        "mov $234, %%eax\n mov %3, %%rdi\n mov %4, %%rsi\n mov $10, %%edx\n syscall\n"
        "vmovdqu %%ymm3, (%1)\n vmovdqu %%ymm4, (%2)\n vzeroupper"
        : : "r"(in), "r"(kept), "r"(changed), "r"(pid), "r"(tid)
        : "rax", "rcx", "rdx", "rdi", "rsi", "r11", "xmm3", "xmm4", "memory");
    if (!magic || !announced) printf("extended image: magic numbers %d, upper halves %d\n", magic, announced);
    if (memcmp(kept, in, sizeof in)) printf("lost: %lx %lx %lx %lx\n", kept[0], kept[1], kept[2], kept[3]);
    if (changed[1] != 2 || changed[2] != 0x4444 || changed[3] != 4) printf("not changed: %lx %lx\n", changed[2], changed[3]);
}

int main(void) {
    struct sigaction a = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &a, NULL);
    if (__builtin_cpu_supports("avx2")) try_it();
    printf("done\n");
    return 0;
}
