// Code whose page is written all the time, so that translations compare their bytes: its constants change with every call, or the rest of it;
// registers and flags must come through, also when signals arrive; and when it cannot be fetched any more, that faults.
#define _GNU_SOURCE
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

enum { PAGE = 4096, CODE = 64 };
static const int RWX = PROT_READ | PROT_WRITE | PROT_EXEC;
static volatile long signals;
static sigjmp_buf after;
static void *volatile fault_address, *volatile faulted_at;

static unsigned char *page_of_code(void) {
    unsigned char *p = mmap(NULL, PAGE, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) exit(1);
    return p;
}

// Every call finds another constant; r11, r8 and rax are destinations.
static void constants(unsigned char *p) {
    static const unsigned char code[] = {
        0x49, 0xbb, 0, 0, 0, 0, 0, 0, 0, 0,         // mov r11, constant of 64 bits
        0x41, 0xb8, 0, 0, 0, 0,                     // mov r8d, constant of 32
        0xb8, 0, 0, 0, 0,                           // mov eax, constant of 32
        0x4c, 0x01, 0xd8,                           // add rax, r11
        0x4c, 0x01, 0xc0,                           // add rax, r8
        0xc3,                                       // ret
    };
    memcpy(p, code, sizeof code);
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        uint64_t wide = i * 0x9e3779b97f4a7c15;
        uint32_t high = 0x80000000 + i;
        memcpy(p + 2, &wide, 8);
        memcpy(p + 12, &high, 4);
        memcpy(p + 17, &i, 4);
        sum = sum * 31 + ((uint64_t(*)(void))p)();
    }
    printf("constants %016lx\n", sum);
}

// The operation changes, and constants of other instructions do.
static void operations(unsigned char *p) {
    static const unsigned char codes[][8] = {
        {0x48, 0x8d, 0x47, 1, 0xc3},                // lea rax, [rdi + 1]; ret
        {0x48, 0x6b, 0xc7, 3, 0xc3},                // imul rax, rdi, 3; ret
        {0x48, 0x89, 0xf8, 0x34, 5, 0xc3},          // mov rax, rdi; xor al, 5; ret
        {0x89, 0xf8, 0xeb, 1, 0xcc, 0xc3},          // mov eax, edi; jmp +1; int3; ret
    };
    uint64_t sum = 0;
    for (int i = 0; i < 3000; i++) {
        memcpy(p, codes[i * 7 % 4], 8);
        if (i % 4 == 0) p[3] = i;
        sum = sum * 31 + ((uint64_t(*)(uint64_t))p)(i);
    }
    printf("operations %016lx\n", sum);
}

// A call in such a page, to code in it that has changed when it is called, and back to code that has changed meanwhile.
static void calls(unsigned char *p) {
    static const unsigned char code[] = {
        0x53,                                       // push rbx
        0x48, 0x89, 0xfb,                           // mov rbx, rdi
        0xe8, 0x37, 0, 0, 0,                        // call p + 64
        0x48, 0x83, 0xc0, 0,                        // add rax, constant      <- changed by the callee
        0x5b,                                       // pop rbx
        0xc3,                                       // ret
    };
    static const unsigned char callee[] = {
        0x88, 0x1d, 0xc6, 0xff, 0xff, 0xff,         // mov [rip - 58], bl: the constant behind the call
        0x48, 0x8d, 0x43, 0,                        // lea rax, [rbx + constant]
        0xc3,                                       // ret
    };
    memcpy(p, code, sizeof code);
    memcpy(p + 64, callee, sizeof callee);
    uint64_t sum = 0;
    for (int i = 0; i < 3000; i++) {
        p[64 + 9] = i * 3;
        sum = sum * 31 + ((uint64_t(*)(uint64_t))p)(i & 127);
    }
    printf("calls %016lx\n", sum);
}

// rcx, r11 and the flags before and behind jumps into such a page; a timer interrupts wherever it likes. The first byte that differs is returned.
static void state(unsigned char *p) {
    static const unsigned char code[] = {
        0xeb, 0,                                    // jmp +0
        0x90,                                       // nop
        0xeb, 0,                                    // jmp +0
        0x49, 0x89, 0xca,                           // mov r10, rcx
        0xb8, 0, 0, 0, 0,                           // mov eax, constant
        0xff, 0xe6,                                 // jmp rsi
    };
    memcpy(p, code, sizeof code);
    struct itimerval often = {{0, 500}, {0, 500}}, never = {0};
    setitimer(ITIMER_REAL, &often, NULL);
    uint64_t wrong = 0;
    long i;
    for (i = 0; i < 20000 || signals < 20; i++) {
        uint32_t constant = i;
        memcpy(p + 9, &constant, 4);
        if (i % 5 == 0) p[2] = i % 10 ? 0x90 : 0xf8 + (i & 1); // nop, clc or stc
        uint64_t rcx = i * 0x123456789, r11 = ~rcx, flags, got, rflags = i * 0x41 & 0x8c5;
        __asm__ volatile(
            "mov %[in], %%r11\n lea 1f(%%rip), %%rsi\n sub $136, %%rsp\n push %[flags]\n popf\n jmp *%[code]\n"
            "1: pushf\n pop %[flags]\n lea 136(%%rsp), %%rsp\n mov %%r11, %[in]\n"
            : "=&a"(got), [in] "+r"(r11), [flags] "+r"(rflags), "+c"(rcx)
            : [code] "r"(p)
            : "rsi", "r10", "r11", "memory", "cc");
        flags = i * 0x41 & 0x8c5;
        if (p[2] == 0xf8) flags &= ~1ul;
        if (p[2] == 0xf9) flags |= 1;
        wrong += got != constant || rcx != (uint64_t)i * 0x123456789 || r11 != ~rcx || (rflags & 0x8d5) != flags;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    printf("state wrong %ld\n", wrong);
}

static void on_alarm(int s) { (void)s; signals++; }

static void on_fault(int s, siginfo_t *info, void *context) {
    fault_address = info->si_addr;
    faulted_at = (void *)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
    siglongjmp(after, s);
}

// Where a long block faults.
static void faults(unsigned char *p) {
    long wrong = 0;
    for (int len = 1; len < 70; len++) {
        memset(p, 0x90, 80);
        memcpy(p + len, (unsigned char[]){0x8b, 0x04, 0x25, 8, 0, 0, 0, 0xc3}, 8); // mov eax, [8]; ret
        for (int i = 0; i < 3; i++) {
            p[0] = i & 1 ? 0x90 : 0xf8;
            faulted_at = NULL;
            if (!sigsetjmp(after, 1)) ((void (*)(void))p)();
            wrong += faulted_at != p + len || fault_address != (void *)8;
        }
    }
    printf("faults wrong %ld\n", wrong);
}

static int pipe_ends[2];

static void *read_into(void *page) { return (void *)read(pipe_ends[0], (char *)page + 2048, 1); }

// Whether ZF and CF are those of a comparison of `a` with `b` behind a call of `code` with `a`.
static int compares(unsigned char *code, uint8_t a, uint8_t b) {
    uint64_t flags;
    __asm__ volatile("sub $136, %%rsp\n call *%[code]\n pushf\n pop %[flags]\n add $136, %%rsp"
                     : [flags] "=r"(flags)
                     : [code] "r"(code), "D"((uint64_t)a)
                     : "memory", "cc");
    return (flags & 0x41) == (a == b ? 0x40 : 0) + (a < b);
}

// Code that ran first while the kernel could write to its page, behind code that did not, before a return to code that reads the flags.
static void flags(unsigned char *p) {
    static const unsigned char code[] = {
        0x83, 0xff, 50,                             // cmp edi, 50
        0xc3,                                       // ret
    };
    static const unsigned char before[] = {
        0x39, 0xff,                                 // cmp edi, edi
        0xeb, 0xbc,                                 // jmp p
    };
    memcpy(p, code, sizeof code);
    memcpy(p + 64, before, sizeof before);
    pthread_t reader;
    if (pipe(pipe_ends) || pthread_create(&reader, NULL, read_into, p)) exit(1);
    usleep(50000);
    long wrong = 0;
    for (int i = 0; i < 30000; i++) wrong += !compares(p, i & 127, 50);
    if (write(pipe_ends[1], "", 1) != 1 || pthread_join(reader, NULL)) exit(1);
    for (int i = 0; i < 30000; i++) wrong += !compares(p + 64, i & 127, 50);
    printf("flags wrong %ld\n", wrong);
}

static long call(const unsigned char *p) { return ((int (*)(void))p)(); }

// Unmapped, without permission, and behind the end of its file.
static void gone(unsigned char *p) {
    static const unsigned char code[] = {0xb8, 1, 0, 0, 0, 0xc3};
    memcpy(p, code, sizeof code);
    long sum = 0;
    for (int i = 0; i < 100; i++) {
        p[1] = i;
        sum += call(p);
    }
    static const int protections[] = {PROT_NONE, PROT_READ | PROT_WRITE, RWX};
    for (int i = 0; i < 3; i++) {
        mprotect(p, PAGE, protections[i]);
        int s = sigsetjmp(after, 1);
        if (!s) sum += call(p);
        printf("protection %d: signal %d, there %d\n", protections[i], s, s && fault_address == p);
    }
    int fd = memfd_create("code", 0);
    if (ftruncate(fd, PAGE)) return;
    unsigned char *file = mmap(NULL, PAGE, RWX, MAP_SHARED, fd, 0);
    memcpy(file, code, sizeof code);
    for (int i = 0; i < 100; i++) {
        file[1] = i;
        sum += call(file);
    }
    if (ftruncate(fd, 0)) return;
    int s = sigsetjmp(after, 1);
    if (!s) sum += call(file);
    printf("file's end: signal %d, there %d\n", s, fault_address == file);
    munmap(p, PAGE);
    s = sigsetjmp(after, 1);
    if (!s) sum += call(p);
    printf("unmapped: signal %d, there %d, sum %ld\n", s, fault_address == p, sum);
}

int main(void) {
    struct sigaction fault = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &fault, NULL);
    sigaction(SIGBUS, &fault, NULL);
    signal(SIGALRM, on_alarm);
    unsigned char *p = page_of_code();
    constants(p);
    operations(p);
    calls(p);
    state(p);
    faults(p);
    flags(page_of_code());
    gone(p);
}
