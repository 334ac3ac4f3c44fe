// The calls that x86-64 has and newer architectures do not, made directly.
// links: dynamic static
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

static void show(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
}

static void files(void) {
    long fd = syscall(SYS_open, "a", O_RDWR | O_CREAT | O_NOFOLLOW, 0640);
    show("write", write(fd, "0123456789", 10));
    struct stat st;
    show("stat", syscall(SYS_stat, "a", &st));
    printf("mode %o size %ld nlink %ld blksize>0 %d\n", st.st_mode, (long)st.st_size, (long)st.st_nlink, st.st_blksize > 0);
    show("symlink", syscall(SYS_symlink, "a", "s"));
    show("lstat", syscall(SYS_lstat, "s", &st));
    printf("link %d size %ld\n", S_ISLNK(st.st_mode), (long)st.st_size);
    show("open of a link with O_NOFOLLOW", syscall(SYS_open, "s", O_RDONLY | O_NOFOLLOW));
    show("open of a file with O_DIRECTORY", syscall(SYS_open, "a", O_RDONLY | O_DIRECTORY));
    char text[16] = "";
    show("readlink", syscall(SYS_readlink, "s", text, sizeof text));
    puts(text);
    show("link", syscall(SYS_link, "a", "b"));
    show("rename", syscall(SYS_rename, "b", "c"));
    show("access", syscall(SYS_access, "c", R_OK | W_OK));
    show("access of nothing", syscall(SYS_access, "b", F_OK));
    show("chmod", syscall(SYS_chmod, "c", 0604));
    show("chown", syscall(SYS_chown, "c", getuid(), getgid()));
    show("lchown", syscall(SYS_lchown, "s", getuid(), getgid()));
    stat("a", &st);
    printf("mode %o\n", st.st_mode);
    struct utimbuf seconds = {1000, 2000};
    show("utime", syscall(SYS_utime, "a", &seconds));
    stat("a", &st);
    printf("times %ld %ld\n", st.st_atim.tv_sec, st.st_mtim.tv_sec);
    struct timeval times[2] = {{3000, 500000}, {4000, 250000}};
    show("utimes", syscall(SYS_utimes, "a", times));
    stat("a", &st);
    printf("times %ld.%09ld %ld.%09ld\n", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    times[0].tv_usec = 1000000;
    show("futimesat", syscall(SYS_futimesat, AT_FDCWD, "a", times));
    show("mkdir", syscall(SYS_mkdir, "d", 0755));
    show("mknod", syscall(SYS_mknod, "d/fifo", S_IFIFO | 0600, 0));
    show("rmdir", syscall(SYS_rmdir, "d"));
    show("unlink", syscall(SYS_unlink, "d/fifo"));
    show("creat", (fd = syscall(SYS_creat, "d/new", 0600)) >= 0 ? 0 : fd);
    // struct linux_dirent: inode, offset, length, name, type in the last byte.
    struct { unsigned long ino, off; unsigned short len; char name[]; } *entry;
    char buffer[1024];
    long dir = syscall(SYS_open, "d", O_RDONLY | O_DIRECTORY), n = syscall(SYS_getdents, dir, buffer, sizeof buffer);
    int found = 0;
    for (long at = 0; at < n; at += entry->len) {
        entry = (void *)(buffer + at);
        if (!strcmp(entry->name, "new")) found = buffer[at + entry->len - 1];
    }
    printf("getdents type %d\n", found);
    printf("flags %o\n", fcntl(dir, F_GETFL) & (O_DIRECTORY | O_NOFOLLOW));
    unlink("d/new"), rmdir("d"), unlink("a"), unlink("s"), unlink("c");
}

static void descriptors(void) {
    int pair[2];
    show("pipe", syscall(SYS_pipe, pair));
    long copy = syscall(SYS_dup2, pair[1], 50);
    show("dup2", copy);
    show("dup2 onto itself", syscall(SYS_dup2, 50, 50));
    show("dup2 of nothing onto itself", syscall(SYS_dup2, 51, 51));
    struct pollfd fds[2] = {{pair[0], POLLIN, 0}, {pair[1], POLLOUT, 0}};
    show("poll", syscall(SYS_poll, fds, 2, 0));
    printf("revents %x %x\n", fds[0].revents, fds[1].revents);
    show("poll with a limit", syscall(SYS_poll, fds, 1, 20));
    write(50, "x", 1);
    fd_set set;
    FD_ZERO(&set);
    FD_SET(pair[0], &set);
    struct timeval limit = {5, 0};
    show("select", syscall(SYS_select, pair[0] + 1, &set, NULL, NULL, &limit));
    printf("set %d, time left %d\n", FD_ISSET(pair[0], &set) != 0, limit.tv_sec >= 4);
    long ep = syscall(SYS_epoll_create, 1);
    struct epoll_event event = {EPOLLIN, {.u64 = 0x1122334455667788}}, got[3] = {{0}};
    show("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], &event));
    event.data.u64 = 42, event.events = EPOLLOUT;
    show("epoll_ctl", epoll_ctl(ep, EPOLL_CTL_ADD, pair[1], &event));
    show("epoll_wait", syscall(SYS_epoll_wait, ep, got, 3, 100));
    printf("events %x %llx, %x %llu\n", got[0].events, (long long)got[0].data.u64, got[1].events, (long long)got[1].data.u64);
    show("epoll_create of no size", syscall(SYS_epoll_create, 0));
    long ev = syscall(SYS_eventfd, 7);
    uint64_t count = 0;
    show("eventfd read", read(ev, &count, sizeof count));
    printf("count %lu\n", (unsigned long)count);
    show("inotify_init", syscall(SYS_inotify_init) >= 0 ? 0 : -1);
    sigset_t mask;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    sigprocmask(SIG_BLOCK, &mask, NULL);
    long sfd = syscall(SYS_signalfd, -1, &mask, 8L);
    raise(SIGUSR1);
    uint32_t info[32];
    show("signalfd read", read(sfd, info, sizeof info));
    printf("signal %u\n", info[0]);
}

static volatile int alarms;
static void on_alarm(int signal) { alarms += signal; }

static void times_and_processes(void) {
    time_t now = 0;
    long same = syscall(SYS_time, &now);
    printf("time %d\n", same == now && llabs(now - time(NULL)) < 3);
    signal(SIGALRM, on_alarm);
    show("alarm", syscall(SYS_alarm, 100));
    show("alarm again", syscall(SYS_alarm, 1));
    show("pause", syscall(SYS_pause));
    printf("alarms %d\n", alarms);
    printf("getpgrp %d\n", syscall(SYS_getpgrp) == getpgid(0));
    long child = syscall(SYS_fork);
    if (child == 0) _exit(5);
    int status;
    printf("wait4 %d", syscall(SYS_wait4, child, &status, 0, NULL) == child);
    printf(" status %x\n", status);
    child = vfork();
    if (child == 0) _exit(6);
    waitpid(child, &status, 0);
    printf("vfork status %x\n", status);
}

int main(void) {
    char dir[] = "/tmp/guest-old-XXXXXX";
    if (!mkdtemp(dir) || chdir(dir)) return 1;
    umask(0);
    setvbuf(stdout, NULL, _IONBF, 0);
    files();
    descriptors();
    times_and_processes();
    rmdir(dir);
    return 0;
}
