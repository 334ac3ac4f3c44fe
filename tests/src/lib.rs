//! What the tests across crates share: the golden-file runner and what the suites compare.
//!
//! | file          | what                                                                        |
//! |---------------|-----------------------------------------------------------------------------|
//! | `counts.rs`   | host instructions for each row of the lifter's table                        |
//! | `golden.rs`   | directories of text files that state input and expected output, `BLESS=1`   |
//! | `ir_case.rs`  | `tests/ir/*.ir`: passes and verifier                                        |
//! | `ir_doc.rs`   | the tables of `docs/IR.md`                                                  |

pub mod counts;
pub mod golden;
pub mod ir_case;
pub mod ir_doc;
