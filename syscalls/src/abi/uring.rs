//! The structures of io_uring (linux/io_uring.h), the same on both hosts, and its flags as far as Calque looks at them.

use super::layout;
use bytemuck::{AnyBitPattern, NoUninit};

/// `struct io_uring_params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct Params {
    pub sq_entries: u32,
    pub cq_entries: u32,
    pub flags: u32,
    pub sq_thread_cpu: u32,
    pub sq_thread_idle: u32,
    pub features: u32,
    pub wq_fd: i32,
    pub reserved: [u32; 3],
    pub sq: SubmissionOffsets,
    pub cq: CompletionOffsets,
}

/// `struct io_sqring_offsets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct SubmissionOffsets {
    pub head: u32,
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub flags: u32,
    pub dropped: u32,
    pub array: u32,
    pub reserved: u32,
    /// Where the entries are to lie ([`setup::NO_MMAP`]).
    pub user_addr: u64,
}

/// `struct io_cqring_offsets`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct CompletionOffsets {
    pub head: u32,
    pub tail: u32,
    pub ring_mask: u32,
    pub ring_entries: u32,
    pub overflow: u32,
    pub cqes: u32,
    pub flags: u32,
    pub reserved: u32,
    /// Where both rings are to lie ([`setup::NO_MMAP`]).
    pub user_addr: u64,
}

layout!(Params, size 120, sq 40, cq 80);

/// `struct io_uring_sqe`: fields have the names of their most common use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct Entry {
    pub opcode: u8,
    pub flags: u8,
    pub priority: u16,
    pub fd: i32,
    /// Offset, or second address.
    pub off: u64,
    pub addr: u64,
    pub len: u32,
    pub op_flags: u32,
    pub user_data: u64,
    pub buffer: u16,
    pub personality: u16,
    /// `splice_fd_in`, `file_index`, or `addr_len` in its low half.
    pub second_fd: i32,
    pub addr3: u64,
    pub pad: u64,
}

layout!(Entry, size 64, off 8, addr 16, len 24, user_data 32, second_fd 44, addr3 48);

/// `IOSQE_*`.
pub(crate) const FIXED_FILE: u8 = 1 << 0;
pub(crate) const BUFFER_SELECT: u8 = 1 << 5;

/// `IORING_SETUP_*`.
pub(crate) mod setup {
    pub(crate) const SQPOLL: u32 = 1 << 1;
    pub(crate) const CQSIZE: u32 = 1 << 3;
    pub(crate) const ATTACH_WQ: u32 = 1 << 5;
    pub(crate) const SQE128: u32 = 1 << 10;
    pub(crate) const CQE32: u32 = 1 << 11;
    pub(crate) const NO_MMAP: u32 = 1 << 14;
    pub(crate) const REGISTERED_FD_ONLY: u32 = 1 << 15;
    pub(crate) const NO_SQARRAY: u32 = 1 << 16;
    /// Up to `HYBRID_IOPOLL`, without those that want other memory or no descriptor.
    pub(crate) const KNOWN: u32 = ((1 << 18) - 1) & !(NO_MMAP | REGISTERED_FD_ONLY);
}

/// `IORING_FEAT_*`: up to `NO_IOWAIT`, without `REG_REG_RING`.
pub(crate) const FEATURES: u32 = ((1 << 18) - 1) & !(1 << 13);

/// `IORING_ENTER_*`.
pub(crate) mod enter {
    pub(crate) const GETEVENTS: u32 = 1 << 0;
    pub(crate) const EXT_ARG: u32 = 1 << 3;
    const SQ_WAKEUP: u32 = 1 << 1;
    const SQ_WAIT: u32 = 1 << 2;
    const ABS_TIMER: u32 = 1 << 5;
    const NO_IOWAIT: u32 = 1 << 7;
    pub(crate) const KNOWN: u32 = GETEVENTS | SQ_WAKEUP | SQ_WAIT | EXT_ARG | ABS_TIMER | NO_IOWAIT;
}

/// `IORING_OFF_*`: what a mapping of the descriptor shows.
pub(crate) const OFF_SQ_RING: u64 = 0;
pub(crate) const OFF_CQ_RING: u64 = 0x800_0000;
pub(crate) const OFF_SQES: u64 = 0x1000_0000;

/// `struct io_uring_getevents_arg`.
#[derive(Clone, Copy, Debug, AnyBitPattern, NoUninit)]
#[repr(C)]
pub(crate) struct GetEvents {
    pub sigmask: u64,
    pub sigmask_size: u32,
    pub min_wait: u32,
    pub limit: u64,
}

layout!(GetEvents, size 24, limit 16);

/// `struct io_uring_probe`, and each of the `io_uring_probe_op` behind it.
pub(crate) const PROBE: u64 = 16;
pub(crate) const PROBE_OP: u64 = 8;
/// `IO_URING_OP_SUPPORTED`.
pub(crate) const OP_SUPPORTED: u16 = 1;
