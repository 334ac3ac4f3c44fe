// Processes that run in their parent's memory beside it: clone(CLONE_VM) without CLONE_THREAD and CLONE_VFORK.
// links: dynamic static
// needs: a real kernel (emulated ones refuse it)
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define STACK (256 << 10)
#define CHILDREN 4

static _Atomic int counter, turn, child_tid, parent_tid;
static volatile sig_atomic_t usr1;
static char *stacks[CHILDREN];

static void on_usr1(int signo) { usr1 = signo; }

static int wait_for(pid_t pid) {
    int status;
    while (waitpid(pid, &status, __WALL) != pid) if (errno != EINTR) return -errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static pid_t start(int (*f)(void *), int i, int flags, void *arg) {
    return clone(f, stacks[i] + STACK, flags, arg, &parent_tid, NULL, &child_tid);
}

static int count(void *arg) {
    for (int i = 0; i < 100000; i++) atomic_fetch_add(&counter, 1);
    return 10 + (int)(long)arg;
}

// Parent and child run at the same time: each waits for the other.
static int ping(void *arg) {
    for (int i = 0; i < 200; i++) {
        while (turn != 1) syscall(SYS_futex, &turn, FUTEX_WAIT, 0, NULL, NULL, 0);
        turn = 0;
        syscall(SYS_futex, &turn, FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    return 0;
}

static int own_handler(void *arg) { signal(SIGUSR1, SIG_IGN); return 21; }
static int spin(void *arg) { turn = 7; for (;;) counter++; }
static int fault(void *arg) { *(volatile int *)16 = 1; return 0; }
static int run(void *arg) { execl("/bin/true", "true", NULL); execl("/usr/bin/true", "true", NULL); return 22; }
static int run_nothing(void *arg) { execl("/nonexistent", "x", NULL); return errno == ENOENT ? 23 : 24; }
static int leave(void *arg) { _exit(getpid() != getppid() && syscall(SYS_gettid) == getpid() ? 25 : 26); }

// New code, made and run in the child, then in the parent.
static unsigned char *code;
static int generate(void *arg) {
    memcpy(code, (unsigned char[]){0xb8, 33, 0, 0, 0, 0xc3}, 6);
    return ((int (*)(void))code)();
}

// Threads of the calling process, without an allocation: a child of vfork asks.
static int threads(void) {
    static char entries[4096];
    int fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY), count = -2;
    long n;
    while ((n = syscall(SYS_getdents64, fd, entries, sizeof entries)) > 0) {
        for (long at = 0; at < n; at += *(unsigned short *)(entries + at + 16)) count++;
    }
    close(fd);
    return count;
}

static int busy(void *arg) {
    for (int i = 0; i < 300000; i++) counter = counter * 5 + i;
    return threads();
}

int main(void) {
    // The first to run anything for long is a child that shares the memory: nothing of the translator's may belong to it alone.
    pid_t first = vfork();
    if (first == 0) _exit(busy(NULL));
    printf("threads of a child of vfork %d\n", wait_for(first));
    counter = 0;
    setvbuf(stdout, NULL, _IONBF, 0);
    for (int i = 0; i < CHILDREN; i++) stacks[i] = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    pid_t pids[CHILDREN];
    for (int round = 0; round < 10; round++) {
        for (long i = 0; i < CHILDREN; i++) pids[i] = start(count, i, CLONE_VM | SIGCHLD, (void *)i);
        int sum = 0;
        for (int i = 0; i < CHILDREN; i++) sum += wait_for(pids[i]);
        if (sum != 46) printf("statuses %d\n", sum);
    }
    printf("counter %d\n", counter);

    pid_t pid = start(ping, 0, CLONE_VM | SIGCHLD, NULL);
    for (int i = 0; i < 200; i++) {
        turn = 1;
        syscall(SYS_futex, &turn, FUTEX_WAKE, 1, NULL, NULL, 0);
        while (turn != 0) syscall(SYS_futex, &turn, FUTEX_WAIT, 1, NULL, NULL, 0);
    }
    printf("ping %d\n", wait_for(pid));

    // Ids; the tid word is cleared, and whoever waits for it is woken.
    pid = start(leave, 0, CLONE_VM | CLONE_FILES | CLONE_FS | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | SIGCHLD, NULL);
    for (int tid; (tid = child_tid) != 0 || parent_tid == 0;) syscall(SYS_futex, &child_tid, FUTEX_WAIT, tid, NULL, NULL, 0);
    printf("ids %d %d\n", wait_for(pid), parent_tid == pid);

    signal(SIGUSR1, on_usr1);
    printf("handlers of its own %d\n", wait_for(start(own_handler, 0, CLONE_VM | SIGCHLD, NULL)));
    raise(SIGUSR1);
    printf("handler %d\n", usr1 == SIGUSR1);
    usr1 = 0;
    printf("shared handlers %d\n", wait_for(start(own_handler, 0, CLONE_VM | CLONE_SIGHAND | SIGCHLD, NULL)));
    raise(SIGUSR1);
    printf("handler %d\n", usr1);

    pid = start(spin, 0, CLONE_VM | SIGCHLD, NULL);
    while (turn != 7) sched_yield();
    kill(pid, SIGKILL);
    printf("killed %d\n", wait_for(pid));
    printf("faulted %d\n", wait_for(start(fault, 0, CLONE_VM | SIGCHLD, NULL)));
    printf("executed %d\n", wait_for(start(run, 0, CLONE_VM | SIGCHLD, NULL)));
    printf("executed nothing %d\n", wait_for(start(run_nothing, 0, CLONE_VM | SIGCHLD, NULL)));
    printf("without a signal %d\n", wait_for(start(count, 0, CLONE_VM, (void *)1)));
    printf("generated %d\n", wait_for(start(generate, 0, CLONE_VM | SIGCHLD, NULL)));
    printf("generated %d\n", ((int (*)(void))code)());
    pid = start(count, 0, CLONE_SIGHAND, NULL);
    printf("refused %d %s\n", pid, strerror(errno));
    return 0;
}
