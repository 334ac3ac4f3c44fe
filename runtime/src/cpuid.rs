//! CPUID as the guest sees it: what is announced is what the lifter can do.

/// EAX, EBX, ECX, EDX of a leaf (SDM vol. 2 CPUID).
pub fn cpuid(leaf: u32, _subleaf: u32) -> [u32; 4] {
    match leaf {
        0 => [1, u32::from_le_bytes(*b"Genu"), u32::from_le_bytes(*b"ntel"), u32::from_le_bytes(*b"ineI")],
        // FPU TSC MSR CX8 CMOV MMX FXSR SSE SSE2.
        1 => [0x0006_06f0, 0x0800, 0, 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 15 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26],
        0x8000_0000 => [0x8000_0001, 0, 0, 0],
        // SYSCALL, NX, LM.
        0x8000_0001 => [0, 0, 1, 1 << 11 | 1 << 20 | 1 << 29],
        _ => [0; 4],
    }
}
