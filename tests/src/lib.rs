//! What the tests across crates share: the golden-file runner and the differential tester of instructions.
//!
//! | file          | what                                                                        |
//! |---------------|-----------------------------------------------------------------------------|
//! | `difftest/`   | instructions against the real processor                                     |
//! | `golden.rs`   | directories of text files that state input and expected output, `BLESS=1`   |
//! | `insn_case.rs`| `tests/insn/*.case`: single instructions on every host                      |
//! | `ir_case.rs`  | `tests/ir/*.ir`: passes and verifier                                        |
//! | `ir_doc.rs`   | the tables of `docs/IR.md`                                                  |

pub mod difftest;
pub mod golden;
pub mod insn_case;
pub mod ir_case;
pub mod ir_doc;
