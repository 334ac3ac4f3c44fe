//! The counters of `--stats`: one row each.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($( $(#[doc = $doc:literal])* $name:ident; )*) => {
        /// What happened in this process.
        #[derive(Default, Debug)]
        pub struct Stats { $( $(#[doc = $doc])* pub $name: AtomicU64, )* }

        impl fmt::Display for Stats {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(
                    let value = self.$name.load(Ordering::Relaxed);
                    writeln!(f, "{value:>14}  {:<22}{}", stringify!($name), concat!($($doc),*))?;
                )*
                Ok(())
            }
        }
    };
}

counters! {
    /// blocks lifted for the interpreter
    cold_blocks;
    /// guest instructions in them
    cold_insns;
    /// units of copied instructions made
    units;
    /// guest instructions in them
    unit_insns;
    /// units that compare their bytes whenever they run
    checked_units;
    /// times such a unit found them changed, or a linkage stub its slot
    changed_units;
    /// times the interpreter ran an instruction that cannot be copied
    odd_insns;
    /// bytes of their code at the end
    unit_code_bytes;
    /// bytes of tables about them
    unit_table_bytes;
    /// times that the interpreter ran a block before anything is made of it
    first_runs;
    /// guest instructions in those blocks
    first_run_insns;
    /// blocks of earlier runs used again
    saved_blocks;
    /// guest instructions in them
    saved_insns;
    /// blocks emitted by tier 0
    emitted_blocks;
    /// guest instructions in them
    emitted_insns;
    /// regions emitted by tier 0 in the place of hot blocks
    emitted_regions;
    /// their guest instructions
    emitted_region_insns;
    /// nanoseconds spent lifting and emitting them
    emit_ns;
    /// blocks that could not be emitted and are interpreted
    emit_failures;
    /// times a countdown brought a thread back from emitted code
    countdowns;
    /// regions compiled
    regions;
    /// guest instructions in them
    region_insns;
    /// nanoseconds spent lifting and compiling them
    compile_ns;
    /// regions that could not be compiled
    compile_failures;
    /// times generated code was entered from the dispatcher
    enters;
    /// direct exits whose target was not compiled or not joined yet
    unlinked_exits;
    /// times the interpreter ran a block for the floats in it, for which generated code cannot do as the control words say
    uncarried_floats;
    /// indirect jumps and returns that missed the jump cache
    missed_jumps;
    /// exits joined to their targets
    links;
    /// times guest code was invalidated
    invalidations;
    /// writes to pages with code that faulted
    code_writes;
    /// entries found unchanged after their page was written to
    reclaimed;
    /// entries dropped because their bytes had changed
    retranslations;
    /// accesses that the host refused for their alignment
    unaligned;
    /// blocks lifted that compare their bytes whenever they run
    checked_blocks;
    /// system calls
    syscalls;
    /// faults raised in the guest
    faults;
}

/// Adds to a counter; exact enough where threads race.
pub fn add(counter: &AtomicU64, n: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}
