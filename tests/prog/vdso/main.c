// links: dynamic static
// The vDSO: found through the auxiliary vector, its functions with both names and their version, time that agrees with the
// kernel's, faults inside it that can be unwound, signals that arrive in it.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <link.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

static const char *base;
static int (*gettime)(clockid_t, struct timespec *);
static int (*timeofday)(struct timeval *, struct timezone *);
static time_t (*seconds)(time_t *);
static int (*cpu_and_node)(unsigned *, unsigned *, void *);

static void *in_image(const ElfW(Dyn) *dynamic, long tag) {
    for (; dynamic->d_tag != DT_NULL; dynamic++)
        if (dynamic->d_tag == tag) {
            // Some kernels' objects hold offsets, some C libraries have relocated them.
            return (void *)(dynamic->d_un.d_ptr < (unsigned long)base ? base + dynamic->d_un.d_ptr : (char *)dynamic->d_un.d_ptr);
        }
    return 0;
}

// The function of this name, if its version is LINUX_2.6.
static void *look_up(const char *name) {
    const ElfW(Ehdr) *file = (const void *)base;
    const ElfW(Phdr) *headers = (const void *)(base + file->e_phoff);
    const ElfW(Dyn) *dynamic = 0;
    for (int i = 0; i < file->e_phnum; i++)
        if (headers[i].p_type == PT_DYNAMIC) dynamic = (const void *)(base + headers[i].p_vaddr);
    const ElfW(Sym) *symbols = in_image(dynamic, DT_SYMTAB);
    const char *strings = in_image(dynamic, DT_STRTAB);
    const ElfW(Half) *versions = in_image(dynamic, DT_VERSYM);
    const ElfW(Verdef) *definition = in_image(dynamic, DT_VERDEF);
    for (long i = 0; (const char *)(symbols + i) < strings; i++) {
        if (strcmp(strings + symbols[i].st_name, name) || symbols[i].st_shndx == SHN_UNDEF) continue;
        const ElfW(Verdef) *d = definition;
        while (d->vd_ndx != (versions[i] & 0x7fff) && d->vd_next) d = (const void *)((const char *)d + d->vd_next);
        const ElfW(Verdaux) *aux = (const void *)((const char *)d + d->vd_aux);
        if (!strcmp(strings + aux->vda_name, "LINUX_2.6") && d->vd_hash == 61765110) return (void *)(base + symbols[i].st_value);
    }
    return 0;
}

static long long nanos(const struct timespec *t) { return t->tv_sec * 1000000000LL + t->tv_nsec; }

// The vDSO's time lies between two of the kernel's, three times.
static int agrees(clockid_t clock) {
    struct timespec before, now, after;
    for (int i = 0; i < 3; i++) {
        syscall(SYS_clock_gettime, clock, &before);
        if (gettime(clock, &now)) return 0;
        syscall(SYS_clock_gettime, clock, &after);
        if (nanos(&now) < nanos(&before) || nanos(&now) > nanos(&after) || now.tv_nsec >= 1000000000) return 0;
    }
    return 1;
}

static int in_vdso(unsigned long pc) { return pc >= (unsigned long)base && pc < (unsigned long)base + 0x4000; }

static sigjmp_buf out;
static int saw_vdso, frames_behind;
static _Unwind_Reason_Code frame(struct _Unwind_Context *context, void *unused) {
    (void)unused;
    if (saw_vdso) frames_behind++;
    if (in_vdso(_Unwind_GetIP(context))) saw_vdso = 1;
    return _URC_NO_REASON;
}
static void on_fault(int s) {
    (void)s;
    _Unwind_Backtrace(frame, 0);
    siglongjmp(out, 1);
}

// Reads the clock in the middle of reading the clock.
static volatile sig_atomic_t alarms;
static long long at_alarm;
static void on_alarm(int s) {
    (void)s;
    struct timespec now;
    gettime(CLOCK_MONOTONIC, &now);
    at_alarm = nanos(&now);
    alarms++;
}

// A loop that does nothing else is interrupted by each alarm, of which there is one at a time; and no reading is torn.
static int interrupted(void) {
    struct itimerval soon = {{0, 0}, {0, 500}};
    struct timespec first, last, now;
    int rises = 1;
    signal(SIGALRM, on_alarm);
    gettime(CLOCK_MONOTONIC, &first);
    last = first;
    for (int i = 0; i < 40; i++) {
        setitimer(ITIMER_REAL, &soon, 0);
        for (; alarms == i && nanos(&last) - nanos(&first) < 20000000000; last = now) {
            gettime(CLOCK_MONOTONIC, &now);
            rises &= nanos(&now) >= nanos(&last) && now.tv_nsec < 1000000000;
        }
    }
    gettime(CLOCK_MONOTONIC, &now);
    return rises && alarms == 40 && at_alarm >= nanos(&first) && at_alarm <= nanos(&now);
}

static int count(struct dl_phdr_info *info, size_t size, void *found) {
    (void)size;
    if (info->dlpi_addr == (unsigned long)base) ++*(int *)found;
    return 0;
}

int main(void) {
    base = (const char *)getauxval(AT_SYSINFO_EHDR);
    printf("an ELF file: %d\n", base && !memcmp(base, ELFMAG, SELFMAG));
    if (!base) return 1;
    gettime = look_up("__vdso_clock_gettime");
    timeofday = look_up("__vdso_gettimeofday");
    seconds = look_up("__vdso_time");
    cpu_and_node = look_up("__vdso_getcpu");
    printf("functions: %d %d %d %d\n", !!gettime, !!timeofday, !!seconds, !!cpu_and_node);
    printf("other names: %d %d %d %d\n", !!look_up("clock_gettime"), !!look_up("gettimeofday"), !!look_up("time"), !!look_up("getcpu"));
    int linked = 0;
    dl_iterate_phdr(count, &linked);
    printf("linked: %d\n", linked);

    printf("clocks: %d %d %d %d %d\n", agrees(CLOCK_REALTIME), agrees(CLOCK_MONOTONIC), agrees(CLOCK_BOOTTIME),
        agrees(CLOCK_PROCESS_CPUTIME_ID), agrees(CLOCK_THREAD_CPUTIME_ID));
    struct timespec last = {0}, now;
    int rises = 1;
    for (int i = 0; i < 1000; i++, last = now) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        rises &= nanos(&now) >= nanos(&last);
    }
    printf("monotonic: %d\n", rises);
    printf("no such clock: %d\n", gettime(99, &now) == -EINVAL);
    struct timeval of_day;
    struct timezone zone = {77, 77};
    struct timespec real;
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &real);
    int done = timeofday(&of_day, 0);
    printf("of day: %d %d\n", done, of_day.tv_usec < 1000000 && of_day.tv_sec - real.tv_sec <= 5 &&
        of_day.tv_sec * 1000000LL + of_day.tv_usec >= nanos(&real) / 1000);
    printf("zone: %d %d\n", timeofday(&of_day, &zone), zone.tz_minuteswest == 77);
    time_t stored = 0, t = seconds(&stored);
    printf("seconds: %d %d\n", t == stored, t - real.tv_sec >= -1 && t - real.tv_sec <= 5 && seconds(0) - t <= 5);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    unsigned cpu = 99, node = 99;
    done = cpu_and_node(&cpu, &node, 0);
    printf("cpu: %d %d %d\n", done, CPU_ISSET(cpu, &one), node < 64);

    signal(SIGSEGV, on_fault);
    if (!sigsetjmp(out, 1)) gettime(CLOCK_MONOTONIC, (struct timespec *)8);
    printf("unwound: %d %d\n", saw_vdso, frames_behind >= 1);

    printf("interrupted: %d\n", interrupted());

    FILE *maps = fopen("/proc/self/maps", "r");
    char line[500], permissions[5];
    int named = 0;
    unsigned long start;
    while (fgets(line, sizeof line, maps))
        if (strstr(line, "[vdso]") && sscanf(line, "%lx-%*x %4s", &start, permissions) == 2)
            named = start == (unsigned long)base && !strcmp(permissions, "r-xp");
    printf("in maps: %d\n", named);
    return 0;
}
