// Code far from everything else, with every kind of control transfer, under a storm of signals: what translators rewrite.
// links: dynamic static
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>

// uint64_t blob(uint64_t rounds): position-independent, with data of its own; keeps its flags across calls.
__asm__(
    ".text\n"
    ".globl blob, blob_end\n"
    "blob:\n"
    "  push %rbx\n push %rbp\n push %r12\n push %r13\n"
    "  mov %rdi, %r12\n"
    "  xor %ebx, %ebx\n"
    "1:\n"
    "  lea table(%rip), %rbp\n"
    "  mov constant(%rip), %rax\n"      // operand relative to RIP
    "  add %rax, counter(%rip)\n"       // and as a destination
    "  lea leaf(%rip), %rax\n"
    "  mov %rax, pointer(%rip)\n"
    "  mov %r12, %rdi\n"
    "  call leaf\n"
    "  add %rax, %rbx\n"
    "  call *pointer(%rip)\n"           // indirect, through memory relative to RIP
    "  adc %rax, %rbx\n"
    "  stc\n"
    "  call keeps\n"                    // carry goes in and comes out
    "  adc $0, %rbx\n"
    "  mov %r12d, %eax\n"
    "  and $3, %eax\n"
    "  movslq (%rbp,%rax,4), %rax\n"
    "  add %rbp, %rax\n"
    "  jmp *%rax\n"                     // a jump table
    "case0: add $1, %rbx\n jmp 2f\n"
    "case1: xor $0x55, %rbx\n jmp 2f\n"
    "case2: rol $7, %rbx\n jmp 2f\n"
    "case3: mov $5, %ecx\n"
    "3:  lea 3(%rbx), %rbx\n loop 3b\n"
    "  jrcxz 2f\n"
    "  ud2\n"
    "2:\n"
    "  lea pops(%rip), %rcx\n"
    "  push %r12\n push %r12\n"
    "  call *%rcx\n"                    // returns with ret 16
    "  add %rax, %rbx\n"
    "  mov %rsp, %r13\n"
    "  lea 4f(%rip), %rax\n"
    "  push %rax\n"
    "  ret\n"                           // a return without a call
    "  ud2\n"
    "4: cmp %rsp, %r13\n"
    "  jne 5f\n"
    "  dec %r12\n"
    "  jnz 1b\n"
    "  mov counter(%rip), %rax\n"
    "  add %rbx, %rax\n"
    "  pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n"
    "  ret\n"
    "5: ud2\n"
    "leaf: lea 1(%rdi,%rdi,2), %rax\n ret\n"
    "keeps: ret\n"
    "pops: mov 8(%rsp), %rax\n imul $3, %rax\n ret $16\n"
    "  .balign 8\n"
    "table: .long case0 - table, case1 - table, case2 - table, case3 - table\n"
    "constant: .quad 0x123456789abcdef\n"
    "counter: .quad 0\n"
    "pointer: .quad 0\n"
    "blob_end:\n");

extern char blob[], blob_end[];
static volatile unsigned long signals_seen;

static void on_alarm(int signo)
{
    (void)signo;
    signals_seen++;
}

static uint64_t run_at(void *place)
{
    size_t size = (size_t)(blob_end - blob);
    void *code = mmap(place, 2 * 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (code != place)
        return 0;
    // Across a page's end.
    char *start = (char *)code + 4096 - size / 2;
    memcpy(start, blob, size);
    uint64_t result = ((uint64_t(*)(uint64_t))start)(20000);
    munmap(code, 2 * 4096);
    return result;
}

int main(void)
{
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &often, NULL);
    static const uint64_t places[] = {0x50000000, 0x7000000000, 0x200000000000, 0x3c0000000000};
    for (int round = 0; round < 3; round++)
        for (size_t i = 0; i < sizeof places / sizeof *places; i++)
            printf("%#lx: %016lx\n", places[i], run_at((void *)places[i]));
    struct itimerval never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &never, NULL);
    puts(signals_seen ? "signals arrived" : "no signal arrived");
    return 0;
}
