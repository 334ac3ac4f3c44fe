// Every way to die: the status that the parent sees, and a death of its own at the end.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int zero;
static void null_write(void) { *(volatile int *)8 = 1; }
static void null_call(void) { void (*volatile f)(void) = NULL; f(); }
static void undefined(void) { __asm__ volatile("ud2"); }
static void division(void) { zero = 5 / zero; }
static void breakpoint(void) { __asm__ volatile("int3"); }
static void privileged(void) { __asm__ volatile("hlt"); }
static void noncanonical(void) { *(volatile char *)0x8000000000001000 = 1; }
static void not_executable(void) { static char data[16] = {(char)0xc3}; ((void (*)(void))data)(); }
static void past_file(void) {
    FILE *f = tmpfile();
    volatile char *p = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fileno(f), 0);
    zero = p[5000];
}
static void misaligned_sse(void) { static char b[64]; __asm__ volatile("movaps %%xmm0, 1(%0)" : : "r"((long)b & ~15l) : "memory"); }
static long overflow(long n) { volatile char space[4096]; space[0] = n; return overflow(n + 1) + space[0]; }
static void deep(void) { overflow(0); }
static void unmapped_code(void) {
    unsigned char *p = mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(p, 4096);
    ((void (*)(void))p)();
}

int main(void) {
    struct rlimit none = {0, 0}, stack = {1 << 20, 1 << 20};
    setrlimit(RLIMIT_CORE, &none);
    (void)stack;
    struct { const char *name; void (*f)(void); } ways[] = {
        {"null write", null_write}, {"null call", null_call}, {"undefined", undefined}, {"division", division},
        {"breakpoint", breakpoint}, {"privileged", privileged}, {"non-canonical", noncanonical},
        {"not executable", not_executable}, {"past the file", past_file}, {"misaligned", misaligned_sse},
        {"stack overflow", deep}, {"unmapped code", unmapped_code}, {"abort", abort},
    };
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0) { ways[i].f(); _exit(0); }
        int status;
        waitpid(pid, &status, 0);
        printf("%s: %s %d\n", ways[i].name, WIFSIGNALED(status) ? "signal" : "exit", WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    fflush(stdout);
    null_write();
    return 0;
}
