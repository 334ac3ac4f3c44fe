// How many threads the process has, by all that /proc shows of it: one, while it runs code that is hot enough to be compiled, four, and one again;
// in a child, too.
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FURTHER = 3 };
static sem_t started, go_on;

static void *further(void *own) {
    *(int *)own = gettid();
    sem_post(&started);
    sem_wait(&go_on);
    return NULL;
}

// Work that a compiler in the background thinks worth its while.
static unsigned long busy(void) {
    static volatile unsigned long table[64];
    unsigned long x = 1;
    for (int i = 0; i < 3000000; i++) {
        x = x * 6364136223846793005 + 1442695040888963407;
        table[x >> 58] += x >> 33;
    }
    return table[5];
}

// Entries of the directory `fd`, read with little room, by the old call and the new one; which of them are not among the threads `known`.
static int entries(int fd, int old, const int *known, int *unknown) {
    char records[64];
    int count = 0;
    *unknown = 0;
    lseek(fd, 0, SEEK_SET);
    for (long len; (len = syscall(old ? SYS_getdents : SYS_getdents64, fd, records, sizeof records)) > 0;) {
        for (long at = 0; at < len; at += *(uint16_t *)(records + at + 16)) {
            int tid = atoi(records + at + (old ? 18 : 19)), is_known = 0;
            if (tid == 0) continue;
            for (int i = 0; i <= FURTHER; i++) is_known |= known[i] == tid;
            *unknown += !is_known;
            count++;
        }
    }
    return count;
}

static int from_text(const char *path, int field) {
    char text[8192], *at;
    FILE *f = fopen(path, "r");
    size_t len = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[len] = 0;
    if (field == 0) return (at = strstr(text, "\nThreads:\t")) ? atoi(at + 10) : -1;
    if (!(at = strrchr(text, ')'))) return -1;
    for (field -= 2; field > 0; field--) at = strchr(at + 1, ' ');
    return atoi(at + 1);
}

// Every count of threads, one behind the other.
static void counts(char *line, const int *known) {
    char path[4][64];
    struct stat s[5] = {0};
    uint32_t x[64] = {0}; // struct statx: links are its fifth word
    int unknown[2], proc = open("/proc", O_PATH), fd = open("/proc/self/task", O_RDONLY | O_DIRECTORY);
    sprintf(path[0], "/proc/%d/task", getpid());
    sprintf(path[1], "/proc/%d/status", getpid());
    sprintf(path[2], "/proc/self/task/%d/status", getpid());
    sprintf(path[3], "/proc/%d/stat", getpid());
    stat("/proc/self/task", &s[0]);
    lstat(path[0], &s[1]);
    fstat(fd, &s[2]);
    fstatat(proc, "self/task/", &s[3], 0);
    fstatat(fd, "", &s[4], AT_EMPTY_PATH);
    syscall(SYS_statx, proc, "self/task", 0, 0x7ff, x);
    int a = entries(fd, 0, known, &unknown[0]), b = entries(fd, 1, known, &unknown[1]);
    sprintf(line, "links %d %d %d %d %d %d, entries %d %d, unknown %d %d, status %d %d, stat %d %d", (int)s[0].st_nlink, (int)s[1].st_nlink,
            (int)s[2].st_nlink, (int)s[3].st_nlink, (int)s[4].st_nlink, (int)x[4], a, b, unknown[0], unknown[1], from_text(path[1], 0),
            from_text(path[2], 0), from_text("/proc/self/stat", 20), from_text(path[3], 20));
    close(fd);
    close(proc);
}

// A thread that has been joined may still be on its way out.
static void report(const char *when, int threads, const int *known) {
    char line[256], wanted[16];
    sprintf(wanted, "links %d ", threads + 2);
    for (int i = 0; i < 200; i++) {
        counts(line, known);
        if (!strncmp(line, wanted, strlen(wanted)) && strstr(line, "unknown 0 0")) break;
        usleep(5000);
    }
    printf("%s: %s\n", when, line);
    fflush(stdout);
}

static int links_of(const char *path) {
    struct stat s;
    return stat(path, &s) ? -1 : s.st_nlink > 2;
}

int main(void) {
    int known[FURTHER + 1] = {getpid()};
    pthread_t threads[FURTHER];
    sem_init(&started, 0, 0);
    sem_init(&go_on, 0, 0);
    busy();
    report("one", 1, known);
    for (int i = 0; i < FURTHER; i++) pthread_create(&threads[i], NULL, further, &known[i + 1]);
    for (int i = 0; i < FURTHER; i++) sem_wait(&started);
    report("four", 1 + FURTHER, known);
    if (fork() == 0) {
        int own[FURTHER + 1] = {getpid()};
        busy();
        report("child", 1, own);
        _exit(0);
    }
    wait(NULL);
    for (int i = 0; i < FURTHER; i++) sem_post(&go_on);
    for (int i = 0; i < FURTHER; i++) pthread_join(threads[i], NULL);
    report("one again", 1, known);
    // Other directories are as they are.
    printf("others %d %d %d\n", links_of("/proc"), links_of("/proc/self"), links_of("/proc/self/task/self"));
    return 0;
}
