//! The atomics and locks of what several threads use without stopping each other: the standard library's, or, with the feature
//! `models`, loom's. Loom runs a test again for every order in which its threads can take their steps, and for every value that the memory model lets a
//! load yield. So the tests named `models` check the code that ships, not a copy of it.
//!
//! Loom takes sequentially consistent accesses for acquire and release. In models there is a fence, which loom knows in full, before those that
//! load: no stronger than what compilers make of them on both hosts, where such a load comes after every such store before it (x86-64: `xchg`
//! and `mov`; AArch64: `stlr` and `ldar`).

#[cfg(not(feature = "models"))]
pub use std::{
    sync::atomic::{AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, fence},
    sync::{Mutex, MutexGuard},
    thread::yield_now,
};

#[cfg(feature = "models")]
pub use loom::{
    sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, fence},
    sync::{Mutex, MutexGuard},
    thread::yield_now,
};

#[cfg(feature = "models")]
pub use consistent::{AtomicBool, AtomicUsize};

#[cfg(feature = "models")]
mod consistent {
    use loom::sync::atomic::fence;
    use std::sync::atomic::Ordering::{self, SeqCst};

    /// What loom is to do for an access that loads.
    fn fenced(order: Ordering, weaker: Ordering) -> Ordering {
        if order != SeqCst {
            return order;
        }
        fence(SeqCst);
        weaker
    }

    /// One row for each atomic that has such accesses, and those it has.
    macro_rules! atomics {
        ($($name:ident $value:ty: $($rmw:ident)*;)*) => { $(
            #[derive(Debug, Default)]
            pub struct $name(loom::sync::atomic::$name);

            impl $name {
                pub fn new(value: $value) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub fn load(&self, order: Ordering) -> $value {
                    self.0.load(fenced(order, Ordering::Acquire))
                }

                pub fn store(&self, value: $value, order: Ordering) {
                    self.0.store(value, if order == SeqCst { Ordering::Release } else { order });
                }

                $(pub fn $rmw(&self, value: $value, order: Ordering) -> $value {
                    self.0.$rmw(value, fenced(order, Ordering::AcqRel))
                })*
            }
        )* };
    }

    atomics! {
        AtomicBool  bool:  swap;
        AtomicUsize usize: swap fetch_add fetch_sub;
    }
}
