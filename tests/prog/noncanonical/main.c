// Addresses that are not canonical raise #GP, not #PF, by whatever instruction and wherever in the address the odd bit is; page faults tell
// reads from writes. Nothing is mapped at these addresses without their topmost byte either. (Emulators on x86-64 do not say where an access was
// that has other odd bits.)
#define _GNU_SOURCE
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <ucontext.h>

static sigjmp_buf back;
static volatile long trap, error, code, at;

static void on_segv(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    trap = uc->uc_mcontext.gregs[REG_TRAPNO];
    error = uc->uc_mcontext.gregs[REG_ERR];
    code = info->si_code;
    at = (long)info->si_addr;
    siglongjmp(back, signal);
}

static uint64_t offset = 0x1008;

#define ACCESS(name, body)                                       \
    static void name(char *p)                                  \
    {                                                          \
        __asm__ volatile(body : : "r"(p), "r"(offset) : "rax", "rcx", "rdx", "xmm0", "memory", "cc"); \
    }
ACCESS(load, "mov (%0), %%rax")
ACCESS(load_byte, "movzbl 1(%0), %%eax")
ACCESS(load_signed, "movslq -8(%0), %%rax")
ACCESS(store, "mov %%rax, (%0)")
ACCESS(store_far, "mov %%eax, 0x123450(%0)")
ACCESS(indexed, "mov (%0,%1,4), %%rax")
ACCESS(add, "addq $1, (%0)")
ACCESS(locked_add, "lock addq $1, (%0)")
ACCESS(locked_or, "lock orq $1, (%0)")
ACCESS(locked_and, "lock andl $1, 8(%0)")
ACCESS(exchange, "xchg %%rax, (%0)")
ACCESS(compare, "lock cmpxchg %%rcx, (%0)")
ACCESS(vector_load, "movdqu (%0), %%xmm0")
ACCESS(vector_store, "movups %%xmm0, 16(%0)")
ACCESS(scalar, "movsd 8(%0), %%xmm0")
ACCESS(x87, "fldl (%0)")

static const struct { const char *name; void (*run)(char *); } ACCESSES[] = {
    {"load", load}, {"byte", load_byte}, {"signed", load_signed}, {"store", store}, {"far store", store_far}, {"index", indexed},
    {"add", add}, {"lock add", locked_add}, {"lock or", locked_or}, {"lock and", locked_and}, {"xchg", exchange}, {"cmpxchg", compare},
    {"vector", vector_load}, {"vector store", vector_store}, {"double", scalar}, {"x87", x87},
};
static const uint64_t ADDRESSES[] = {
    0x8000000000001000, 0x0100000000001000, 0x4000000000001000, 0xfe00000000001000,
    0x0000000000001000, 0xffff800000001000,
};

int main(void)
{
    struct sigaction action = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    for (unsigned a = 0; a < sizeof ADDRESSES / sizeof *ADDRESSES; a++)
        for (unsigned n = 0; n < sizeof ACCESSES / sizeof *ACCESSES; n++) {
            int signal = 0;
            for (volatile int round = 0; round < 3; round++) {
                if ((signal = sigsetjmp(back, 1)) == 0)
                    ACCESSES[n].run((char *)ADDRESSES[a]);
            }
            printf("%016lx %s: signal %d trap %ld error %ld code %ld at %lx\n", ADDRESSES[a], ACCESSES[n].name, signal, trap, error, code, at);
        }
    return 0;
}
