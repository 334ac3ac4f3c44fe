// CMPXCHG whose comparison fails is a write, too: it faults in a page that can only be read (SDM vol. 2, CMPXCHG).
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>

static sigjmp_buf back;
static void on_fault(int signal) { siglongjmp(back, signal); }

#define FAILS(name, ...)                                                                        \
    do {                                                                                        \
        uint64_t low = 1, high = 2;                                                             \
        int signal = sigsetjmp(back, 1);                                                        \
        if (signal == 0) {                                                                      \
            __asm__ volatile(__VA_ARGS__ : "+a"(low), "+d"(high), "+m"(*page) : "b"(3L), "c"(4L) : "cc"); \
            printf(name ": read %lu %lu\n", (unsigned long)low, (unsigned long)high);           \
        } else {                                                                                \
            printf(name ": signal %d\n", signal);                                               \
        }                                                                                       \
    } while (0)

int main(void) {
    signal(SIGSEGV, on_fault);
    typedef struct { uint64_t halves[2]; } Pair;
    volatile Pair *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    page->halves[0] = 0x505050505050505;
    page->halves[1] = 0x606060606060606;
    // The first fault of a process changes how its code is translated, the later rounds run hot.
    for (int round = 0; round < 60; round++) {
        mprotect((void *)page, 4096, round < 30 ? PROT_READ | PROT_WRITE : PROT_READ);
        FAILS("8 bits", "lock cmpxchgb %%bl, %2");
        FAILS("16 bits", "lock cmpxchgw %%bx, %2");
        FAILS("32 bits", "lock cmpxchgl %%ebx, %2");
        FAILS("64 bits", "lock cmpxchgq %%rbx, %2");
        FAILS("64 bits without LOCK", "cmpxchgq %%rbx, %2");
        FAILS("8 bytes", "lock cmpxchg8b %2");
        FAILS("16 bytes", "lock cmpxchg16b %2");
        FAILS("64 bits, not aligned", "lock cmpxchgq %%rbx, 3%2");
        FAILS("64 bits, split", "lock cmpxchgq %%rbx, 13%2");
    }
    return 0;
}
