// Threads: mutexes, condition variables, atomics, thread-local storage, join and detach, cancellation points.
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 5000 };
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;
static long guarded, whose;
static atomic_long counter, minimum = 1 << 30;
static _Atomic unsigned __int128 wide;
static __thread long mine;
static sem_t sem;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static atomic_int initialised, spins;
static void init(void) { initialised++; }

static void *worker(void *arg) {
    long id = (long)arg;
    pthread_once(&once, init);
    for (int i = 0; i < ROUNDS; i++) {
        atomic_fetch_add(&counter, 1);
        pthread_mutex_lock(&lock); guarded += id; pthread_mutex_unlock(&lock);
        mine += i;
        long old = atomic_load(&minimum);
        while (old > i - id && !atomic_compare_exchange_weak(&minimum, &old, i - id)) spins++;
    }
    for (int i = 0; i < 20; i++) {
        pthread_mutex_lock(&lock);
        while (whose != id) pthread_cond_wait(&turn, &lock);
        whose = (whose + 1) % THREADS;
        pthread_cond_broadcast(&turn);
        pthread_mutex_unlock(&lock);
    }
    sem_post(&sem);
    return (void *)(mine + id);
}

// Who the user is, is a matter of each thread on Linux: the C library takes a change to all others by a signal.
static void *changes_user(void *arg) {
    sem_post(&sem);
    sem_wait(arg);
    return (void *)(long)setuid(getuid());
}

static void users(void) {
    pthread_t t;
    sem_t go;
    void *theirs;
    sem_init(&go, 0, 0);
    pthread_create(&t, NULL, changes_user, &go);
    sem_wait(&sem);
    printf("setgid %d, ", setgid(getgid()));
    sem_post(&go);
    pthread_join(t, &theirs);
    printf("setuid %ld\n", (long)theirs);
}

static void *quick(void *arg) { atomic_fetch_add(&counter, (long)arg); return NULL; }

// A process whose threads end one by one, without exit_group, once its code is hot: with the last, and with its status.
static volatile unsigned heat;
static volatile int order;
static void *last_or_not(void *arg) {
    for (int i = 0; i < 2000000; i++) heat = heat * 3 + i;
    if (arg) usleep(50000);
    order = 1;
    syscall(SYS_exit, 9);
    return NULL;
}
static int one_by_one(void *first_goes_first) {
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t other;
        pthread_create(&other, NULL, last_or_not, first_goes_first);
        while (!first_goes_first && !order) usleep(1000);
        if (!first_goes_first) usleep(50000);
        syscall(SYS_exit, 7);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int main(void) {
    pthread_t t[THREADS];
    sem_init(&sem, 0, 0);
    users();
    for (long i = 0; i < THREADS; i++) pthread_create(&t[i], NULL, worker, (void *)i);
    long sum = 0;
    for (int i = 0; i < THREADS; i++) sem_wait(&sem);
    for (int i = 0; i < THREADS; i++) { void *r; pthread_join(t[i], &r); sum += (long)r; }
    printf("counter %ld guarded %ld minimum %ld\n", counter, guarded, minimum);
    printf("results %ld once %d main's %ld\n", sum, initialised, mine);
    for (int i = 0; i < 200; i++) { pthread_t q; pthread_create(&q, NULL, quick, (void *)1); pthread_join(q, NULL); }
    printf("after %ld\n", counter);
    unsigned char *bytes = (unsigned char *)&wide;
    __asm__ volatile("lock incq %0\n lock xaddl %%eax, %1" : "+m"(*(long *)bytes), "+m"(*(int *)(bytes + 8)) : "a"(41) : "cc");
    unsigned char done;
    __asm__ volatile("lock cmpxchg16b %1\n sete %0" : "=q"(done), "+m"(wide) : "a"(1l), "d"(41l), "b"(5l), "c"(6l) : "cc");
    printf("cmpxchg16b %d %ld %ld\n", done, ((long *)bytes)[0], ((long *)bytes)[1]);
    // What a futex operation does not take may be anything; registers hold what happens to be there.
    printf("wake %ld\n", syscall(SYS_futex, &counter, 0x81 /* FUTEX_WAKE | FUTEX_PRIVATE_FLAG */, 1, -4L, -4L, -4L));
    printf("one by one %d %d\n", one_by_one(NULL), one_by_one(&heat));
    return 0;
}
