// Processes: fork, exec, pipes, exit statuses, and what an executed program inherits.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void report(const char *what, pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) != pid) { printf("%s: %s\n", what, strerror(errno)); return; }
    if (WIFEXITED(status)) printf("%s exit %d\n", what, WEXITSTATUS(status));
    else printf("%s signal %d\n", what, WTERMSIG(status));
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "child")) {
        printf("child of exec: %s %s\n", argv[2], getenv("FOR_CHILD") ? getenv("FOR_CHILD") : "-");
        return 9;
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n < 0 ? 0 : n] = 0;
    printf("self %d\n", strstr(self, "processes-") != NULL);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) _exit(5);
    report("fork", pid);
    pid = fork();
    if (pid == 0) { raise(SIGTERM); _exit(0); }
    report("raise", pid);
    pid = fork();
    if (pid == 0) abort();
    report("abort", pid);
    int fds[2];
    if (pipe(fds)) return 1;
    pid = fork();
    if (pid == 0) {
        dup2(fds[1], 1);
        close(fds[0]);
        setenv("FOR_CHILD", "variable", 1);
        execl(self, "processes", "child", "through a pipe", NULL);
        _exit(126);
    }
    close(fds[1]);
    char text[256];
    size_t got = 0;
    while ((n = read(fds[0], text + got, sizeof text - got)) > 0) got += n;
    printf("%.*s", (int)got, text);
    report("exec", pid);
    pid = fork();
    if (pid == 0) { pid_t inner = fork(); if (inner == 0) _exit(3); int s; waitpid(inner, &s, 0); _exit(WEXITSTATUS(s) + 1); }
    report("grandchild", pid);
    printf("no child: %d\n", waitpid(-1, NULL, 0) == -1 && errno == ECHILD);
    return 0;
}
