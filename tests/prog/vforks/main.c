// vfork as far as it holds also where the child only has a copy of the memory: the parent sleeps until the child has executed or ended.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int wait_for(pid_t pid) {
    int status;
    if (waitpid(pid, &status, 0) != pid) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static volatile sig_atomic_t handled;
static void on_signal(int s) { handled += s == SIGUSR1; }

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "exit")) return atoi(argv[2]);
    int ends[2];
    char byte;
    if (pipe2(ends, O_NONBLOCK)) return 1;
    // It ends; it executes; it is killed. What it wrote before is there when the parent goes on.
    for (int how = 0; how < 3; how++) {
        pid_t pid = vfork();
        if (pid == 0) {
            usleep(20000);
            if (write(ends[1], "x", 1) != 1) _exit(99);
            char *args[] = {argv[0], "exit", "8", NULL};
            if (how == 1) execv("/proc/self/exe", args);
            if (how == 2) kill(getpid(), SIGKILL);
            _exit(7);
        }
        int there = read(ends[0], &byte, 1) == 1;
        printf("vfork %d: there %d, ended %d\n", how, there, wait_for(pid));
    }
    // One that executes nothing that exists goes on, and so does its parent.
    pid_t pid = vfork();
    if (pid == 0) { char *args[] = {"x", NULL}; execv("/nonexistent/x", args); _exit(errno == ENOENT ? 3 : 4); }
    printf("not found %d\n", wait_for(pid));
    // A signal for the sleeping parent comes when it goes on.
    signal(SIGUSR1, on_signal);
    static pid_t me;
    me = getpid();
    pid = vfork();
    if (pid == 0) { kill(me, SIGUSR1); usleep(10000); _exit(0); }
    printf("signal %d, ended %d\n", handled, wait_for(pid));
    // Within a child, and by the C library.
    pid = vfork();
    if (pid == 0) {
        pid_t inner = vfork();
        if (inner == 0) _exit(5);
        _exit(wait_for(inner) + 1);
    }
    printf("nested %d\n", wait_for(pid));
    char *args[] = {argv[0], "exit", "9", NULL};
    int error = posix_spawn(&pid, "/proc/self/exe", NULL, NULL, args, environ);
    printf("posix_spawn %d, ended %d\n", error, error ? -1 : wait_for(pid));
    fflush(stdout);
    printf("system %d\n", WEXITSTATUS(system("exit 6")));
    return 0;
}
