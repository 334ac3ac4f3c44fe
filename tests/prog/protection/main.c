// Faults in detail: error codes of #GP, and stores across the edge of what can be written, which leave nothing half done.
// needs: an AMD processor
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile int signo, code;
static volatile long error, trap, address;

static void on_fault(int s, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    signo = s;
    code = info->si_code;
    address = (long)info->si_addr;
    error = u->uc_mcontext.gregs[REG_ERR];
    trap = u->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(back, 1);
}

#define PROTECTED(name, ...)                                                                      \
    do {                                                                                          \
        if (sigsetjmp(back, 1) == 0) {                                                            \
            __asm__ volatile(__VA_ARGS__);                                                        \
            puts(name ": nothing");                                                               \
        } else {                                                                                  \
            printf(name ": signal %d, code %#x, trap %ld, error %#lx\n", signo, code, trap, error); \
        }                                                                                         \
    } while (0)

// Stores `bytes` bytes by `instruction` with its operand in rax at every place across an edge of the page at `page`, whose neighbours are
// missing or can only be read.
#define ACROSS(name, bytes, edge, instruction)                                                    \
    do {                                                                                          \
        static unsigned char zero[8192];                                                          \
        static volatile int by, faults, changed, right;                                           \
        static unsigned char *volatile at;                                                        \
        faults = changed = right = 0;                                                             \
        for (by = 1; by < (bytes); by++) {                                                        \
            at = (unsigned char *)(edge) - by;                                                    \
            if (sigsetjmp(back, 1) == 0) {                                                        \
                __asm__ volatile("fldpi\n\tvpcmpeqd %%xmm0, %%xmm0, %%xmm0\n\tvinsertf128 $1, %%xmm0, %%ymm0, %%ymm0\n\t" \
                                 instruction : : "a"(at) : "xmm0", "memory");                     \
            } else {                                                                              \
                __asm__ volatile("fninit");                                                       \
                faults++;                                                                         \
                right += trap == 14 && (error & 2) && (address == (long)at || address == (long)(edge)); \
            }                                                                                     \
            changed += memcmp(page, zero, 4096) != 0;                                             \
        }                                                                                         \
        printf(name ": %d faults, %d of them where they should be, %d half done\n", faults, right, changed); \
    } while (0)

static void protection(void) {
    static struct __attribute__((packed)) { uint32_t offset; uint16_t selector; } far = {0, 0x1233};
    PROTECTED("int 0x81", "int $0x81");
    PROTECTED("int 0xff", "int $0xff");
    PROTECTED("mov ds", "mov %w0, %%ds" : : "r"(0x1233));
    PROTECTED("mov es from memory", "mov %0, %%es" : : "m"(far.selector));
    PROTECTED("pop fs", "push $0x1230\n\tpop %%fs\n\t" : :);
    PROTECTED("lgs", "lgs %0, %%eax" : : "m"(far) : "rax");
    PROTECTED("hlt", "hlt");
    PROTECTED("misaligned", "movaps %%xmm0, 1(%%rsp)" : :);
}

int main(void) {
    struct sigaction action = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    for (int s = SIGILL; s <= SIGSEGV; s++)
        if (s != SIGABRT && s != SIGKILL && s != SIGUSR1) sigaction(s, &action, NULL);
    unsigned char *pages = mmap(NULL, 3 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    unsigned char *page = pages + 4096;
    mprotect(page, 4096, PROT_READ | PROT_WRITE);
    for (int n = 0; n < 2; n++) {
        if (n == 0) protection();
        ACROSS("vmovups below", 32, page, "vmovups %%ymm0, (%%rax)");
        ACROSS("vmovdqu above", 32, page + 4096, "vmovdqu %%ymm0, (%%rax)");
        ACROSS("fstpt below", 10, page, "fstpt (%%rax)");
        ACROSS("fstpt above", 10, page + 4096, "fstpt (%%rax)");
        ACROSS("fbstp below", 10, page, "fbstp (%%rax)");
        ACROSS("vcvtps2ph above", 16, page + 4096, "vcvtps2ph $0, %%ymm0, (%%rax)");
        ACROSS("vmaskmovps below", 32, page, "vmaskmovps %%ymm0, %%ymm0, (%%rax)");
        munmap(pages, 4096);
        munmap(page + 4096, 4096);
    }
    return 0;
}
