//! PUSH and POP: accesses that write their address back, two of them in one instruction.
//!
//! Functions begin with a row of PUSHes and end with a row of POPs. The emitter makes a pair of the second when it comes by, in the place of the first:
//! what stands between, other registers' arithmetic, is carried out behind it then. Not where accesses are ordered: those have other
//! forms, and a pair would promise no order between its two.
//!
//! **Faults.** A pair changes RSP only when both of its accesses have succeeded, and what it may have stored or loaded before it
//! faults it stores or loads again. So the state at its fault is that in front of the first of the two instructions, and whether that or the second
//! faults is found out by the interpreter, which executes the first ([`is_stack_pair`]). By the architecture, a pair of
//! loads may leave anything in its registers when it faults: then a signal handler finds that in the second POP's register.

use super::Emitter;
use super::encode::{self as e, X};
use super::regs::{CPU, GPR_HOME};

/// Where RSP is.
const RSP: u32 = GPR_HOME[4] as u32;

/// PUSH and POP of x0: `str x0, [rsp, #-8]!` and `ldr x0, [rsp], #8` (Arm ARM C6.2, LDR and STR of immediate offset).
const PUSH: u32 = 0xf800_0000 | (-8i32 as u32 & 0x1ff) << 12 | e::PRE_INDEX | RSP << 5;
const POP: u32 = 0xf840_0000 | 8 << 12 | e::POST_INDEX | RSP << 5;

/// Two of them: `stp x0, x0, [rsp, #-16]!` and `ldp x0, x0, [rsp], #16` (C6.2, LDP and STP).
const PUSHES: u32 = 0xa980_0000 | (-2i32 as u32 & 0x7f) << 15 | RSP << 5;
const POPS: u32 = 0xa8c0_0000 | 2 << 15 | RSP << 5;

/// One instruction for two PUSHes or two POPs, if these are such. One register cannot be loaded twice by it.
fn stack_pair(first: u32, second: u32) -> Option<u32> {
    let (t, u) = (first & 31, second & 31);
    match (first & !31, second & !31) {
        (PUSH, PUSH) => Some(PUSHES | t << 10 | u),
        (POP, POP) if t != u => Some(POPS | u << 10 | t),
        _ => None,
    }
}

/// Whether an instruction of emitted code executes two of the guest's. When it faults, the guest is in front of the first of them, which may
/// be executed by itself.
pub fn is_stack_pair(word: u32) -> bool {
    matches!(word & !(31 << 10 | 31), PUSHES | POPS)
}

/// Whether an instruction can as well be carried out behind the load or store of `r` that follows it: it neither touches that
/// register nor RSP nor guest memory, and leads to no other place.
fn yields(word: u32, r: u32) -> bool {
    // Arm ARM C4.1: data processing of constants, of registers, of vectors; loads and stores.
    let class = word >> 25 & 15;
    let computes = matches!(class, 0b1000 | 0b1001 | 0b0101 | 0b1101 | 0b0111 | 0b1111);
    let accesses_state = class & 0b0101 == 0b0100 && word >> 5 & 31 == u32::from(CPU.0);
    // All places of registers in an instruction, whether this one has them or not.
    let touches = |r: u32| [0, 5, 10, 16].into_iter().any(|at| word >> at & 31 == r);
    (computes || accesses_state) && !touches(r) && !touches(RSP)
}

impl Emitter {
    /// Makes the access emitted last, at `[home]` or `[home, #disp]`, write its address back, if it is one that can: PUSH and POP.
    pub(super) fn fold_index(&mut self, home: X, base: X, disp: i32) -> bool {
        let last = self.code.len().wrapping_sub(1);
        if home != base || !(-256..256).contains(&disp) || last < self.barrier || self.accesses[0] != Some(last) {
            return false;
        }
        let word = self.code[last];
        let own = |word: u32| (word >> 5 & 31) as u8 == home.0;
        let vector = word >> 26 & 1 != 0;
        // The value moved must not be the base (Arm ARM, LDR/STR immediate: constrained unpredictable).
        if !own(word) || !vector && (word & 31) as u8 == home.0 {
            return false;
        }
        let index = disp as u32 & 0x1ff;
        let unscaled = word & 0x3b20_0c00 == 0x3800_0000;
        if unscaled && word >> 12 & 0x1ff == index {
            self.code[last] = word | e::PRE_INDEX;
        } else if word & 0x3b3f_fc00 == 0x3900_0000 {
            // At the register itself: the scaled form with offset 0.
            self.code[last] = word & !0x0100_0000 | index << 12 | e::POST_INDEX;
        } else {
            return false;
        }
        self.pair_with_last(last);
        true
    }

    /// Makes one instruction of the access before and this one, the last word, if they are two PUSHes or two POPs.
    fn pair_with_last(&mut self, this: usize) {
        let Some(before) = self.accesses[1].filter(|&before| before >= self.barrier) else { return };
        let (first, second) = (self.code[before], self.code[this]);
        let Some(pair) = stack_pair(first, second) else { return };
        if !self.code[before + 1..this].iter().all(|&word| yields(word, second & 31)) {
            return;
        }
        self.code[before] = pair;
        self.code.pop();
        if self.pcs.last().is_some_and(|&(at, _)| at as usize == 4 * this) {
            self.pcs.pop();
        }
        self.accesses = [None; 2];
    }
}

#[cfg(test)]
mod tests {
    use super::e::{Access, At, Size};
    use super::*;

    fn push(n: u8) -> u32 {
        e::access(Access::STRX, n, At::Disp(X(3), -8)) | e::PRE_INDEX
    }

    #[test]
    fn pairs_are_known_again() {
        let pushes = stack_pair(push(20), push(21)).expect("two pushes");
        // stp x21, x20, [x3, #-16]!: the second lies below the first.
        assert_eq!((pushes, is_stack_pair(pushes)), (0xa9bf_5075, true));
        let pop = |n: u32| POP | n;
        // ldp x21, x20, [x3], #16
        assert_eq!(stack_pair(pop(21), pop(20)), Some(0xa8c1_5075));
        assert_eq!(stack_pair(pop(21), pop(21)), None, "of one register");
        assert_eq!(stack_pair(push(20), pop(20)), None);
        assert!(!is_stack_pair(push(20)) && !is_stack_pair(e::ldp(X(16), X(17), X(8))));
    }

    #[test]
    fn what_touches_the_register_does_not_yield() {
        let mov = |d, n| e::op3(e::ORR, Size::X, X(d), e::ZR, X(n));
        assert!(yields(mov(5, 6), 20) && !yields(mov(20, 6), 20) && !yields(mov(5, 20), 20) && !yields(mov(5, 3), 20));
        let store = |base| e::access(Access::STRX, 5, At::Disp(X(base), 16));
        assert!(yields(store(2), 20) && !yields(store(6), 20), "guest memory");
        assert!(!yields(e::b(4), 20) && !yields(e::DMB_ISH, 20));
    }
}
