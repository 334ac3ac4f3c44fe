//! `struct epoll_event`: packed on x86-64 only (linux/eventpoll.h, `EPOLL_PACKED`).

use super::layout;
use bytemuck::{AnyBitPattern, NoUninit};

/// x86-64's `struct epoll_event`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, AnyBitPattern, NoUninit)]
#[repr(C, packed)]
pub(crate) struct EpollEvent {
    pub events: u32,
    pub data: u64,
}

layout!(EpollEvent, size 12, data 4);

impl From<EpollEvent> for libc::epoll_event {
    fn from(guest: EpollEvent) -> Self {
        libc::epoll_event { events: guest.events, u64: guest.data }
    }
}

impl From<libc::epoll_event> for EpollEvent {
    fn from(host: libc::epoll_event) -> Self {
        EpollEvent { events: host.events, data: host.u64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip() {
        let guest = EpollEvent { events: 0x8000_0005, data: 0x0123_4567_89ab_cdef };
        assert_eq!(EpollEvent::from(libc::epoll_event::from(guest)), guest);
    }
}
