// Memory where wine, clisp and the sanitizers want it, up to the end of user space: data, shadows, code, buffers of system calls, futexes.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FUTEX_WAIT, FUTEX_WAKE, PAGE = 4096, FREE = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE };

static void *at(uintptr_t where, size_t size, int prot, int how) {
    void *got = mmap((void *)where, size, prot, FREE | how, -1, 0);
    if (got == MAP_FAILED)
        printf("%#lx: no memory: %d\n", where, errno == ENOMEM);
    else if ((uintptr_t)got != where)
        printf("%#lx: elsewhere\n", where);
    return got;
}

// What programs count on.
static void usual_places(void) {
    static const struct { const char *whose; uintptr_t start, end; } places[] = {
        {"wine's loader", 0x7d000000, 0x7d004000},
        {"Windows' shared data", 0x7ffe0000, 0x7ffe1000},
        {"clisp's heap", 0x100000000000, 0x100004000000},
        {"AddressSanitizer's upper shadow", 0x02008fff7000, 0x10007fff8000},
        {"ThreadSanitizer's shadow", 0x010000000000, 0x200000000000},
        {"ThreadSanitizer's heap", 0x7b0000000000, 0x7c0000000000},
        {"MemorySanitizer's origins", 0x300000000000, 0x400000000000},
        {"AddressSanitizer's heap", 0x600000000000, 0x640000000000},
    };
    for (unsigned i = 0; i < sizeof places / sizeof *places; i++) {
        size_t size = places[i].end - places[i].start;
        char *m = at(places[i].start, size, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
        m[0] = m[size - 1] = 7;
        printf("%s: %d, ", places[i].whose, m[0] + m[size - 1]);
        printf("given back: %d\n", munmap(m, size));
    }
    char local;
    printf("the stack is the highest: %d\n", (uintptr_t)&local >> 40 > 0x7d);
}

static void calls(char *m) {
    int ends[2];
    unsigned char in_core;
    printf("pipe: %d\n", pipe(ends));
    strcpy(m, "high");
    printf("write: %zd, ", write(ends[1], m, 5));
    printf("read: %zd", read(ends[0], m + PAGE, 8));
    printf(" %s, ", m + PAGE);
    printf("beyond the mapping: %zd ", write(ends[1], m + 2 * PAGE, 1));
    printf("EFAULT: %d\n", errno == EFAULT);
    printf("mincore: %d, ", mincore(m, PAGE, &in_core));
    printf("protected: %d, ", mprotect(m, PAGE, PROT_READ));
    printf("getcwd: %ld ", syscall(SYS_getcwd, m, PAGE));
    printf("EFAULT: %d, ", errno == EFAULT);
    printf("writable: %d, ", mprotect(m, PAGE, PROT_READ | PROT_WRITE));
    char *moved = mremap(m, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, m + 0x10000000000);
    printf("moved: %s\n", moved == m + 0x10000000000 ? moved : "no");
}

static void *wake(void *futex) {
    *(volatile int *)futex = 1;
    syscall(SYS_futex, futex, FUTEX_WAKE, 1, NULL, NULL, 0);
    return NULL;
}

static void threads(int *futex) {
    pthread_t thread;
    pthread_create(&thread, NULL, wake, futex);
    while (*(volatile int *)futex == 0)
        syscall(SYS_futex, futex, FUTEX_WAIT, 0, NULL, NULL, 0);
    pthread_join(thread, NULL);
    printf("futex: %d\n", *futex);
}

// Code that calls back into the program, and is written anew.
static void code(unsigned char *m) {
    static const unsigned char twice[] = {0x8d, 0x04, 0x3f, 0xc3}, through[] = {0xff, 0xe6}; // lea eax,[rdi+rdi]; ret   jmp rsi
    int (*f)(int, int (*)(int)) = (void *)m;
    int sum = 0;
    memcpy(m + 64, twice, sizeof twice);
    for (int i = 0; i < 3000; i++) {
        memcpy(m, i % 1000 < 500 ? twice : through, 4 - 2 * (i % 1000 >= 500));
        sum += f(i, (void *)(m + 64));
    }
    printf("code: %d\n", sum);
    // fld1; fstp st0; fnstenv [rdi]; ret
    static const unsigned char last[] = {0xd9, 0xe8, 0xdd, 0xd8, 0xd9, 0x37, 0xc3};
    memcpy(m + 128, last, sizeof last);
    unsigned environment[7];
    ((void (*)(void *))(m + 128))(environment);
    printf("x87 at %#x\n", environment[3]);
}

int main(void) {
    usual_places();
    calls(at(0x610000000000, 2 * PAGE, PROT_READ | PROT_WRITE, 0));
    threads(at(0x7c0000000000, PAGE, PROT_READ | PROT_WRITE, MAP_FIXED));
    unsigned char *m = at(0x7d0000000000, PAGE, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_FIXED);
    code(m);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        code(m);
        fflush(stdout);
        _exit(3);
    }
    int status;
    waitpid(child, &status, 0);
    printf("child: %d\n", WEXITSTATUS(status));
    at(0x7ffffffff000, PAGE, PROT_READ, MAP_FIXED);
    return 0;
}
