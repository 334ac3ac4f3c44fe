// Children that borrow their parent's memory until they execute: vfork, posix_spawn, system.
// needs: a real kernel (emulated ones make a vfork child with a copy of the memory)
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static void report(const char *what, pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) != pid) { printf("%s: %s\n", what, strerror(errno)); return; }
    if (WIFEXITED(status)) printf("%s exit %d\n", what, WEXITSTATUS(status));
    else printf("%s signal %d\n", what, WTERMSIG(status));
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "child")) {
        printf("child: %s\n", argv[2]);
        return 9;
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n < 0 ? 0 : n] = 0;
    pid_t pid = vfork();
    if (pid == 0) { execl("/nonexistent", "x", NULL); _exit(errno == ENOENT ? 44 : 45); }
    report("vfork", pid);
    char *args[] = {"processes", "child", "spawned", NULL};
    int error = posix_spawn(&pid, self, NULL, NULL, args, environ);
    if (error) printf("spawn %s\n", strerror(error)); else report("spawn", pid);
    error = posix_spawn(&pid, "/nonexistent", NULL, NULL, args, environ);
    printf("spawn of nothing: %s\n", strerror(error));
    printf("system %d\n", WEXITSTATUS(system("exit 12")));
    return 0;
}
