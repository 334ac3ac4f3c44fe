// Children and threads under load: vfork's shared memory, spawning from threads, fork beside busy threads, robust mutexes, and
// a long mix of fork, exec and signals.
// links: dynamic static
// needs: a real kernel (emulated ones make a vfork child with a copy of the memory)
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static volatile int shared;
static volatile sig_atomic_t chld, usr1;
static void on_child(int s) { (void)s; chld++; }
static void on_usr1(int s) { (void)s; usr1++; }

static int wait_for(pid_t pid) {
    int st;
    pid_t r;
    while ((r = waitpid(pid, &st, 0)) == -1 && errno == EINTR) {}
    if (r != pid) { printf("waitpid %d: %s\n", (int)pid, strerror(errno)); exit(1); }
    return WIFEXITED(st) ? WEXITSTATUS(st) : 1000 + WTERMSIG(st);
}

static void vforks(void) {
    signal(SIGUSR1, on_usr1);
    pid_t pid = vfork();
    if (pid == 0) {
        shared = 17;
        signal(SIGUSR1, SIG_IGN);
        _exit(3);
    }
    printf("vfork exit %d shared %d\n", wait_for(pid), shared);
    raise(SIGUSR1);
    printf("the parent's handler is its own %d\n", usr1);
    pid = vfork();
    if (pid == 0) {
        char *argv[] = {"children", "exit", "44", NULL};
        execv("/nonexistent", argv);
        shared = errno;
        execv("/proc/self/exe", argv);
        _exit(1);
    }
    printf("vfork exec %d, first try %d\n", wait_for(pid), shared == ENOENT);
    pid = vfork();
    if (pid == 0) { kill(getpid(), SIGKILL); _exit(1); }
    printf("vfork killed %d\n", wait_for(pid));
    pid = vfork();
    if (pid == 0) { raise(SIGUSR1); shared = usr1; _exit(0); }
    printf("vfork handler %d %d\n", wait_for(pid), shared);
    char *argv[] = {"children", "exit", "5", NULL};
    int r = posix_spawn(&pid, "/nonexistent", NULL, NULL, argv, environ);
    printf("posix_spawn of nothing %d\n", r == ENOENT);
    posix_spawnattr_t attr;
    sigset_t set;
    sigemptyset(&set); sigaddset(&set, SIGUSR2);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &set);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    char *mask[] = {"children", "mask", NULL};
    r = posix_spawn(&pid, "/proc/self/exe", NULL, &attr, mask, environ);
    printf("posix_spawn %d", r);
    printf(" mask %d\n", wait_for(pid));
}

static void *spawner(void *arg) {
    long bad = 0;
    for (int i = 0; i < 3; i++) {
        pid_t pid;
        char code[8];
        snprintf(code, sizeof code, "%d", 20 + i);
        char *argv[] = {"children", "exit", code, NULL};
        if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ) || wait_for(pid) != 20 + i) bad++;
    }
    (void)arg;
    return (void *)bad;
}

static atomic_int stop;
static atomic_long work;
static void *busy(void *arg) {
    char *block = NULL;
    unsigned seed = (unsigned)(long)arg;
    while (!stop) {
        size_t n = rand_r(&seed) % 5000 + 1;
        block = realloc(block, n);
        memset(block, 1, n);
        if (n % 64 == 0) munmap(mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096);
        work++;
    }
    free(block);
    return NULL;
}

static void threads(void) {
    pthread_t t[4];
    long bad = 0;
    for (long i = 0; i < 3; i++) pthread_create(&t[i], NULL, spawner, NULL);
    for (int i = 0; i < 3; i++) { void *r; pthread_join(t[i], &r); bad += (long)r; }
    printf("spawned from threads, wrong %ld\n", bad);
    for (long i = 0; i < 3; i++) pthread_create(&t[i], NULL, busy, (void *)(i + 1));
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            // malloc, threads and exec must work in a child of a threaded process.
            char *p = malloc(100000);
            memset(p, 7, 100000);
            stop = 0;
            pthread_t q;
            pthread_create(&q, NULL, spawner, NULL);
            if (i % 10 == 0) pthread_join(q, NULL);
            _exit(p[99999] + i % 50);
        }
        if (wait_for(pid) != 7 + i % 50) bad++;
    }
    stop = 1;
    for (int i = 0; i < 3; i++) pthread_join(t[i], NULL);
    printf("forked beside threads, wrong %ld, work %d\n", bad, work > 100);
}

static pthread_mutex_t robust;
static void *dies(void *arg) { (void)arg; pthread_mutex_lock(&robust); return NULL; }
static void robusts(void) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&robust, &a);
    pthread_t t;
    pthread_create(&t, NULL, dies, NULL);
    pthread_join(t, NULL);
    int r = pthread_mutex_lock(&robust);
    printf("owner died %d consistent %d\n", r == EOWNERDEAD, pthread_mutex_consistent(&robust));
    pthread_mutex_unlock(&robust);
}

static void mix(int rounds) {
    struct sigaction a = {.sa_handler = on_child, .sa_flags = SA_RESTART};
    sigaction(SIGCHLD, &a, NULL);
    a.sa_handler = on_usr1;
    sigaction(SIGUSR1, &a, NULL);
    chld = usr1 = 0;
    long sum = 0, lost = 0;
    for (int i = 0; i < rounds; i++) {
        int p[2];
        if (pipe(p)) exit(1);
        pid_t me = getpid(), pid = fork();
        if (pid == 0) {
            kill(me, SIGUSR1);
            close(p[0]);
            unsigned char c = i * 7;
            if (write(p[1], &c, 1) != 1) _exit(99);
            if (i % 20 == 0) {
                char *argv[] = {"children", "exit", "33", NULL};
                execv("/proc/self/exe", argv);
            }
            if (i % 7 == 0) raise(SIGTERM);
            _exit(i & 31);
        }
        close(p[1]);
        unsigned char c;
        if (read(p[0], &c, 1) != 1 || c != (unsigned char)(i * 7)) lost++;
        close(p[0]);
        int code = wait_for(pid), expected = i % 20 == 0 ? 33 : i % 7 == 0 ? 1000 + SIGTERM : i & 31;
        if (code != expected) { lost++; printf("round %d: %d for %d\n", i, code, expected); }
        sum += code;
    }
    printf("mix %ld lost %ld signals %d\n", sum, lost, usr1 == rounds && chld > 0);
}

static void *outlives(void *arg) { (void)arg; usleep(50000); printf("a thread outlives main\n"); return NULL; }

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IONBF, 0);
    if (argc == 3 && !strcmp(argv[1], "exit")) return atoi(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "mask")) { sigset_t m; sigprocmask(SIG_SETMASK, NULL, &m); return sigismember(&m, SIGUSR2) * 2 + sigismember(&m, SIGUSR1); }
    vforks();
    threads();
    robusts();
    mix(getenv("ROUNDS") ? atoi(getenv("ROUNDS")) : 60);
    pthread_t t;
    pthread_create(&t, NULL, outlives, NULL);
    pthread_exit(NULL);
}
