// links: dynamic static
// Files: open flags, seeking, stat, directories, renaming, links, locks, mapped files, errors.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void *volatile nowhere = (void *)8;

int main(void) {
    char dir[] = "/tmp/guest-files-XXXXXX";
    if (!mkdtemp(dir) || chdir(dir)) return 1;
    umask(022);
    int fd = open("data", O_RDWR | O_CREAT | O_EXCL, 0640);
    struct iovec parts[] = {{"hello ", 6}, {"vector ", 7}, {"world\n", 6}};
    printf("writev %zd\n", writev(fd, parts, 3));
    printf("exists %d\n", open("data", O_CREAT | O_EXCL, 0600) == -1 && errno == EEXIST);
    char text[64] = "";
    ssize_t part = pread(fd, text, 6, 6);
    printf("pread %zd %.6s\n", part, text);
    printf("seek %ld\n", (long)lseek(fd, -6, SEEK_END));
    ftruncate(fd, 10000);
    struct stat st;
    fstat(fd, &st);
    printf("stat %ld %o %d %lu\n", (long)st.st_size, st.st_mode & 07777, S_ISREG(st.st_mode), (unsigned long)st.st_nlink);
    char *map = mmap(NULL, 10000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    map[9999] = '!';
    memcpy(map + 5000, "mapped", 6);
    msync(map, 10000, MS_SYNC);
    pread(fd, text, 6, 5000);
    printf("map %.6s %c\n", text, map[9999]);
    munmap(map, 10000);
    mkdir("sub", 0755);
    link("data", "sub/hard"); symlink("../data", "sub/soft"); rename("data", "renamed");
    fstat(fd, &st);
    printf("nlink %lu, soft broken %d\n", (unsigned long)st.st_nlink, access("sub/soft", F_OK) == -1 && errno == ENOENT);
    ssize_t n = readlink("sub/soft", text, sizeof text);
    printf("readlink %.*s\n", (int)n, text);
    lstat("sub/soft", &st);
    printf("lstat %d\n", S_ISLNK(st.st_mode));
    for (int i = 0; i < 40; i++) { char name[32]; sprintf(name, "sub/file%02d", i); close(creat(name, 0600)); }
    DIR *d = opendir("sub");
    char *names[64]; int count = 0;
    for (struct dirent *e; (e = readdir(d));) if (e->d_name[0] != '.') names[count++] = strdup(e->d_name);
    closedir(d);
    qsort(names, count, sizeof *names, by_name);
    printf("entries %d %s %s\n", count, names[0], names[count - 1]);
    int other = open("copy", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    off_t zero = 0;
    printf("sendfile %zd\n", sendfile(other, fd, &zero, 19));
    part = write(other, "more", 4);
    printf("append %zd at %ld\n", part, (long)lseek(other, 0, SEEK_END));
    printf("cloexec %d append %d\n", fcntl(other, F_GETFD) & FD_CLOEXEC, !!(fcntl(other, F_GETFL) & O_APPEND));
    printf("flock %d\n", flock(other, LOCK_EX | LOCK_NB));
    printf("directory %d %d\n", open("sub", O_WRONLY) == -1 && errno == EISDIR, open("sub", O_RDONLY | O_DIRECTORY) >= 0);
    printf("fault %d\n", read(fd, nowhere, 10) == -1 && errno == EFAULT);
    printf("badf %d, nodir %d\n", close(999) == -1 && errno == EBADF, chdir("nowhere") == -1 && errno == ENOENT);
    struct timespec times[2] = {{1000, 5}, {2000, 7}};
    futimens(other, times); fstat(other, &st);
    printf("times %ld %ld\n", (long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec);
    struct statx sx;
    int got = statx(AT_FDCWD, "copy", 0, STATX_SIZE, &sx);
    printf("statx %d %llu\n", got, (unsigned long long)sx.stx_size);
    FILE *f = fopen("lines", "w+");
    for (int i = 0; i < 1000; i++) fprintf(f, "line %d\n", i);
    rewind(f);
    int lines = 0; char line[64];
    while (fgets(line, sizeof line, f)) lines++;
    fclose(f);
    printf("lines %d last %s", lines, line);
    char cwd[4096];
    printf("cwd %d\n", getcwd(cwd, sizeof cwd) && !strcmp(cwd, dir));
    chdir("/");
    char command[128]; (void)command;
    for (int i = 0; i < count; i++) { char p[400]; snprintf(p, sizeof p, "%s/sub/%s", dir, names[i]); unlink(p); }
    const char *rest[] = {"sub", "renamed", "copy", "lines", ""};
    for (int i = 0; i < 5; i++) { char p[400]; snprintf(p, sizeof p, "%s/%s", dir, rest[i]); remove(p); }
    printf("clean %d\n", access(dir, F_OK) == -1);
    return 0;
}
