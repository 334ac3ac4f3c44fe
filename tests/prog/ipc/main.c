// System V shared memory, semaphores, messages; POSIX queues and timers; timerfd; futexes; memfd.
// links: dynamic
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void show(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
}

static void shared_memory(void) {
    int id = shmget(IPC_PRIVATE, 10000, IPC_CREAT | 0600);
    volatile int *p = shmat(id, NULL, 0);
    if (fork() == 0) {
        p[1000] = 77;
        _exit(0);
    }
    wait(NULL);
    printf("shared %d\n", p[1000]);
    volatile int *q = shmat(id, NULL, SHM_RDONLY);
    printf("twice %d\n", p != q && q[1000] == 77);
    struct shmid_ds ds;
    show("stat", shmctl(id, IPC_STAT, &ds));
    printf("size %zu attached %ld\n", ds.shm_segsz, (long)ds.shm_nattch);
    show("detach", shmdt((void *)q));
    show("detach again", shmdt((void *)q));
    show("detach", shmdt((void *)p));
    show("remove", shmctl(id, IPC_RMID, NULL));
    show("gone", (long)shmat(id, NULL, 0));
}

static void semaphores(void) {
    int id = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600);
    unsigned short values[3] = {1, 2, 3};
    show("setall", semctl(id, 0, SETALL, values));
    struct sembuf ops[2] = {{0, -1, 0}, {2, 4, 0}};
    show("semop", semop(id, ops, 2));
    show("getval", semctl(id, 2, GETVAL));
    struct timespec limit = {0, 20000000};
    show("semtimedop", semtimedop(id, ops, 1, &limit));
    struct semid_ds ds;
    memset(&ds, 0xff, sizeof ds);
    show("stat", semctl(id, 0, IPC_STAT, &ds));
    printf("semaphores %lu, otime %d, ctime %d\n", (unsigned long)ds.sem_nsems, llabs(ds.sem_otime - time(NULL)) < 5, llabs(ds.sem_ctime - time(NULL)) < 5);
    ds.sem_perm.mode = 0640;
    show("set", semctl(id, 0, IPC_SET, &ds));
    semctl(id, 0, IPC_STAT, &ds);
    printf("mode %o\n", ds.sem_perm.mode & 0777);
    show("remove", semctl(id, 0, IPC_RMID));
}

static void messages(void) {
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    struct { long type; char text[16]; } m = {5, "fifteen bytes.."}, got = {0};
    show("msgsnd", msgsnd(id, &m, 16, 0));
    show("msgrcv of another type", msgrcv(id, &got, 16, 6, IPC_NOWAIT));
    show("msgrcv", msgrcv(id, &got, 16, 0, 0));
    printf("%ld %s\n", got.type, got.text);
    show("remove", msgctl(id, IPC_RMID, NULL));
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 32};
    mqd_t queue = mq_open("/guest-test", O_RDWR | O_CREAT | O_NONBLOCK, 0600, &attr);
    if (queue != (mqd_t)-1) {
        unsigned priority = 0;
        char text[32] = "";
        mq_send(queue, "low", 4, 1), mq_send(queue, "high", 5, 9);
        mq_receive(queue, text, sizeof text, &priority);
        if (strcmp(text, "high") || priority != 9) puts("queue out of order");
        mq_unlink("/guest-test");
    }
}

static volatile sig_atomic_t fired, value;
static void on_timer(int signal, siginfo_t *info, void *context) {
    fired++;
    value = info->si_value.sival_int;
}

static void timers(void) {
    struct sigaction action = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
    sigaction(SIGRTMIN, &action, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN, .sigev_value.sival_int = 1234};
    timer_t timer;
    show("timer_create", timer_create(CLOCK_MONOTONIC, &event, &timer));
    struct itimerspec spec = {{0, 0}, {0, 400000000}};
    show("timer_settime", timer_settime(timer, 0, &spec, NULL));
    struct timespec second = {5, 0}, left = {0};
    show("nanosleep", nanosleep(&second, &left));
    printf("left %ld, fired %d, value %d\n", (long)left.tv_sec, fired, value);
    timer_delete(timer);
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
    spec = (struct itimerspec){{0, 5000000}, {0, 5000000}};
    show("timerfd_settime", timerfd_settime(fd, 0, &spec, NULL));
    uint64_t ticks = 0;
    show("timerfd", read(fd, &ticks, sizeof ticks));
    printf("ticks %d\n", ticks >= 1);
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    after = before;
    after.tv_nsec += 20000000;
    if (after.tv_nsec >= 1000000000) after.tv_sec++, after.tv_nsec -= 1000000000;
    show("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &after, NULL));
    clock_gettime(CLOCK_MONOTONIC, &before);
    printf("not early %d\n", before.tv_sec > after.tv_sec || (before.tv_sec == after.tv_sec && before.tv_nsec >= after.tv_nsec));
}

static void futexes(void) {
    int word = 1;
    struct timespec limit = {0, 10000000};
    show("futex of another value", syscall(SYS_futex, &word, FUTEX_WAIT, 2, NULL));
    show("futex with a limit", syscall(SYS_futex, &word, FUTEX_WAIT, 1, &limit));
    show("wake", syscall(SYS_futex, &word, FUTEX_WAKE, 1));
    show("unaligned", syscall(SYS_futex, (char *)&word + 1, FUTEX_WAIT, 1, NULL));
}

static void memory_files(void) {
    int fd = memfd_create("guest", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ftruncate(fd, 8192);
    char *a = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    char *b = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 4096);
    strcpy(a + 4096, "two views");
    puts(b);
    munmap(a, 8192);
    show("seal while mapped", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
    munmap(b, 4096);
    show("seal", fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK));
    show("write", write(fd, "x", 1));
    show("shrink", ftruncate(fd, 0));
    show("seals", fcntl(fd, F_GET_SEALS));
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    shared_memory();
    semaphores();
    messages();
    timers();
    futexes();
    memory_files();
    return 0;
}
