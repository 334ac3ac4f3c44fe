//! `HostIsa`: the machine that code is made for. A value, so that code for one host is made and looked at on another.

use crate::arch;
use cranelift_codegen::isa::{self, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};

/// Instruction set architecture of a host.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Arch {
    X86_64,
    Aarch64,
}

impl Arch {
    /// As in file names and options.
    pub fn name(self) -> &'static str {
        match self {
            Arch::X86_64 => "x86_64",
            Arch::Aarch64 => "aarch64",
        }
    }
}

/// An architecture with the optional features that generated code may use.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostIsa {
    /// The architecture.
    pub arch: Arch,
    /// Names of Cranelift's ISA settings that are on, and of [`OWN_FEATURES`].
    features: Vec<&'static str>,
}

/// What golden files are made for: x86-64-v3 (System V psABI 3.1.1), AES and PCLMULQDQ.
#[rustfmt::skip]
const X86_64_V3: &[&str] = &[
    "has_cmpxchg16b", "has_sse3", "has_ssse3", "has_sse41", "has_sse42", "has_popcnt",
    "has_avx", "has_avx2", "has_fma", "has_bmi1", "has_bmi2", "has_lzcnt", "aes", "pclmulqdq",
];

/// What golden files are made for: Armv8.2, as in Neoverse N1 and Cortex-A76, with FEAT_AES, FEAT_PMULL and FEAT_SHA256.
const ARMV8_2: &[&str] = &["has_lse", "aes", "pclmulqdq", "sha2"];

/// Features that Cranelift does not know: FEAT_LRCPC and FEAT_LRCPC2 (`order.rs`); FEAT_AFP, with which results that are NaN are
/// x86's (`lower/float.rs`); AES and carry-less products, by x86's names, FEAT_SHA256 (`lower/inline.rs`).
const OWN_FEATURES: &[&str] = &["lrcpc", "lrcpc2", "afp", "aes", "pclmulqdq", "sha2"];

/// Settings of the code generator, the same for every host. Measured: see `docs/ARCHITECTURE.md`, "Cranelift's settings".
#[rustfmt::skip]
const SETTINGS: &[(&str, &str)] = &[
    ("opt_level",           "none"),
    ("regalloc_algorithm",  "backtracking"),
    ("unwind_info",         "false"),
    ("enable_probestack",   "false"),
    // Guest code is not kept from anything that is in its own process.
    ("enable_table_access_spectre_mitigation", "false"),
    // `Compiler` runs the verifier itself, where it is asked to.
    ("enable_verifier",     "false"),
];

impl HostIsa {
    /// The machine this process runs on.
    pub fn native() -> HostIsa {
        let features = arch::native_features().into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
        HostIsa { arch: arch::NATIVE, features }
    }

    /// A host by its architecture's name, with a fixed set of features that is common on such machines.
    pub fn parse(name: &str) -> Option<HostIsa> {
        match name {
            "x86_64" | "x86-64" => Some(HostIsa { arch: Arch::X86_64, features: X86_64_V3.to_vec() }),
            "aarch64" | "arm64" => Some(HostIsa { arch: Arch::Aarch64, features: ARMV8_2.to_vec() }),
            // The first version of the architecture, and the ones that brought FEAT_LRCPC, FEAT_LRCPC2 and FEAT_AFP.
            "aarch64-v8.0" => Some(HostIsa { arch: Arch::Aarch64, features: Vec::new() }),
            "aarch64-v8.3" => Some(HostIsa { arch: Arch::Aarch64, features: vec!["has_lse", "lrcpc"] }),
            "aarch64-v8.4" => Some(HostIsa { arch: Arch::Aarch64, features: vec!["has_lse", "lrcpc", "lrcpc2"] }),
            "aarch64-v8.7" => {
                Some(HostIsa { arch: Arch::Aarch64, features: vec!["has_lse", "lrcpc", "lrcpc2", "afp"] })
            }
            _ => None,
        }
    }

    /// The same host without a feature: code for it runs wherever code for this one does.
    pub fn without(mut self, feature: &str) -> HostIsa {
        self.features.retain(|known| *known != feature);
        self
    }

    /// Whether code for this host runs in this process.
    pub fn is_native(&self) -> bool {
        self.arch == arch::NATIVE
    }

    /// Whether a feature is on, by the name of Cranelift's setting or of [`OWN_FEATURES`].
    pub fn has(&self, feature: &str) -> bool {
        self.features.contains(&feature)
    }

    /// Cranelift's view of this host.
    ///
    /// # Panics
    /// If a setting of this file is unknown to Cranelift, which a test excludes.
    pub(crate) fn cranelift(&self) -> OwnedTargetIsa {
        let mut flags = settings::builder();
        for (name, value) in SETTINGS {
            flags.set(name, value).unwrap_or_else(|e| panic!("setting {name}: {e}"));
        }
        // x86-64: tail calls need them (cranelift-codegen, isa/x64/inst/emit.rs); on AArch64 frames would only cost.
        let frames = if self.arch == Arch::X86_64 { "true" } else { "false" };
        flags.set("preserve_frame_pointers", frames).expect("a Cranelift setting");
        let triple = match self.arch {
            Arch::X86_64 => "x86_64-unknown-linux-gnu",
            Arch::Aarch64 => "aarch64-unknown-linux-gnu",
        };
        let mut builder = isa::lookup_by_name(triple).expect("both architectures are compiled in");
        for feature in self.features.iter().filter(|f| !OWN_FEATURES.contains(f)) {
            builder.enable(feature).unwrap_or_else(|e| panic!("feature {feature}: {e}"));
        }
        builder.finish(settings::Flags::new(flags)).expect("consistent settings")
    }
}

impl std::fmt::Display for HostIsa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.arch.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_is_known_to_cranelift() {
        for isa in [HostIsa::native(), HostIsa::parse("x86_64").unwrap(), HostIsa::parse("aarch64").unwrap()] {
            isa.cranelift();
        }
        assert_eq!(HostIsa::parse("riscv64"), None);
    }
}
