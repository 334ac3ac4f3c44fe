// Arguments that the kernel refuses: bad pointers, descriptors, sizes, and addresses that no program may touch.
// links: dynamic static
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static void show(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
}

static const unsigned long PAGE = 4096;
/// In the kernel's half.
static char *const KERNEL = (char *)0xffff800000000000;

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    char *hole = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(hole + PAGE, PAGE);
    mprotect(hole + 2 * PAGE, PAGE, PROT_READ);
    char *gone = hole + PAGE, *readonly = hole + 2 * PAGE, *edge = gone - 4;
    int zero = open("/dev/zero", O_RDONLY), null = open("/dev/null", O_WRONLY), pair[2];
    pipe(pair);

    show("read to nowhere", read(zero, gone, 16));
    show("read to read-only memory", read(zero, readonly, 16));
    show("read to null", read(zero, NULL, 16));
    show("read to the kernel", read(zero, KERNEL, 16));
    show("read of nothing to the kernel", read(zero, KERNEL, 0) >= -1 ? 0 : 1);
    show("write from nowhere", write(pair[1], gone, 16));
    show("write from the kernel", write(pair[1], KERNEL, 16));
    show("path at null", open(NULL, O_RDONLY));
    show("path nowhere", open(gone, O_RDONLY));
    memcpy(edge, "/dev", 4);
    show("path over the edge", open(edge, O_RDONLY));
    show("stat to nowhere", stat("/", (struct stat *)gone));
    show("stat of an empty path", syscall(SYS_stat, "", hole));
    char name[5000];
    memset(name, 'x', sizeof name), name[4999] = 0;
    show("path too long", open(name, O_RDONLY));
    name[300] = 0;
    show("name too long", open(name, O_RDONLY));
    show("not a directory", open("/dev/null/x", O_RDONLY));
    show("bad descriptor", read(999, hole, 1));
    show("wrong mode", write(zero, hole, 1));
    show("close of nothing", close(999));
    struct iovec vec[2] = {{hole, 4}, {gone, 4}};
    vec[1].iov_len = -1;
    show("writev too long", writev(pair[1], vec, 2));
    show("too many buffers", writev(null, vec, 1025));
    show("vector nowhere", readv(zero, (struct iovec *)gone, 1));
    show("seek of a pipe", lseek(pair[0], 0, SEEK_SET));
    show("bad whence", lseek(zero, 0, 99));
    show("pipe nowhere", pipe((int *)gone));
    show("clock nowhere", syscall(SYS_clock_gettime, CLOCK_REALTIME, gone));
    show("no such clock", syscall(SYS_clock_gettime, 99, hole));
    show("sleep of a bad time", syscall(SYS_nanosleep, &(struct timespec){0, 1000000000}, NULL));
    show("sigaction of SIGKILL", syscall(SYS_rt_sigaction, SIGKILL, hole, NULL, 8));
    show("sigaction of another size", syscall(SYS_rt_sigaction, SIGUSR1, NULL, NULL, 16));
    show("mask nowhere", syscall(SYS_rt_sigprocmask, SIG_BLOCK, gone, NULL, 8));
    show("unknown how", syscall(SYS_rt_sigprocmask, 9, hole, NULL, 8));
    show("no such signal", kill(getpid(), 65));
    show("no such process", kill(0x7ffffff0, 0));
    int ep = epoll_create1(0);
    show("epoll of itself", epoll_ctl(ep, EPOLL_CTL_ADD, ep, &(struct epoll_event){EPOLLIN}));
    show("epoll event nowhere", epoll_ctl(ep, EPOLL_CTL_ADD, pair[0], (void *)gone));
    show("epoll_wait of no events", epoll_wait(ep, (void *)hole, 0, 0));
    show("execve of nothing", syscall(SYS_execve, "/nonexistent", NULL, NULL));
    show("execve of a directory", syscall(SYS_execve, "/tmp", NULL, NULL));
    show("execve with arguments nowhere", syscall(SYS_execve, "/bin/true", gone, NULL));
    show("socket of no family", socket(99, SOCK_STREAM, 0));

    show("mmap of nothing", (long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    show("mmap of all", (long)mmap(NULL, 1ul << 62, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    show("mmap without a kind", (long)mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0));
    show("mmap of no descriptor", (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0));
    show("mmap of the kernel", (long)mmap(KERNEL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    show("mmap unaligned", (long)mmap(hole + 1, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    show("mmap on top of something", (long)mmap(hole, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    show("write-only file", (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED, null, 0));
    show("offset unaligned", syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE, zero, 7));
    show("mprotect of a hole", mprotect(hole, 3 * PAGE, PROT_READ));
    show("mprotect unaligned", mprotect(hole + 1, PAGE, PROT_READ));
    show("munmap unaligned", munmap(hole + 1, PAGE));
    show("munmap of nothing", munmap(hole, 0));
    show("munmap of a hole", munmap(gone, PAGE));
    show("munmap of the kernel", munmap(KERNEL, PAGE));
    show("mremap of a hole", (long)mremap(gone, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    show("madvise of a hole", madvise(gone, PAGE, MADV_DONTNEED));
    show("msync of a hole", msync(gone, PAGE, MS_SYNC));
    show("mincore of a hole", mincore(gone, PAGE, (void *)hole));
    show("mlock of a hole", mlock(gone, PAGE));
    show("no such call", syscall(5000));
    show("a negative call", syscall(-1));
    return 0;
}
