// What a process learns about itself: /proc/self, limits, prctl, arch_prctl, uname, auxv.
// links: dynamic static
#define _GNU_SOURCE
#include <asm/prctl.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <sched.h>
#include <unistd.h>

extern char etext, edata, end;

static void show(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
}

/// The protection of the mapping around `p` according to /proc/self/maps, and its name.
static void mapping(const char *what, const void *p) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024], prot[8], name[512];
    unsigned long from, to;
    while (fgets(line, sizeof line, maps)) {
        *name = 0;
        sscanf(line, "%lx-%lx %7s %*s %*s %*s %511s", &from, &to, prot, name);
        if (from <= (unsigned long)p && (unsigned long)p < to)
            printf("%s: %s %s\n", what, prot, *name == '/' ? "a file" : name);
    }
    fclose(maps);
}

static long count_maps(const char *needle) {
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[1024];
    long count = 0;
    while (fgets(line, sizeof line, maps)) count += strstr(line, needle) != NULL;
    fclose(maps);
    return count;
}

int main(int argc, char **argv) {
    char path[PATH_MAX], other[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    path[n] = 0;
    printf("exe is argv[0]: %d\n", !strcmp(realpath(argv[0], other), path));
    n = readlink("/proc/self/exe", other, 4);
    printf("truncated link: %zd\n", n);
    struct stat a, b, link;
    stat("/proc/self/exe", &a), stat(path, &b), lstat("/proc/self/exe", &link);
    printf("same file: %d, link: %d\n", a.st_ino == b.st_ino && a.st_dev == b.st_dev, S_ISLNK(link.st_mode));
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    unsigned char ident[20];
    n = read(fd, ident, sizeof ident);
    printf("ELF: %zd %.3s machine %d\n", n, ident + 1, ident[18]);
    close(fd);
    printf("maps mention a translator: %ld\n", count_maps("/calque\n"));
    mapping("code", (void *)main);
    mapping("data", &edata - 1);
    int local = 0;
    mapping("stack", &local);
    sbrk(4096);
    mapping("heap", (char *)sbrk(0) - 1);
    char *pages = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(pages + 4096, 4096, PROT_READ);
    mapping("first page", pages), mapping("second page", pages + 4096);
    FILE *cmdline = fopen("/proc/self/cmdline", "r");
    n = fread(path, 1, sizeof path, cmdline);
    fclose(cmdline);
    ssize_t length = 0;
    for (int i = 0; i < argc; i++) length += strlen(argv[i]) + 1;
    printf("cmdline is argv: %d\n", !memcmp(path, argv[0], strlen(argv[0]) + 1) && n == length);
    unsigned long auxv[64][2];
    fd = open("/proc/self/auxv", O_RDONLY);
    n = read(fd, auxv, sizeof auxv);
    close(fd);
    int matches = 0;
    for (int i = 0; i < n / 16 && auxv[i][0]; i++) matches += auxv[i][0] == AT_ENTRY && auxv[i][1] == getauxval(AT_ENTRY);
    printf("auxv: %d\n", matches);
    printf("page size %ld, platform %s\n", getauxval(AT_PAGESZ), (char *)getauxval(AT_PLATFORM));

    struct utsname name;
    uname(&name);
    printf("uname %s %s\n", name.sysname, name.machine);
    prctl(PR_SET_NAME, "a-name-that-is-too-long");
    prctl(PR_GET_NAME, path);
    printf("name %s\n", path);
    FILE *comm = fopen("/proc/self/comm", "r");
    printf("comm %s", fgets(path, sizeof path, comm));
    fclose(comm);
    show("dumpable", prctl(PR_GET_DUMPABLE));
    show("no_new_privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    int tsc = 0;
    show("tsc", prctl(PR_GET_TSC, &tsc));
    printf("tsc %d\n", tsc);
    show("unknown prctl", prctl(9999, 0, 0, 0, 0));
    unsigned long fs = 0, gs = 1;
    syscall(SYS_arch_prctl, ARCH_GET_FS, &fs);
    syscall(SYS_arch_prctl, ARCH_GET_GS, &gs);
    unsigned long self;
    __asm__("mov %%fs:0, %0" : "=r"(self));
    printf("fs %d gs %lx\n", fs == self, gs);
    show("set gs", syscall(SYS_arch_prctl, ARCH_SET_GS, &fs));
    __asm__("mov %%gs:0, %0" : "=r"(gs));
    printf("through gs %d\n", gs == fs);
    show("a base in kernel space", syscall(SYS_arch_prctl, ARCH_SET_FS, 1ul << 63));
    show("unknown arch_prctl", syscall(SYS_arch_prctl, 0x7777, 0));

    struct rlimit limit, old;
    getrlimit(RLIMIT_NOFILE, &old);
    limit = (struct rlimit){64, old.rlim_max};
    show("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
    getrlimit(RLIMIT_NOFILE, &limit);
    printf("files %ld\n", (long)limit.rlim_cur);
    show("dup beyond", dup2(1, 64));
    getrlimit(RLIMIT_STACK, &old);
    limit = (struct rlimit){4 << 20, old.rlim_max};
    show("setrlimit stack", setrlimit(RLIMIT_STACK, &limit));
    getrlimit(RLIMIT_STACK, &limit);
    printf("stack %ld\n", (long)limit.rlim_cur);
    limit = (struct rlimit){2, 1};
    show("soft above hard", setrlimit(RLIMIT_CORE, &limit));
    show("soft above hard", setrlimit(RLIMIT_AS, &limit));
    show("unknown limit", getrlimit(99, &limit));
    printf("persona %x\n", personality(0xffffffff) & 0xff);
    struct sysinfo info;
    printf("sysinfo %d\n", sysinfo(&info) == 0 && info.totalram > 0 && info.mem_unit > 0);
    cpu_set_t cpus;
    printf("affinity %d\n", sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 0);
    printf("ids %d %d\n", getpid() == gettid(), getppid() == getsid(0) || getppid() > 0);
    return 0;
}
