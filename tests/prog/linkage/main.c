// Linkage stubs, as dynamic linkers use them: slots that change, once and often, while another thread calls through them and timers
// interrupt it; slots that cannot be read.
// links: dynamic static
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

// Each stub has its slot; the slot of `unread` has a page of its own. RCX is an argument, and what a function returns depends on it.
asm(".text\n"
    ".macro stub name\n"
    ".globl \\name, \\name\\()_slot\n"
    ".p2align 4\n"
    "\\name: endbr64; jmp *\\name\\()_slot(%rip)\n"
    ".endm\n"
    "stub once; stub often; stub unread\n"
    ".p2align 4\n plain: jmp *often_slot(%rip)\n"
    ".p2align 4\n one: lea 1(%rcx), %rax; ret\n"
    ".p2align 4\n two: lea 2(%rcx), %rax; ret\n"
    ".p2align 4\n three: lea 3(%rcx), %rax; ret\n"
    ".data\n .p2align 3\n once_slot: .quad one\n often_slot: .quad one\n"
    ".p2align 12\n unread_slot: .quad one\n .p2align 12\n .quad 0\n"
    ".text\n");
extern char once[], often[], unread[], plain[], one[], two[], three[];
extern char *volatile once_slot, *volatile often_slot, *volatile unread_slot;

static long call(char *stub, long rcx) {
    long rax;
    asm volatile("sub $128, %%rsp; call *%2; add $128, %%rsp" : "=a"(rax), "+c"(rcx) : "r"(stub) : "memory", "cc");
    return rax - rcx;
}

static volatile long ticks, faults, fault_is_right;
static volatile int done;

static void tick(int s) { (void)s; ticks++; }

static void fault(int s, siginfo_t *info, void *context) {
    (void)s;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    faults++;
    fault_is_right += r[REG_RIP] == (greg_t)unread + 4 && r[REG_RCX] == 0x1234 && info->si_addr == (void *)&unread_slot;
    mprotect((void *)&unread_slot, 4096, PROT_READ | PROT_WRITE);
}

static void *change(void *unused) {
    char *const targets[] = {one, two, three};
    for (unsigned i = 0; !done; i++) often_slot = targets[i % 3];
    return unused;
}

int main(void) {
    char *const targets[] = {one, two, three};
    long sum = 0;
    for (int i = 0; i < 1000; i++) sum += call(once, i);
    once_slot = two;
    for (int i = 0; i < 1000; i++) sum += call(once, i);
    printf("once: %ld\n", sum);

    sum = 0;
    for (int i = 0; i < 3000; i++) {
        often_slot = targets[i / 7 % 3];
        sum += (call(often, i) == i / 7 % 3 + 1) + (call(plain, -i) == i / 7 % 3 + 1);
    }
    printf("often: %ld\n", sum);

    struct sigaction action = {.sa_sigaction = fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    sum = 0;
    for (int i = 0; i < 50; i++) {
        sum += call(unread, 0x1234);
        mprotect((void *)&unread_slot, 4096, PROT_NONE);
        sum += call(unread, 0x1234);
        unread_slot = targets[(i + 1) % 2];
    }
    printf("unread: %ld, faults %ld, right %ld\n", sum, faults, fault_is_right);

    struct sigaction ticking = {.sa_handler = tick, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &ticking, NULL);
    pthread_t thread;
    pthread_create(&thread, NULL, change, NULL);
    struct itimerval every = {{0, 200}, {0, 200}};
    setitimer(ITIMER_REAL, &every, NULL);
    long wrong = 0;
    for (long i = 0; ticks < 300; i++) {
        long by = call(often, i), same = call(once, i);
        wrong += by < 1 || by > 3 || same != 2;
    }
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    done = 1;
    pthread_join(thread, NULL);
    printf("threads: wrong %ld\n", wrong);
}
