//! The report of a guest that dies by a fault.

use crate::signal::{SigInfo, signal_name};
use crate::thread::Thread;

/// Prints why the guest dies, unless `--no-crash-report` was given.
pub fn report(thread: &Thread, info: &SigInfo) {
    if !thread.process.options.crash_report {
        return;
    }
    let cpu = &thread.cpu;
    eprintln!("calque: the guest died by {} (code {}) at pc {:#x}, address {:#x}", signal_name(info.signo), info.code, cpu.rip, info.addr());
}
