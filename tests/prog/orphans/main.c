// Children of vfork that outlive their parent, whose threads were at work when it ended.
// links: dynamic static
// needs: a real kernel (emulated ones give the child a copy)
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 12
#define HAMMERS 3
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

static int ends[2];
static volatile int born;

// A function that yields n, written to memory of its own; -1 without memory.
static int generate(int n) {
    unsigned char *code = mmap(NULL, 4096, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) return -1;
    memcpy(code, (unsigned char[]){0xb8, n, 0, 0, 0, 0xc3}, 6);
    int result = ((int (*)(void))code)();
    mprotect(code, 4096, PROT_READ);
    munmap(code, 4096);
    return result;
}

static void *hammer(void *arg) {
    for (;;) if (generate(7) != 7) abort();
}

// Sleeps until its parent is gone for good, makes new code, and executes a program that says so.
static void outlive(void) {
    born = 1;
    nanosleep(&(struct timespec){1, 300000000}, NULL);
    int well = 1;
    for (int i = 0; i < 20; i++) well &= generate(i) == i;
    char fd[] = {'0' + ends[1] / 10, '0' + ends[1] % 10, 0};
    char *args[] = {"orphans", "tell", fd, NULL};
    if (well) execv("/proc/self/exe", args);
    _exit(1);
}

static void *make_child(void *arg) {
    if (vfork() == 0) outlive();
    return NULL;
}

// A process with threads in all kinds of places, which ends in one of these ways.
static void parent(int how) {
    pthread_t thread;
    for (int i = 0; i < HAMMERS; i++) pthread_create(&thread, NULL, hammer, NULL);
    usleep(20000);
    pthread_create(&thread, NULL, make_child, NULL);
    while (!born) usleep(1000);
    usleep(how * 1000);
    char *args[] = {"orphans", "end", NULL};
    if (how % 3 == 1) execv("/proc/self/exe", args);
    if (how % 3 == 2) *(volatile int *)8 = 1;
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "tell")) return write(atoi(argv[2]), "x", 1) != 1;
    if (argc == 2 && !strcmp(argv[1], "end")) return 0;
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    if (pipe(ends) || prctl(PR_SET_CHILD_SUBREAPER, 1)) return 1;
    for (int i = 0; i < ROUNDS; i++) if (fork() == 0) parent(i);
    close(ends[1]);
    int told = 0, parents = 0, status;
    char byte;
    while (poll(&(struct pollfd){ends[0], POLLIN, 0}, 1, 100000) == 1 && read(ends[0], &byte, 1) == 1) told++;
    printf("children %d\n", told);
    // Children that hang are left behind.
    pid_t pid;
    while ((pid = waitpid(-1, &status, told == ROUNDS ? 0 : WNOHANG)) > 0) parents += WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
    printf("parents that died by a fault %d\n", parents);
    return 0;
}
