// Returns where translators predict them: to other places than calls came from, through stacks that cannot be written to, with the
// registers and the dead stack that a processor leaves.
// links: dynamic static
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

uint64_t below(void);        // what is below the stack pointer behind a return, less the return address
uint64_t chain(void *stack); // returns through `stack`, whose last word leads back
uint64_t pops(void);         // a call whose return takes 16 bytes of arguments
uint64_t drops(uint64_t n);  // returns that take arguments, some of them out of calls; the dead stack behind them, and carries through them
uint64_t switches(uint64_t n); // coroutines: each return leads into the other one
uint64_t r11(uint64_t n);    // counts in R11 through calls, returns and computed jumps
uint64_t flags(uint64_t n);  // carries through returns
uint64_t partial(uint64_t n);  // R11 by parts, and conditionally

__asm__(
    ".text\n"
    ".globl below, chain, pops, switches, r11, flags, partial, many, deep\n"
    "below: call 1f\n"
    "2:  mov -8(%rsp), %rax\n lea 2b(%rip), %rcx\n sub %rcx, %rax\n ret\n"
    "1:  ret\n"

    "chain: mov %rsp, %rdx\n xor %eax, %eax\n mov %rdi, %rsp\n ret\n"
    ".globl link1, link2, link3, link4, link5\n"
    "link1: add $1, %rax\n ret\n"
    "link2: imul $3, %rax\n ret\n"
    "link3: mov %rdx, %rsp\n ret\n"
    "link4: add $7, %rax\n ret $8\n"
    "link5: add $11, %rax\n ret $0x1000\n"

    "pops: mov %rsp, %rdx\n push $5\n push $7\n call 1f\n sub %rsp, %rdx\n lea (%rax,%rdx), %rax\n ret\n"
    "1:  mov 8(%rsp), %rax\n imul 16(%rsp), %rax\n ret $16\n"

    "drops: push %rbx\n push %rbp\n mov %rdi, %rbx\n xor %eax, %eax\n"
    "1:  lea (,%rbx,4), %rcx\n push %rbx\n push %rcx\n bt $0, %rbx\n call 3f\n"
    "2:  adc %rax, %rax\n mov -24(%rsp), %rcx\n lea 2b(%rip), %rdx\n sub %rdx, %rcx\n add %rcx, %rax\n"
    "    xor -8(%rsp), %rax\n mov -16(%rsp), %rcx\n lea (%rax,%rcx,8), %rax\n"
    "    push %rbx\n call 6f\n5:  rol $7, %rax\n mov -16(%rsp), %rcx\n lea 5b(%rip), %rdx\n sub %rdx, %rcx\n"
    "    add %rcx, %rax\n"
    "    dec %rbx\n jnz 1b\n pop %rbp\n pop %rbx\n ret\n"
    "3:  push 16(%rsp)\n call 4f\n ret $16\n"
    "4:  lea 1(%rax), %rax\n ret $8\n"
    "6:  test $3, %bl\n jz 7f\n sub $16, %rsp\n push %rax\n call 4b\n add $16, %rsp\n ret $8\n"
    "7:  pop %rcx\n mov %rcx, (%rsp)\n ret\n" // the same call, and a return that takes nothing

    "switches: xor %eax, %eax\n"
    "1:  call 2f\n add $1, %rax\n dec %rdi\n jnz 1b\n ret\n"
    "2:  lea 3f(%rip), %rcx\n push %rcx\n ret\n" // a return as a jump
    "3:  add $2, %rax\n ret\n"

    "r11: push %rbx\n xor %r11d, %r11d\n"
    "1:  call 2f\n"
    "    lea 4f(%rip), %rbx\n jmp *%rbx\n"
    "4:  lea 2f(%rip), %rbx\n call *%rbx\n"
    "    lea 5f(%rip), %r11\n xchg %r11, %rbx\n call *%rbx\n"
    "    mov %rbx, %r11\n"
    "    dec %rdi\n jnz 1b\n mov %r11, %rax\n pop %rbx\n ret\n"
    "2:  add $1, %r11\n ret\n"
    "5:  mov %r11, %rbx\n sub %rbx, %r11\n sub $2, %r11\n neg %r11\n"   // 2 in R11, the function in RBX
    "    push %r11\n xor %r11d, %r11d\n pop %rbx\n lea (%r11,%rbx), %rbx\n ret\n"

    "flags: xor %eax, %eax\n"
    "1:  bt $0, %rdi\n call 2f\n adc %rax, %rax\n xor %rdi, %rax\n dec %rdi\n jnz 1b\n ret\n"
    "2:  lea 3f(%rip), %rcx\n jmp *%rcx\n"
    "3:  ret\n"

    "partial: mov $0x1122334455667788, %r11\n"
    "1:  mov %dil, %r11b\n call 2f\n mov %di, %r11w\n call 2f\n"
    "    cmp $50, %rdi\n cmove %rdi, %r11\n cmovb %r11, %rax\n"
    "    setc %r11b\n bswap %r11\n call 2f\n mov %r11d, %r11d\n rol $9, %r11\n xadd %rax, %r11\n"
    "    dec %rdi\n jnz 1b\n add %r11, %rax\n ret\n"
    "2:  ret\n");

extern char link1[], link2[], link3[], link4[], link5[];

// Three hundred return addresses: more than any table has slots for.
uint64_t many(uint64_t n);
uint64_t deep(uint64_t n);
__asm__("many: mov %rdi, %rax\n .rept 300\n call 2f\n lea 1(%rax,%rax), %rax\n .endr\n ret\n"
        "2: rol $1, %rax\n ret\n"
        "deep: mov %rdi, %rax\n test %rdi, %rdi\n jz 1f\n dec %rdi\n push %rdi\n call deep\n pop %rdi\n add %rdi, %rax\n"
        "    test $1, %dil\n jz 1f\n call 1f\n .rept 60\n nop\n .endr\n"
        "1:  ret\n");

static volatile sig_atomic_t arrived;
static void on_alarm(int sig) {
  arrived = sig;
}

int main(void) {
  printf("below %ld\n", (long)below());

  uint64_t *page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint64_t *stack = page + 512;
  uint64_t plain[7];
  for (int i = 0; i < 6; i++)
    plain[i] = (uint64_t)(i & 1 ? link2 : link1);
  plain[6] = (uint64_t)link3;
  memcpy(stack, plain, sizeof plain);
  printf("chain %ld\n", (long)chain(stack));
  mprotect(page, 8192, PROT_READ);
  printf("chain that cannot be written to %ld\n", (long)chain(stack));
  mprotect(page, 8192, PROT_READ | PROT_WRITE);
  uint64_t dropping[] = {(uint64_t)link4, (uint64_t)link4, 1, (uint64_t)link1, 2, (uint64_t)link4, (uint64_t)link3, 3};
  memcpy(stack, dropping, sizeof dropping);
  printf("chain that drops %ld, ", (long)chain(stack));
  printf("%s\n", memcmp(stack, dropping, sizeof dropping) ? "changed" : "unchanged");
  mprotect(page, 8192, PROT_READ);
  printf("chain that drops and cannot be written to %ld\n", (long)chain(stack));
  mprotect(page, 8192, PROT_READ | PROT_WRITE);
  page[510] = (uint64_t)link5, page[511] = (uint64_t)link3;
  mprotect(stack, 4096, PROT_NONE);
  printf("chain that drops what is not there %ld\n", (long)chain(page + 510));
  mprotect(page, 8192, PROT_READ | PROT_WRITE);
  memcpy(stack, plain, sizeof plain);
  mprotect(page, 8192, PROT_READ);
  munmap(page, 4096);
  printf("chain with nothing below %ld\n", (long)chain(stack));

  signal(SIGALRM, on_alarm);
  struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
  for (int storm = 0; storm < 2; storm++) {
    if (storm)
      setitimer(ITIMER_REAL, &often, 0);
    printf("pops %ld\n", (long)pops());
    uint64_t sum = 0;
    for (int i = 0; i < 20; i++)
      sum = sum * 31 + switches(100) + r11(100) + flags(1000) + partial(100) + many(i) + deep(200) + drops(100);
    printf("%lx %lx %lx %lx\n", (long)sum, (long)r11(100), (long)partial(100), (long)drops(100));
    for (uint64_t i = 0; storm && i < 200; i++)
      if (r11(100) != r11(100) || flags(1000) != flags(1000) || partial(100) != partial(100) || below() || many(i) != many(i) ||
          drops(1000) != drops(1000))
        printf("differs\n");
  }
  setitimer(ITIMER_REAL, &never, 0);
  printf("signals %s\n", arrived ? "arrived" : "missing");
  return 0;
}
