//! The guest memory that a call has written, from the row's argument types: what `calque diff` gives to the other execution.
//!
//! Too much does no harm beyond its copying, too little shows as a difference. So lengths are those of the result where it says
//! them, else those of the buffers.

use crate::call::Call;
use crate::row::{Arg, Dir, IOV_MAX, MMSGHDR};
use calque_runtime::{GuestAddr, GuestRange, access};

/// Memory behind arguments whose type is just an address: (call, argument, length).
#[rustfmt::skip]
const UNTYPED: &[(&str, usize, Length)] = &[
    ("mincore",           2, Length::Pages(1)),
    ("getsockopt",        3, Length::At(4)),
    ("clone",             2, Length::Bytes(4)),
    ("clone",             3, Length::Bytes(4)),
    ("msgrcv",            1, Length::Result(8)),
    ("semctl",            3, Length::Bytes(1024)),
    ("futex",             0, Length::Bytes(4)),
    ("futex",             4, Length::Bytes(4)),
    ("sysfs",             2, Length::Bytes(64)),
    ("quotactl",          3, Length::Bytes(128)),
    ("quotactl_fd",       3, Length::Bytes(128)),
    ("get_mempolicy",     1, Length::Bytes(128)),
    ("move_pages",        4, Length::Ints(1)),
    ("name_to_handle_at", 2, Length::Bytes(136)),
    ("bpf",               1, Length::Bytes(128)),
    ("lsm_get_self_attr", 1, Length::At(2)),
    ("lsm_list_modules",  0, Length::At(1)),
    ("prctl",             1, Length::Bytes(64)),
    ("arch_prctl",        1, Length::Bytes(8)),
    ("futex_waitv",       0, Length::Bytes(0)),
    ("getxattrat",        4, Length::Bytes(16)),
];

/// How much.
enum Length {
    Bytes(u64),
    /// As many as a 32-bit word says where this argument points.
    At(usize),
    /// As many as the result, and so many before.
    Result(u64),
    /// A byte for each page of the length in this argument.
    Pages(usize),
    /// An `int` for each of the number in this argument.
    Ints(usize),
}

impl Length {
    fn bytes(&self, args: &[u64; 6], result: u64) -> u64 {
        match *self {
            Length::Bytes(n) => n,
            Length::At(i) => access::read::<u32>(GuestAddr(args[i])).unwrap_or(0).into(),
            Length::Result(before) => before + result,
            Length::Pages(i) => args[i].div_ceil(4096),
            Length::Ints(i) => 4 * args[i],
        }
    }
}

/// What `call` has written; `result` is its RAX.
pub(crate) fn of(call: &Call<'_>, result: u64) -> Vec<GuestRange> {
    let failed = result > -4096i64 as u64;
    let mut list = Written { ranges: Vec::new() };
    for (i, &arg) in call.row.args.iter().enumerate() {
        list.argument(call, i, arg, if failed { None } else { Some(result) });
    }
    for (_, i, length) in UNTYPED.iter().filter(|(name, ..)| *name == call.row.name && !failed) {
        list.add(call.args[*i], length.bytes(&call.args, result));
    }
    list.ranges
}

struct Written {
    ranges: Vec<GuestRange>,
}

impl Written {
    fn add(&mut self, at: u64, len: u64) {
        if at != 0
            && len != 0
            && let Some(range) = GuestRange::new(GuestAddr(at), len)
        {
            self.ranges.push(range);
        }
    }

    fn argument(&mut self, call: &Call<'_>, i: usize, arg: Arg, result: Option<u64>) {
        let args = &call.args;
        match arg {
            Arg::Out(n) => self.add(args[i], result.unwrap_or(0).min(args[n as usize])),
            Arg::OutIov(n) => self.vectors(args[i], args[n as usize], result.unwrap_or(0)),
            Arg::OutMsg => self.message(args[i], result),
            Arg::OutMmsg(n) => {
                for k in 0..args[n as usize].min(IOV_MAX) {
                    self.message(args[i] + k * MMSGHDR, result.map(|_| u64::MAX));
                    self.add(args[i] + k * MMSGHDR + 56, 4);
                }
            }
            // Sockets say afterwards how long the address is; the buffer may be shorter than any address.
            Arg::OutSock(n) => {
                let len = access::read::<u32>(GuestAddr(args[n as usize])).unwrap_or(0).min(128);
                self.add(args[i], len.into());
                self.add(args[n as usize], 4);
            }
            _ => {
                for (dir, at, len) in arg.buffers(args, i) {
                    if dir == Dir::Out {
                        self.add(at, len);
                    }
                }
            }
        }
    }

    /// The first `total` bytes of the buffers of a `struct iovec[count]`.
    fn vectors(&mut self, iov: u64, count: u64, mut total: u64) {
        let count = count.min(IOV_MAX) as usize;
        for [base, len] in access::read_slice::<[u64; 2]>(GuestAddr(iov), count).unwrap_or_default() {
            let len = len.min(total);
            self.add(base, len);
            total -= len;
        }
    }

    /// `struct msghdr` received: name, namelen, iov, iovlen, control, controllen, flags.
    fn message(&mut self, at: u64, result: Option<u64>) {
        self.add(at, crate::row::MSGHDR);
        let Ok(header) = access::read::<[u64; 7]>(GuestAddr(at)) else { return };
        let [name, namelen, iov, iovlen, control, controllen, _] = header;
        self.add(name, (namelen & 0xffff_ffff).min(128));
        self.add(control, controllen.min(1 << 16));
        self.vectors(iov, iovlen, result.unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::TABLE;

    #[test]
    fn untyped_outputs_are_of_calls_in_the_table() {
        for (name, i, _) in UNTYPED {
            let row = TABLE.iter().find(|row| row.name == *name);
            assert!(row.is_some_and(|row| *i < row.args.len()), "{name}");
        }
    }
}
