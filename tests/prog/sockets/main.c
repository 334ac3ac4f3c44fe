// Sockets: pairs, messages with descriptors and credentials, TCP, UDP, options, epoll with masks.
// links: dynamic
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static void show(const char *what, long result) {
    if (result < 0) printf("%s: %s\n", what, strerrorname_np(errno));
    else printf("%s: %ld\n", what, result);
}

static void pair(void) {
    int fds[2], passed[2];
    show("socketpair", socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds));
    pipe(passed);
    struct iovec parts[2] = {{"hello ", 6}, {"there", 5}};
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct msghdr msg = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(c), &passed[1], sizeof(int));
    show("sendmsg", sendmsg(fds[0], &msg, 0));
    char a[4], b[16] = "", got[64];
    struct iovec into[2] = {{a, 4}, {b, 15}};
    struct msghdr in = {.msg_iov = into, .msg_iovlen = 2, .msg_control = got, .msg_controllen = sizeof got};
    show("recvmsg", recvmsg(fds[1], &in, MSG_CMSG_CLOEXEC));
    printf("%.4s|%s flags %x\n", a, b, in.msg_flags & ~MSG_CMSG_CLOEXEC);
    int fd;
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&in)), sizeof fd);
    show("write to the passed end", write(fd, "through", 7));
    show("cloexec", fcntl(fd, F_GETFD));
    show("read", read(passed[0], b, 15));
    printf("%.7s\n", b);
    struct ucred cred;
    socklen_t len = sizeof cred;
    show("peercred", getsockopt(fds[0], SOL_SOCKET, SO_PEERCRED, &cred, &len));
    printf("%d %u\n", cred.pid == getpid(), len);
    show("shutdown", shutdown(fds[0], SHUT_WR));
    show("end of stream", read(fds[1], b, 15));
    signal(SIGPIPE, SIG_IGN);
    show("broken pipe", send(fds[0], "x", 1, 0));
    show("would block", recv(fds[0], b, 1, MSG_DONTWAIT));
    struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = parts, .msg_iovlen = 1}}, {.msg_hdr = {.msg_iov = parts + 1, .msg_iovlen = 1}}};
    show("sendmmsg", sendmmsg(fds[1], many, 2, 0));
    printf("%u %u\n", many[0].msg_len, many[1].msg_len);
    show("recv", recv(fds[0], b, 15, MSG_WAITALL | MSG_PEEK | MSG_DONTWAIT));
}

static void tcp(void) {
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    show("reuseaddr", setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, peer;
    show("bind", bind(listener, (void *)&address, sizeof address));
    socklen_t len = sizeof address;
    show("getsockname", getsockname(listener, (void *)&address, &len));
    show("listen", listen(listener, 4));
    if (fork() == 0) {
        int s = socket(AF_INET, SOCK_STREAM, 0);
        char text[32] = "";
        if (connect(s, (void *)&address, sizeof address)) _exit(1);
        setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        write(s, "ping", 4);
        ssize_t n = read(s, text, sizeof text);
        _exit(n == 4 && !memcmp(text, "pong", 4) ? 0 : 2);
    }
    len = sizeof peer;
    int s = accept4(listener, (void *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    printf("accepted %d, from %s %u\n", s >= 0, inet_ntoa(peer.sin_addr), len);
    show("nonblocking", (fcntl(s, F_GETFL) & O_NONBLOCK) != 0);
    struct pollfd p = {s, POLLIN, 0};
    show("poll", poll(&p, 1, 5000));
    char text[8] = "";
    show("recv", recv(s, text, sizeof text, 0));
    write(s, "pong", 4);
    int status = -1;
    wait(&status);
    printf("client %d\n", WEXITSTATUS(status));
    int error = -1;
    len = sizeof error;
    show("so_error", getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len));
    printf("%d %u\n", error, len);
    struct timeval limit = {0, 50000};
    setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    show("accept with a limit", accept(listener, NULL, NULL));
}

static void udp(void) {
    int a = socket(AF_INET, SOCK_DGRAM, 0), b = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}, from;
    bind(a, (void *)&address, sizeof address);
    socklen_t len = sizeof address;
    getsockname(a, (void *)&address, &len);
    show("sendto", sendto(b, "datagram", 8, 0, (void *)&address, sizeof address));
    char text[4];
    len = sizeof from;
    show("recvfrom", recvfrom(a, text, sizeof text, MSG_TRUNC, (void *)&from, &len));
    printf("%.4s family %d len %u\n", text, from.sin_family, len);
    show("not connected", send(a, "x", 1, 0));
}

static volatile int got;
static void handler(int signal) { got = signal; }

static void masks(void) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    sigset_t blocked, none;
    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGUSR1);
    struct epoll_event event;
    int ep = epoll_create1(EPOLL_CLOEXEC);
    show("epoll_wait with the signal blocked", epoll_wait(ep, &event, 1, 10));
    show("epoll_pwait", epoll_pwait(ep, &event, 1, 5000, &none));
    printf("handled %d\n", got);
    raise(SIGUSR1), got = 0;
    show("ppoll", ppoll(NULL, 0, NULL, &none));
    printf("handled %d\n", got);
    raise(SIGUSR1), got = 0;
    show("pselect", pselect(0, NULL, NULL, NULL, NULL, &none));
    printf("handled %d\n", got);
    raise(SIGUSR1), got = 0;
    show("sigsuspend", sigsuspend(&none));
    sigset_t now;
    sigprocmask(SIG_BLOCK, NULL, &now);
    printf("handled %d, blocked again %d\n", got, sigismember(&now, SIGUSR1));
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    pair();
    tcp();
    udp();
    masks();
    return 0;
}
