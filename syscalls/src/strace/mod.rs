//! `--strace`.
pub mod names;
pub fn run(call: &mut crate::call::Call<'_>) -> calque_runtime::Outcome { call.run() }
