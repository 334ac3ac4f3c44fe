//! The x86-64 side of Calque: ELF files to load plans, guest bytes to IR.
//!
//! | module      | what                                                              |
//! |-------------|-------------------------------------------------------------------|
//! | `elf/`      | what `execve` would do with a file, as a load plan                |
//! | `decode.rs` | guest bytes to iced-x86 instructions, through the `CodeReader` trait |
//! | `direct/` | plain instructions carried out straight from their bytes          |
//! | `lift/`     | instructions to IR: the table, its families, blocks and regions   |

#![forbid(unsafe_code)]

pub mod decode;
pub mod direct;
pub mod elf;
pub mod lift;
mod plain;

pub use decode::CodeReader;
pub use lift::{Constants, LiftOptions, Lifted, Profile, lift_block, lift_checked, lift_region};
