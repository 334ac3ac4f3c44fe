//! `calque diff`: two executions of one single-threaded program in lockstep.
//!
//! # Processes
//! ```text
//!   controller ---- shared memory ----> agent: the guest under the engine to be tested; it leads
//!      |   \------- shared memory ----> agent at rest: the checkpoint, a copy of the leader
//!      \----------- ptrace -----------> follower: the guest on the processor (or another agent, in another engine)
//! ```
//! The leader is an ordinary Calque process whose dispatcher loop is the agent's. Whoever follows began as a copy of a leader: same
//! program, stack, auxiliary vector and layout without anything being arranged, and no descriptors.
//!
//! # A turn
//! The leader runs until something happens: a system call, a fault, a signal to deliver, so many branches. The follower then
//! runs to the same place, at native speed, and both states are compared. Only if they are equal the leader carries out what has
//! happened, for real and once; registers, memory that the kernel has written and mappings that have changed are given to the
//! follower. So a call that only one side would have made is never made.
//!
//! # Checkpoints and narrowing
//! Every now and then all memory is compared. If it is equal, one copy of the leader is a checkpoint of *both* sides. What has happened since is
//! kept. When a difference shows, a pair made from the checkpoint goes the same way again in shorter steps, making
//! checkpoints of its own, until the difference lies within one step; that one is run an instruction at a time (`narrow.rs`).
//!
//! # Invariants
//! - **L1** State and memory of leader and follower are equal at a checkpoint, but for what `rules.rs` lets pass.
//! - **L2** The leader goes first: every instruction that the follower comes to was translated before, so the
//!   instructions that only the translator can run (`watch.rs`) are known before the follower meets them.
//! - **L3** Between checkpoint and present everything that came from outside is in the log.
//!
//! | file          | what                                                               |
//! |---------------|--------------------------------------------------------------------|
//! | `channel.rs`  | shared memory between controller and agents                        |
//! | `state.rs`    | registers, and messages                                            |
//! | `agent.rs`    | the guest's side                                                   |
//! | `birth.rs`    | copies of an agent                                                 |
//! | `meter.rs`    | exact places                                                        |
//! | `watch.rs`    | special instructions and time stamps                               |
//! | `short.rs`    | single instructions and blocks                                     |
//! | `remote.rs`   | another process's memory; instructions run on it by the interpreter |
//! | `native.rs`   | the processor as a follower                                        |
//! | `follower.rs` | either follower                                                    |
//! | `control.rs`  | turns, log, checkpoints                                            |
//! | `narrow.rs`   | from a difference to an instruction                                |
//! | `rules.rs`    | what has to be equal                                               |
//! | `sabotage.rs` | switches that break something, for tests                            |
//! | `describe.rs`, `report.rs` | the report                                            |

mod agent;
mod birth;
mod channel;
mod control;
mod describe;
mod follower;
mod meter;
mod narrow;
#[cfg(target_arch = "x86_64")]
mod native;
mod remote;
mod report;
mod rules;
mod sabotage;
mod short;
mod state;
mod watch;

pub(crate) use agent::{ASK, Ending};
pub use control::{DiffOptions, NOT_STARTED, Reference, diff};
#[cfg(target_arch = "x86_64")]
pub(crate) use sabotage::corrupt_bytes;
pub(crate) use sabotage::is_broken;
pub use sabotage::{Sabotage, sabotage};
pub(crate) use watch::value;

use crate::thread::Thread;
use crate::world::Member;
use arc_swap::ArcSwapOption;
use std::ffi::CString;
use std::sync::Arc;

/// Where a guest process finds its controller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// The controller's process.
    pub(crate) controller: i32,
    /// Its descriptor of the channel.
    pub(crate) descriptor: i32,
    pub(crate) seat: u32,
    /// Children get controllers, too.
    pub(crate) follow: bool,
    /// Seat for the child that is being made.
    pub(crate) child: Option<u32>,
}

static PLACE: ArcSwapOption<Place> = ArcSwapOption::const_empty();

/// More bytes than any block has.
const LONGEST_BLOCK: u64 = 64 * 15;

/// This process's place, if it is under a controller.
pub(crate) fn place() -> Option<Place> {
    PLACE.load().as_deref().copied()
}

/// Whether another execution repeats what this process does.
pub fn is_compared() -> bool {
    place().is_some()
}

/// Puts this process under a controller, or under none.
pub fn set_place(place: Option<Place>) {
    PLACE.store(place.map(Arc::new));
}

impl Place {
    /// Reads what [`exec_argument`] writes behind the equals sign.
    pub fn parse(text: &str) -> Option<Place> {
        let mut numbers = text.split(':').map(str::parse::<i32>);
        let mut next = || numbers.next()?.ok();
        let (controller, descriptor, seat, follow) = (next()?, next()?, next()?, next()?);
        Some(Place { controller, descriptor, seat: seat as u32, follow: follow != 0, child: None })
    }
}

/// The argument with which `execve` hands the place on.
pub(crate) fn exec_argument() -> Option<CString> {
    let place = place()?;
    let text = format!("--under={}:{}:{}:{}", place.controller, place.descriptor, place.seat, i32::from(place.follow));
    Some(CString::new(text).expect("numbers have no NUL"))
}

/// Looks at what has just been lifted.
#[inline]
pub(crate) fn lifted(region: &mut calque_ir::Region) {
    watch::translated(&region.source);
    sabotage::corrupt(region);
    meter::lifted(region);
}

/// Runs `thread` as the agent at `place`.
pub(crate) fn agent(thread: &mut Thread, member: &Member, place: Place) -> Ending {
    agent::run(thread, member, place)
}
