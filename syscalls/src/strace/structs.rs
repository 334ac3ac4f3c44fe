//! Structures of the kernel interface as text, from their bytes.

use super::names;
use super::value::{flags, one, quote};
use crate::abi::stat::Stat;
use crate::row::Struct;
use calque_runtime::signal::{SigSet, signal_name};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Fields by offset, little-endian as the guest has them.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u16(&self, at: usize) -> u16 {
        u16::from_le_bytes(self.0[at..at + 2].try_into().expect("two bytes"))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.0[at..at + 4].try_into().expect("four bytes"))
    }

    fn i32(&self, at: usize) -> i32 {
        self.u32(at) as i32
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }

    fn i64(&self, at: usize) -> i64 {
        self.u64(at) as i64
    }

    /// Text up to a NUL.
    fn text(&self, at: usize, len: usize) -> String {
        let text = &self.0[at..at + len];
        quote(text.split(|&b| b == 0).next().unwrap_or(text), len)
    }

    fn timespec(&self, at: usize) -> String {
        format!("{{tv_sec={}, tv_nsec={}}}", self.i64(at), self.i64(at + 8))
    }

    fn timeval(&self, at: usize) -> String {
        format!("{{tv_sec={}, tv_usec={}}}", self.i64(at), self.i64(at + 8))
    }

    fn sigset(&self, at: usize) -> String {
        sigset(SigSet(self.u64(at)))
    }
}

/// The structure's text; `None` for those that are shown by their address.
pub(crate) fn text(kind: Struct, raw: &[u8]) -> Option<String> {
    let f = Fields(raw);
    Some(match kind {
        Struct::I32 | Struct::U32 | Struct::I64 | Struct::U64 | Struct::SchedParam | Struct::WaitStatus => {
            format!("[{}]", element(kind, raw)?)
        }
        Struct::FdPair => format!("[{}, {}]", f.i32(0), f.i32(4)),
        Struct::Itimerspec => format!("{{it_interval={}, it_value={}}}", f.timespec(0), f.timespec(16)),
        Struct::Itimerval => format!("{{it_interval={}, it_value={}}}", f.timeval(0), f.timeval(16)),
        Struct::Timezone => format!("{{tz_minuteswest={}, tz_dsttime={}}}", f.i32(0), f.i32(4)),
        Struct::Utimbuf => format!("{{actime={}, modtime={}}}", f.i64(0), f.i64(8)),
        Struct::Rlimit => format!("{{rlim_cur={}, rlim_max={}}}", limit(f.u64(0)), limit(f.u64(8))),
        Struct::Rusage => format!("{{ru_utime={}, ru_stime={}, ...}}", f.timeval(0), f.timeval(16)),
        Struct::Tms => format!(
            "{{tms_utime={}, tms_stime={}, tms_cutime={}, tms_cstime={}}}",
            f.i64(0),
            f.i64(8),
            f.i64(16),
            f.i64(24)
        ),
        Struct::Sysinfo => {
            format!("{{uptime={}, totalram={}, freeram={}, procs={}, ...}}", f.i64(0), f.u64(32), f.u64(40), f.u16(80))
        }
        Struct::Utsname => format!(
            "{{sysname={}, nodename={}, release={}, ..., machine={}, ...}}",
            f.text(0, 65),
            f.text(65, 65),
            f.text(130, 65),
            f.text(260, 65)
        ),
        Struct::Stat => stat(raw),
        Struct::Statx => format!(
            "{{stx_mask={}, stx_mode={}, stx_size={}, ...}}",
            flags(&names::STATX, f.u32(0).into()),
            mode(f.u16(28).into()),
            f.u64(40)
        ),
        Struct::Statfs => format!(
            "{{f_type={:#x}, f_bsize={}, f_blocks={}, f_bfree={}, f_bavail={}, f_files={}, f_ffree={}, ...}}",
            f.u64(0),
            f.u64(8),
            f.u64(16),
            f.u64(24),
            f.u64(32),
            f.u64(40),
            f.u64(48)
        ),
        Struct::Sigset => f.sigset(0),
        Struct::Sigaction => sigaction(&f),
        Struct::Siginfo => siginfo(&f),
        Struct::Stack => {
            format!("{{ss_sp={:#x}, ss_flags={}, ss_size={}}}", f.u64(0), flags(&names::SS, f.u32(8).into()), f.u64(16))
        }
        Struct::CloneArgs => format!(
            "{{flags={}, pidfd={:#x}, child_tid={:#x}, parent_tid={:#x}, exit_signal={}, stack={:#x}, stack_size={:#x}, tls={:#x}}}",
            flags(&names::CLONE, f.u64(0)),
            f.u64(8),
            f.u64(16),
            f.u64(24),
            f.u64(32),
            f.u64(40),
            f.u64(48),
            f.u64(56)
        ),
        Struct::OpenHow => {
            format!("{{flags={}, mode={:#o}, resolve={:#x}}}", flags(&names::OPEN, f.u64(0)), f.u64(8), f.u64(16))
                .replace("0o", "0")
        }
        Struct::Timespec | Struct::Timeval | Struct::Pollfd | Struct::EpollEvent | Struct::Sembuf => {
            element(kind, raw)?
        }
        Struct::Sigevent | Struct::Timex | Struct::Blob(_) => return None,
    })
}

/// The structure's text as one of an array.
pub(crate) fn element(kind: Struct, raw: &[u8]) -> Option<String> {
    let f = Fields(raw);
    Some(match kind {
        Struct::I32 | Struct::SchedParam => f.i32(0).to_string(),
        Struct::U32 => f.u32(0).to_string(),
        Struct::I64 => f.i64(0).to_string(),
        Struct::U64 => f.u64(0).to_string(),
        Struct::WaitStatus => wait_status(f.u32(0)),
        Struct::Timespec => f.timespec(0),
        Struct::Timeval => f.timeval(0),
        Struct::Pollfd => format!("{{fd={}, events={}}}", f.i32(0), flags(&names::POLL, f.u16(4).into())),
        Struct::EpollEvent => format!("{{events={}, data={:#x}}}", flags(&names::EPOLL, f.u32(0).into()), f.u64(4)),
        Struct::Sembuf => format!("{{sem_num={}, sem_op={}, sem_flg={:#x}}}", f.u16(0), f.u16(2) as i16, f.u16(4)),
        _ => return text(kind, raw),
    })
}

fn limit(value: u64) -> String {
    match value {
        u64::MAX => "RLIM64_INFINITY".to_owned(),
        v if v != 0 && v % 1024 == 0 => format!("{}*1024", v / 1024),
        v => v.to_string(),
    }
}

/// `S_IFREG|0644`.
fn mode(mode: u64) -> String {
    format!("{}|{:#05o}", one(&names::FILE_TYPE, mode & 0o170000), mode & 0o7777).replace("0o", "0")
}

fn stat(raw: &[u8]) -> String {
    let stat: Stat = bytemuck::pod_read_unaligned(raw);
    let what = match stat.st_mode & 0o170000 {
        0o020000 | 0o060000 => {
            // linux/kdev_t.h, new_decode_dev.
            let (major, minor) = (stat.st_rdev >> 8 & 0xfff, stat.st_rdev & 0xff | stat.st_rdev >> 12 & 0xfff00);
            format!("st_rdev=makedev({major:#x}, {minor:#x})")
        }
        _ => format!("st_size={}", stat.st_size),
    };
    format!("{{st_mode={}, {what}, ...}}", mode(stat.st_mode.into()))
}

/// `[CHLD INT]`, or `~[KILL]` for sets that are nearly full.
fn sigset(set: SigSet) -> String {
    let names = |set: SigSet| {
        let members = (1..=64).filter(|&n| set.contains(n)).map(signal_name);
        members.map(|n| n.strip_prefix("SIG").unwrap_or(&n).to_owned()).collect::<Vec<_>>().join(" ")
    };
    if set.0.count_ones() > 32 { format!("~[{}]", names(SigSet(!set.0))) } else { format!("[{}]", names(set)) }
}

fn sigaction(f: &Fields<'_>) -> String {
    let handler = match f.u64(0) {
        0 => "SIG_DFL".to_owned(),
        1 => "SIG_IGN".to_owned(),
        address => format!("{address:#x}"),
    };
    let (mask, flag) = (f.sigset(24), flags(&names::SA, f.u64(8)));
    let restorer = if f.u64(8) & 0x0400_0000 != 0 { format!(", sa_restorer={:#x}", f.u64(16)) } else { String::new() };
    format!("{{sa_handler={handler}, sa_mask={mask}, sa_flags={flag}{restorer}}}")
}

fn siginfo(f: &Fields<'_>) -> String {
    let (signal, code) = (f.i32(0), f.i32(8));
    let head = format!("si_signo={}, si_code={}", signal_name(signal), si_code(signal, code));
    let (pid, uid) = (f.i32(16), f.u32(20));
    match signal {
        0 => "{}".to_owned(),
        libc::SIGCHLD if code > 0 => format!("{{{head}, si_pid={pid}, si_uid={uid}, si_status={}, ...}}", f.i32(24)),
        _ if code <= 0 => format!("{{{head}, si_pid={pid}, si_uid={uid}}}"),
        _ => format!("{{{head}, si_addr={:#x}}}", f.u64(16)),
    }
}

/// The name of an `si_code` (asm-generic/siginfo.h).
fn si_code(signal: i32, code: i32) -> String {
    let name = match (signal, code) {
        (_, 0) => "SI_USER",
        (_, -1) => "SI_QUEUE",
        (_, -2) => "SI_TIMER",
        (_, -3) => "SI_MESGQ",
        (_, -6) => "SI_TKILL",
        (_, 0x80) => "SI_KERNEL",
        (libc::SIGCHLD, 1) => "CLD_EXITED",
        (libc::SIGCHLD, 2) => "CLD_KILLED",
        (libc::SIGCHLD, 3) => "CLD_DUMPED",
        (libc::SIGCHLD, 5) => "CLD_STOPPED",
        (libc::SIGCHLD, 6) => "CLD_CONTINUED",
        (libc::SIGSEGV, 1) => "SEGV_MAPERR",
        (libc::SIGSEGV, 2) => "SEGV_ACCERR",
        (libc::SIGBUS, 2) => "BUS_ADRERR",
        (libc::SIGFPE, 1) => "FPE_INTDIV",
        (libc::SIGILL, 2) => "ILL_ILLOPN",
        _ => return code.to_string(),
    };
    name.to_owned()
}

/// The status of wait(2), with the macros that take it apart.
fn wait_status(status: u32) -> String {
    let status = status as i32;
    if libc::WIFEXITED(status) {
        format!("{{WIFEXITED(s) && WEXITSTATUS(s) == {}}}", libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        let core = if libc::WCOREDUMP(status) { " && WCOREDUMP(s)" } else { "" };
        format!("{{WIFSIGNALED(s) && WTERMSIG(s) == {}{core}}}", signal_name(libc::WTERMSIG(status)))
    } else if libc::WIFSTOPPED(status) {
        format!("{{WIFSTOPPED(s) && WSTOPSIG(s) == {}}}", signal_name(libc::WSTOPSIG(status)))
    } else {
        "{WIFCONTINUED(s)}".to_owned()
    }
}

/// A socket address.
pub(crate) fn sockaddr(raw: &[u8]) -> String {
    let f = Fields(raw);
    if raw.len() < 2 {
        return "{}".to_owned();
    }
    let (family, port) = (f.u16(0), raw.get(2..4).map_or(0, |p| u16::from_be_bytes([p[0], p[1]])));
    let name = one(&names::AF, family.into());
    match i32::from(family) {
        libc::AF_INET if raw.len() >= 8 => {
            let address = Ipv4Addr::new(raw[4], raw[5], raw[6], raw[7]);
            format!("{{sa_family={name}, sin_port=htons({port}), sin_addr=inet_addr(\"{address}\")}}")
        }
        libc::AF_INET6 if raw.len() >= 24 => {
            let address = Ipv6Addr::from(<[u8; 16]>::try_from(&raw[8..24]).expect("sixteen bytes"));
            format!("{{sa_family={name}, sin6_port=htons({port}), sin6_addr=inet_pton(\"{address}\")}}")
        }
        libc::AF_UNIX if raw.len() > 2 && raw[2] == 0 => {
            format!("{{sa_family={name}, sun_path=@{}}}", quote(&raw[3..], raw.len()))
        }
        libc::AF_UNIX if raw.len() > 2 => format!("{{sa_family={name}, sun_path={}}}", f.text(2, raw.len() - 2)),
        libc::AF_NETLINK if raw.len() >= 12 => {
            format!("{{sa_family={name}, nl_pid={}, nl_groups={:#010x}}}", f.u32(4), f.u32(8))
        }
        _ => format!("{{sa_family={name}, sa_data={}}}", quote(&raw[2..], 32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures() {
        let words = |list: &[i64]| list.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>();
        assert_eq!(text(Struct::Timespec, &words(&[1, 5])).unwrap(), "{tv_sec=1, tv_nsec=5}");
        assert_eq!(
            text(Struct::Rlimit, &words(&[8 << 20, -1])).unwrap(),
            "{rlim_cur=8192*1024, rlim_max=RLIM64_INFINITY}"
        );
        assert_eq!(
            text(Struct::WaitStatus, &0x300u32.to_le_bytes()).unwrap(),
            "[{WIFEXITED(s) && WEXITSTATUS(s) == 3}]"
        );
        assert_eq!(
            text(Struct::WaitStatus, &9u32.to_le_bytes()).unwrap(),
            "[{WIFSIGNALED(s) && WTERMSIG(s) == SIGKILL}]"
        );
        assert_eq!(text(Struct::Sigset, &words(&[1 << 16 | 2])).unwrap(), "[INT CHLD]");
        assert_eq!(text(Struct::FdPair, &words(&[4 << 32 | 3])).unwrap(), "[3, 4]");
    }

    #[test]
    fn files() {
        let mut stat = Stat { st_mode: 0o100644, st_size: 12, ..Stat::default() };
        assert_eq!(text(Struct::Stat, bytemuck::bytes_of(&stat)).unwrap(), "{st_mode=S_IFREG|0644, st_size=12, ...}");
        stat = Stat { st_mode: 0o020620, st_rdev: 0x8801, ..Stat::default() };
        assert_eq!(
            text(Struct::Stat, bytemuck::bytes_of(&stat)).unwrap(),
            "{st_mode=S_IFCHR|0620, st_rdev=makedev(0x88, 0x1), ...}"
        );
    }

    #[test]
    fn socket_addresses() {
        assert_eq!(
            sockaddr(&[2, 0, 0, 80, 127, 0, 0, 1]),
            "{sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr(\"127.0.0.1\")}"
        );
        assert_eq!(sockaddr(b"\x01\x00/tmp/x\0"), "{sa_family=AF_UNIX, sun_path=\"/tmp/x\"}");
    }
}
