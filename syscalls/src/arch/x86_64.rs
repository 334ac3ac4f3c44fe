//! x86-64 hosts.

pub(crate) use crate::abi::fcntl::MOVING as OPEN_FLAGS;
pub(crate) use crate::abi::sem::SemidDs as HostSemidDs;

/// Number of the host's call of this name: the guest's own.
pub(crate) fn host_number(_name: &str, guest: u32) -> Option<u32> {
    Some(guest)
}

pub(crate) fn semid_to_guest(host: HostSemidDs) -> HostSemidDs {
    host
}

pub(crate) fn semid_to_host(guest: HostSemidDs) -> HostSemidDs {
    guest
}
