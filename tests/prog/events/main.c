// Waiting: poll, select, epoll, eventfd, timerfd, signalfd, sockets, clocks.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// All that is ready comes at once, if there is room for it.
static void many(void) {
    static struct epoll_event ready[2000];
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    int ep = epoll_create1(0), n = 0;
    for (int fd; n < 1500 && (fd = eventfd(1, 0)) >= 0; n++)
        epoll_ctl(ep, EPOLL_CTL_ADD, fd, &(struct epoll_event){.events = EPOLLIN, .data.fd = fd});
    printf("all at once %d\n", epoll_wait(ep, ready, 2000, 0) == n);
}

int main(void) {
    int p[2], s[2];
    if (pipe(p) || socketpair(AF_UNIX, SOCK_STREAM, 0, s)) return 1;
    struct pollfd polls[] = {{p[0], POLLIN, 0}, {s[0], POLLIN | POLLOUT, 0}};
    int some = poll(polls, 2, 0);
    printf("poll %d %x %x\n", some, polls[0].revents, polls[1].revents);
    some = write(p[1], "x", 1) == 1 ? poll(polls, 1, 1000) : -1;
    printf("poll %d %x\n", some, polls[0].revents);
    fd_set set; FD_ZERO(&set); FD_SET(p[0], &set);
    struct timeval tv = {1, 0};
    int ready_fds = select(p[0] + 1, &set, NULL, NULL, &tv);
    printf("select %d %d\n", ready_fds, !!FD_ISSET(p[0], &set));
    int ep = epoll_create1(EPOLL_CLOEXEC), ev = eventfd(0, EFD_NONBLOCK), tm = timerfd_create(CLOCK_MONOTONIC, 0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 0x1122334455667788};
    epoll_ctl(ep, EPOLL_CTL_ADD, ev, &e);
    e.data.u64 = 42; epoll_ctl(ep, EPOLL_CTL_ADD, tm, &e);
    struct epoll_event out[4];
    printf("epoll %d\n", epoll_wait(ep, out, 4, 0));
    uint64_t value = 7;
    write(ev, &value, 8);
    int n = epoll_wait(ep, out, 4, 1000);
    printf("epoll %d %lx %x\n", n, (long)out[0].data.u64, out[0].events);
    read(ev, &value, 8);
    printf("eventfd %lu\n", value);
    printf("again %d\n", read(ev, &value, 8) == -1 && errno == EAGAIN);
    struct itimerspec soon = {.it_value = {0, 5000000}};
    timerfd_settime(tm, 0, &soon, NULL);
    n = epoll_wait(ep, out, 4, 2000);
    printf("timer %d %lu\n", n, (unsigned long)out[0].data.u64);
    sigset_t sigs; sigemptyset(&sigs); sigaddset(&sigs, SIGUSR1); sigprocmask(SIG_BLOCK, &sigs, NULL);
    int sf = signalfd(-1, &sigs, 0);
    raise(SIGUSR1);
    struct signalfd_siginfo info;
    n = read(sf, &info, sizeof info);
    printf("signalfd %d %d\n", n, info.ssi_signo == SIGUSR1);
    raise(SIGUSR1);
    printf("sigwait %d\n", sigwaitinfo(&sigs, NULL) == SIGUSR1);

    int server = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof addr;
    bind(server, (struct sockaddr *)&addr, len);
    listen(server, 5);
    getsockname(server, (struct sockaddr *)&addr, &len);
    printf("bound %d\n", ntohs(addr.sin_port) > 0);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    printf("connect %d\n", connect(client, (struct sockaddr *)&addr, len));
    int peer = accept4(server, NULL, NULL, SOCK_NONBLOCK);
    send(client, "over tcp", 8, MSG_NOSIGNAL);
    char text[64] = "";
    struct pollfd ready = {peer, POLLIN, 0};
    poll(&ready, 1, 1000);
    n = recv(peer, text, sizeof text, 0);
    printf("recv %d %s\n", n, text);
    printf("would block %d\n", recv(peer, text, 1, 0) == -1 && errno == EAGAIN);
    shutdown(client, SHUT_WR);
    poll(&ready, 1, 1000);
    printf("end %zd\n", recv(peer, text, 1, 0));

    struct iovec part = {"fd", 2};
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.space, .msg_controllen = sizeof control.space};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET; c->cmsg_type = SCM_RIGHTS; c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &p[0], sizeof(int));
    printf("sendmsg %zd\n", sendmsg(s[0], &message, 0));
    memset(control.space, 0, sizeof control.space);
    part.iov_base = text;
    printf("recvmsg %zd\n", recvmsg(s[1], &message, 0));
    int passed; memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof passed);
    n = read(passed, text, 1);
    printf("passed fd %d %c\n", n, text[0]);

    struct timespec a, b, nap = {0, 3000000};
    clock_gettime(CLOCK_MONOTONIC, &a);
    nanosleep(&nap, NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("slept %d\n", (b.tv_sec - a.tv_sec) * 1000000000l + b.tv_nsec - a.tv_nsec >= 3000000);
    printf("time %d\n", time(NULL) > 1600000000);
    many();
    return 0;
}
