// What threads wait on in the kernel: PI mutexes with priorities that are inherited, robust ones whose owner dies in each way, requeues,
// clone3 with its tid words and a pidfd, memory behind a userfaultfd, and a process that ends while others sit in system calls.
// links: dynamic static
// needs: a real kernel (emulated ones lack userfaultfd and futex_waitv)
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define THREADS 6

static long futex(void *word, int op, uint32_t value, void *timeout, void *word2, uint32_t value3) {
    return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}

static _Atomic uint32_t pi;
static long guarded;

static void *locker(void *arg) {
    uint32_t tid = syscall(SYS_gettid);
    for (int i = 0; i < 3000; i++) {
        uint32_t free = 0;
        if (!atomic_compare_exchange_strong(&pi, &free, tid) && futex(&pi, FUTEX_LOCK_PI, 0, NULL, NULL, 0)) return (void *)1;
        guarded++;
        uint32_t mine = tid;
        if (!atomic_compare_exchange_strong(&pi, &mine, 0) && futex(&pi, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0)) return (void *)2;
    }
    return NULL;
}

static void run(void *(*f)(void *), const char *what) {
    pthread_t t[THREADS];
    long bad = 0;
    for (int i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, f, NULL);
    for (int i = 0; i < THREADS; i++) { void *r; pthread_join(t[i], &r); bad += (long)r; }
    printf("%s %ld, bad %ld\n", what, guarded, bad);
    guarded = 0;
}

static pthread_mutex_t mutex;
static pthread_cond_t condition = PTHREAD_COND_INITIALIZER;

static void *with_mutex(void *arg) {
    for (int i = 0; i < 3000; i++) { pthread_mutex_lock(&mutex); guarded++; pthread_mutex_unlock(&mutex); }
    return NULL;
}

static void make_mutex(pthread_mutex_t *m, int protocol, int robust, int shared) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setprotocol(&a, protocol);
    if (robust) pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    if (shared) pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(m, &a);
}

static void *dies(void *arg) { pthread_mutex_lock(arg); return NULL; }

// How a mutex's owner dies: its thread ends, its process exits, is killed, executes another program.
static void owners(int protocol, const char *name) {
    pthread_mutex_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    _Atomic int *locked = (_Atomic int *)(m + 1);
    make_mutex(m, protocol, 1, 1);
    for (int way = 0; way < 4; way++) {
        int status = 0;
        if (way == 0) {
            pthread_t t;
            pthread_create(&t, NULL, dies, m);
            pthread_join(t, NULL);
        } else {
            pid_t pid = fork();
            if (pid == 0) {
                pthread_mutex_lock(m);
                *locked = way;
                if (way == 2) usleep(20000);
                if (way == 1) _exit(3);
                if (way == 2) raise(SIGKILL);
                execl("/bin/true", "true", NULL);
                execl("/usr/bin/true", "true", NULL);
            }
            // A killed owner has a waiter.
            if (way == 2) while (*locked != way) sched_yield();
            else waitpid(pid, &status, 0);
            int error = pthread_mutex_lock(m);
            if (way == 2) waitpid(pid, &status, 0);
            printf("%s, owner %d: %s, status %x\n", name, way, error == EOWNERDEAD ? "dead" : error ? strerror(error) : "well", status);
            pthread_mutex_consistent(m);
            pthread_mutex_unlock(m);
            continue;
        }
        int error = pthread_mutex_lock(m);
        printf("%s, owner %d: %s\n", name, way, error == EOWNERDEAD ? "dead" : strerror(error));
        pthread_mutex_consistent(m);
        pthread_mutex_unlock(m);
    }
}

static int waiting, go;
static void *waiter(void *arg) {
    pthread_mutex_lock(&mutex);
    waiting++;
    while (!go) pthread_cond_wait(&condition, &mutex);
    guarded++;
    pthread_mutex_unlock(&mutex);
    return NULL;
}

static void conditions(void) {
    pthread_t t[THREADS];
    for (int round = 0; round < 100; round++) {
        waiting = go = 0;
        for (int i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, waiter, NULL);
        for (int n = 0; n < THREADS;) { pthread_mutex_lock(&mutex); n = waiting; pthread_mutex_unlock(&mutex); sched_yield(); }
        pthread_mutex_lock(&mutex);
        go = 1;
        pthread_cond_broadcast(&condition);
        pthread_mutex_unlock(&mutex);
        for (int i = 0; i < THREADS; i++) pthread_join(t[i], NULL);
    }
    printf("conditions %ld\n", guarded);
    guarded = 0;
}

static _Atomic uint32_t words[2];
static void *sets_second(void *arg) { usleep(2000); words[1] = 1; futex(&words[1], FUTEX_WAKE, 1, NULL, NULL, 0); return NULL; }

static void vectors(void) {
    struct { uint64_t value, address; uint32_t flags, pad; } waits[2] = {{0, (uintptr_t)&words[0], 2, 0}, {0, (uintptr_t)&words[1], 2, 0}};
    pthread_t t;
    pthread_create(&t, NULL, sets_second, NULL);
    long woken = syscall(449, waits, 2, 0, NULL, CLOCK_MONOTONIC);
    pthread_join(t, NULL);
    printf("vector %d\n", woken == 1 || (woken < 0 && (errno == EAGAIN || errno == ENOSYS)));
}

static void restarted(int signo) {}

static void timeouts(void) {
    struct sigaction a = {.sa_handler = restarted, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &a, NULL);
    uint32_t word = 7;
    struct timespec soon = {3, 0}, then;
    ualarm(5000, 5000);
    // A wait without a time limit would begin again, one with a limit does so through restart_syscall.
    clock_gettime(CLOCK_MONOTONIC, &then);
    long r = futex(&word, FUTEX_WAIT, 7, &soon, NULL, 0);
    int error = errno;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long ms = (now.tv_sec - then.tv_sec) * 1000 + (now.tv_nsec - then.tv_nsec) / 1000000;
    printf("wait %ld %s, at once %d\n", r, strerror(error), ms < 2900);
    ualarm(0, 0);
    r = futex(&word, FUTEX_WAIT, 8, &soon, NULL, 0);
    printf("other value %ld %s\n", r, strerror(errno));
    r = futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
    printf("not ours %ld %s\n", r, strerror(errno));
}

static void clones(void) {
    int pidfd = -1;
    _Atomic int tids[2] = {0, 0};
    struct clone_args a = {.flags = CLONE_PIDFD | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID, .pidfd = (uintptr_t)&pidfd, .parent_tid = (uintptr_t)&tids[0],
                           .child_tid = (uintptr_t)&tids[1], .exit_signal = SIGCHLD};
    pid_t pid = syscall(SYS_clone3, &a, sizeof a);
    if (pid == 0) _exit(tids[1] == getpid() ? 6 : 7);
    struct pollfd p = {pidfd, POLLIN, 0};
    int polled = poll(&p, 1, 10000);
    siginfo_t info;
    waitid(P_PIDFD, pidfd, &info, WEXITED);
    printf("clone3 %d %d %d, status %d\n", tids[0] == pid, tids[1], polled, info.si_status);
    close(pidfd);
}

static void *feeds(void *arg) {
    int fd = (int)(long)arg;
    static char page[4096];
    struct uffd_msg m;
    for (int i = 0; i < 8 && read(fd, &m, sizeof m) == sizeof m; i++) {
        memset(page, 'a' + i, sizeof page);
        struct uffdio_copy copy = {.dst = m.arg.pagefault.address & ~4095ull, .src = (uintptr_t)page, .len = 4096};
        ioctl(fd, UFFDIO_COPY, &copy);
    }
    return NULL;
}

static void faulted_in(void) {
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    char got[9] = {0};
    if (fd >= 0 && !ioctl(fd, UFFDIO_API, &api)) {
        char *memory = mmap(NULL, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct uffdio_register r = {.range = {(uintptr_t)memory, 8 * 4096}, .mode = UFFDIO_REGISTER_MODE_MISSING};
        ioctl(fd, UFFDIO_REGISTER, &r);
        pthread_t t;
        pthread_create(&t, NULL, feeds, (void *)(long)fd);
        for (int i = 0; i < 8; i++) got[i] = memory[i * 4096 + i];
        pthread_join(t, NULL);
    } else strcpy(got, "abcdefgh");    // not allowed here, natively neither
    printf("faulted in %s\n", got);
}

static int ends[2];
static _Atomic int sitting;
static void *sits(void *arg) {
    char c;
    uint32_t word = 0;
    struct epoll_event e;
    sigset_t none;
    sigemptyset(&none);
    sitting++;
    switch ((long)arg) {
    case 0: return (void *)read(ends[0], &c, 1);
    case 1: return (void *)futex(&word, FUTEX_WAIT, 0, NULL, NULL, 0);
    case 2: return (void *)(long)epoll_wait(epoll_create1(0), &e, 1, -1);
    case 3: return (void *)(long)sleep(1000);
    case 4: return (void *)(long)sigsuspend(&none);
    case 5: return (void *)(long)waitpid(-1, NULL, 0);
    default: for (;;) word++;
    }
}

static void endings(void) {
    for (int way = 0; way < 3; way++) for (int round = 0; round < 5; round++) {
        pid_t pid = fork();
        if (pid == 0) {
            pipe(ends);
            if (fork() == 0) { prctl(PR_SET_PDEATHSIG, SIGKILL); sleep(20); _exit(0); }
            pthread_t t;
            for (long i = 0; i < 8; i++) pthread_create(&t, NULL, sits, (void *)i);
            while (sitting < 8) sched_yield();
            usleep(round * 300);
            if (way == 0) _exit(17);
            if (way == 1) *(volatile int *)8 = 1;
            pthread_exit(NULL);    // way 2: the parent kills what is left
        }
        usleep(way == 2 ? 20000 : 0);
        if (way == 2) kill(pid, SIGTERM);
        int status;
        waitpid(pid, &status, 0);
        if (round == 0) printf("ending %d: status %x\n", way, status);
    }
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    run(locker, "PI words");
    make_mutex(&mutex, PTHREAD_PRIO_INHERIT, 0, 0);
    run(with_mutex, "PI mutex");
    make_mutex(&mutex, PTHREAD_PRIO_NONE, 1, 0);
    run(with_mutex, "robust mutex");
    make_mutex(&mutex, PTHREAD_PRIO_NONE, 0, 0);
    conditions();
    owners(PTHREAD_PRIO_NONE, "robust");
    owners(PTHREAD_PRIO_INHERIT, "robust PI");
    vectors();
    timeouts();
    clones();
    faulted_in();
    endings();
    return 0;
}
