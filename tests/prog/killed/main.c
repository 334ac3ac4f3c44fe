// Children in their parent's memory that are killed at any moment while they make code, and parents that go on making code. Where
// a child took the translator's locks with it, its parent may be killed, too, but not hang.
// links: dynamic static
// needs: a real kernel (emulated ones give the child a copy)
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES 6
#define CHILDREN 150
#define LONGEST_MS 40000
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)

// A function that yields n, written to memory of its own; -1 without memory.
static int generate(int n) {
    unsigned char *code = mmap(NULL, 4096, RWX, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (code == MAP_FAILED) return -1;
    for (int i = 0; i < 4096; i += 16) memcpy(code + i, (unsigned char[]){0xb8, n, 0, 0, 0, 0xc3}, 6);
    int result = 0;
    for (int i = 0; i < 4096; i += 64) result |= ((int (*)(void))(code + i))();
    munmap(code, 4096);
    return result;
}

static volatile pid_t child;

static void *killer(void *arg) {
    unsigned seed = getpid();
    for (;;) {
        pid_t victim = child;
        nanosleep(&(struct timespec){0, rand_r(&seed) % 400000}, NULL);
        if (victim == 0) continue;
        kill(victim, SIGKILL);
        while (child == victim) usleep(10);
    }
    return NULL;
}

static void work(void) {
    child = getpid();
    for (int n = 0;; n++) generate(n % 100);
}

// Has children killed, one after the other.
static int parent(void) {
    pthread_t thread;
    int killed = 0, status;
    pthread_create(&thread, NULL, killer, NULL);
    for (int i = 0; i < CHILDREN; i++) {
        pid_t pid = vfork();
        if (pid == 0) work();
        child = 0;
        if (generate(i % 100) != i % 100) return 1;
        killed += waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
    }
    return killed != CHILDREN;
}

static long ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int main(int argc, char **argv) {
    int processes = argc > 1 && atoi(argv[1]) ? atoi(argv[1]) : PROCESSES, left = processes, wrong = 0, gone = 0, status;
    for (int i = 0; i < processes; i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            _exit(parent());
        }
    for (long start = ms(); left > 0 && ms() - start < LONGEST_MS;) {
        if (waitpid(-1, &status, WNOHANG) <= 0) {
            usleep(1000);
            continue;
        }
        left--;
        gone += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
        wrong += status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    printf("wrong %d, hung %d\n", wrong, left);
    if (argc > 2 && !strcmp(argv[2], "tell")) printf("gone %d\n", gone);
    return 0;
}
