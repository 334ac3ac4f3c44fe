// Newer calls about files and memory: statx, openat2, close_range, splice, copy_file_range, inotify, locks, mremap, ...
// links: dynamic static
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>
#include <unistd.h>

static void show(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
}

static void lookup(int dir) {
    int fd = openat(dir, "file", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    write(fd, "0123456789", 10);
    struct statx sx;
    show("statx", statx(dir, "file", 0, STATX_BASIC_STATS | STATX_BTIME, &sx));
    printf("size %llu mode %o links %u\n", (long long)sx.stx_size, sx.stx_mode, sx.stx_nlink);
    show("statx of a descriptor", statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &sx));
    struct stat st;
    show("fstatat of a descriptor", fstatat(fd, "", &st, AT_EMPTY_PATH));
    struct open_how how = {.flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW, .resolve = RESOLVE_NO_SYMLINKS};
    int sub = syscall(SYS_openat2, dir, ".", &how, sizeof how);
    printf("openat2 %d, flags %o\n", sub >= 0, fcntl(sub, F_GETFL) & (O_DIRECTORY | O_NOFOLLOW | O_DIRECT));
    how.flags = O_RDONLY, how.resolve = RESOLVE_BENEATH;
    show("openat2 above", syscall(SYS_openat2, dir, "../x", &how, sizeof how));
    char bigger[40] = {0};
    memcpy(bigger, &how, sizeof how), bigger[39] = 1;
    show("openat2 with unknown fields", syscall(SYS_openat2, dir, "file", bigger, sizeof bigger));
    show("openat2 of a small size", syscall(SYS_openat2, dir, "file", &how, 8));
    show("faccessat2", syscall(SYS_faccessat2, dir, "file", W_OK, AT_EACCESS));
    show("mkdirat", mkdirat(dir, "sub", 0755));
    show("renameat2 onto something", syscall(SYS_renameat2, dir, "file", dir, "sub", RENAME_NOREPLACE));
    show("renameat2 exchange", syscall(SYS_renameat2, dir, "file", dir, "sub", RENAME_EXCHANGE));
    show("unlinkat", unlinkat(dir, "file", AT_REMOVEDIR));
    show("linkat", linkat(dir, "sub", dir, "hard", 0));
    show("fchmodat", fchmodat(dir, "hard", 0600, 0));
    struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {1234, 5678}};
    show("utimensat", utimensat(dir, "hard", times, 0));
    fstat(fd, &st);
    printf("mtime %ld.%09ld mode %o\n", st.st_mtim.tv_sec, st.st_mtim.tv_nsec, st.st_mode);
    int tmp = openat(dir, ".", O_TMPFILE | O_RDWR, 0600);
    printf("tmpfile %d\n", tmp >= 0 || errno == EOPNOTSUPP);
    unlinkat(dir, "sub", 0), unlinkat(dir, "hard", 0);
    close(fd), close(tmp), close(sub);
}

static void move_data(int dir) {
    int a = openat(dir, "a", O_RDWR | O_CREAT, 0600), b = openat(dir, "b", O_RDWR | O_CREAT, 0600), pipes[2];
    struct iovec out[3] = {{"one", 3}, {"two", 3}, {"three", 5}};
    show("pwritev", pwritev(a, out, 3, 5));
    char x[4], y[16];
    struct iovec in[2] = {{x, 4}, {y, 16}};
    show("preadv", preadv(a, in, 2, 5));
    printf("%.4s %.7s\n", x, y);
    show("preadv2", preadv2(a, in, 1, -1, 0));
    off_t from = 5, to = 0;
    show("copy_file_range", copy_file_range(a, &from, b, &to, 11, 0));
    printf("offsets %ld %ld\n", (long)from, (long)to);
    from = 3;
    pipe2(pipes, O_CLOEXEC | O_NONBLOCK);
    show("sendfile", sendfile(pipes[1], b, &from, 5));
    show("splice", splice(pipes[0], NULL, b, &to, 100, SPLICE_F_MOVE));
    struct iovec page = {"gift", 4};
    show("vmsplice", vmsplice(pipes[1], &page, 1, 0));
    show("pipe size", fcntl(pipes[1], F_SETPIPE_SZ, 1 << 16) >= 1 << 16 ? 0 : -1);
    int waiting;
    show("FIONREAD", ioctl(pipes[0], FIONREAD, &waiting));
    printf("waiting %d\n", waiting);
    show("read", read(pipes[0], y, 16));
    show("read of an empty pipe", read(pipes[0], y, 16));
    show("fallocate", fallocate(b, FALLOC_FL_KEEP_SIZE, 0, 4096));
    show("ftruncate", ftruncate(b, 3));
    show("fsync", fdatasync(b));
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 1, .l_len = 10};
    show("lock", fcntl(a, F_SETLK, &lock));
    if (fork() == 0) {
        struct flock probe = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
        fcntl(a, F_GETLK, &probe);
        printf("locked %d from %ld by parent %d\n", probe.l_type == F_WRLCK, (long)probe.l_start, probe.l_pid == getppid());
        _exit(0);
    }
    wait(NULL);
    show("fsetxattr", fsetxattr(a, "user.test", "v", 1, 0) == 0 || errno == EOPNOTSUPP ? 0 : -1);
    show("isatty", ioctl(a, TCGETS, &(struct termios){0}));
    unlinkat(dir, "a", 0), unlinkat(dir, "b", 0);
}

static void watch(int dir, const char *path) {
    int in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    show("inotify_add_watch", inotify_add_watch(in, path, IN_CREATE | IN_DELETE) > 0);
    close(openat(dir, "seen", O_CREAT | O_WRONLY, 0600));
    unlinkat(dir, "seen", 0);
    char buffer[512] __attribute__((aligned(8)));
    ssize_t n = read(in, buffer, sizeof buffer);
    for (char *p = buffer; p < buffer + n;) {
        struct inotify_event *event = (void *)p;
        printf("event %x %s\n", event->mask, event->name);
        p += sizeof *event + event->len;
    }
    int ev = eventfd(3, EFD_SEMAPHORE | EFD_NONBLOCK);
    uint64_t value;
    read(ev, &value, 8);
    printf("semaphore %lu\n", (unsigned long)value);
    struct pollfd fds[2] = {{ev, POLLIN | POLLOUT, 0}, {-1, POLLIN, 7}};
    show("ppoll", ppoll(fds, 2, &(struct timespec){0, 0}, NULL));
    printf("revents %x %x\n", fds[0].revents, fds[1].revents);
}

static void descriptors(void) {
    for (int i = 200; i < 210; i++) dup2(0, i);
    show("close_range", syscall(SYS_close_range, 203, 206, 0));
    show("close_range cloexec", syscall(SYS_close_range, 207, 208, 4));
    show("close_range backwards", syscall(SYS_close_range, 9, 8, 0));
    for (int i = 200; i < 210; i++) printf("%d", fcntl(i, F_GETFD));
    puts("");
    show("close_range of the rest", syscall(SYS_close_range, 200, ~0u, 0));
    show("dup3", dup3(0, 250, O_CLOEXEC));
    printf("cloexec %d\n", fcntl(250, F_GETFD));
    show("dup3 onto itself", dup3(250, 250, 0));
    show("F_DUPFD", fcntl(0, F_DUPFD_CLOEXEC, 240));
}

static void memory(void) {
    char *p = mmap(NULL, 4 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    strcpy(p, "kept");
    munmap(p + 2 * 4096, 2 * 4096);
    show("grow in place", mremap(p, 8192, 4 * 4096, 0) == p ? 0 : -1);
    char *blocker = mmap(p + 4 * 4096, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    printf("blocked %d\n", blocker == p + 4 * 4096 || errno == EEXIST);
    show("no room to grow", (long)mremap(p, 4 * 4096, 16 * 4096, 0));
    char *q = mremap(p, 4 * 4096, 16 * 4096, MREMAP_MAYMOVE);
    printf("moved %s\n", q);
    char *fixed = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    show("to an address", mremap(q, 16 * 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, fixed) == fixed ? 0 : -1);
    printf("there %s\n", fixed);
    show("dontneed", madvise(fixed, 4096, MADV_DONTNEED));
    printf("zero %d\n", fixed[0]);
    char *low = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    printf("low %d\n", (uintptr_t)low < 1ul << 32);
    unsigned char vec[2] = {0};
    fixed[0] = 1;
    show("mincore", mincore(fixed, 4096, vec));
    printf("resident %d\n", vec[0] & 1);
    show("mlock", mlock(fixed, 4096));
    show("msync", msync(fixed, 4096, MS_ASYNC));
    unsigned char random[16] = {0};
    show("getrandom", getrandom(random, sizeof random, 0));
    show("membarrier", syscall(SYS_membarrier, 0, 0, 0) >= 0 ? 0 : -1);
    unsigned cpu = -1, node = -1;
    show("getcpu", syscall(SYS_getcpu, &cpu, &node, NULL));
    show("pidfd", syscall(SYS_pidfd_open, getpid(), 0) >= 0 ? 0 : -1);
    printf("policy %d priority max %d\n", sched_getscheduler(0), sched_get_priority_max(SCHED_FIFO));
}

int main(void) {
    char path[] = "/tmp/guest-modern-XXXXXX";
    setvbuf(stdout, NULL, _IONBF, 0);
    umask(022);
    if (!mkdtemp(path)) return 1;
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_PATH);
    lookup(dir);
    move_data(dir);
    watch(dir, path);
    descriptors();
    memory();
    rmdir(path);
    return 0;
}
