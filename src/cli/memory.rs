//! How much memory there is for models.

use std::process::Command;

use candle_core::Device;

use crate::engine::KV_BUDGET;

/// Bytes when nothing can be found out.
const UNKNOWN: u64 = 8 << 30;

/// Bytes that models may take unless the operator says otherwise: three quarters of a GPU's memory,
/// which streams' keys and values share; half of the machine's otherwise, which is not ours alone.
pub(super) fn for_models(device: &Device) -> u64 {
    let share = match device {
        Device::Cuda(_) => of_gpu().map(|bytes| bytes / 4 * 3),
        _ => of_machine().map(|bytes| bytes / 2),
    };
    share.unwrap_or_else(|| {
        tracing::warn!("how much memory there is cannot be found out; --model-memory says what models may take");
        UNKNOWN
    })
}

/// Bytes for the keys and values of the first model's voices unless the operator says otherwise:
/// two fifths of a GPU's memory; on a CPU it is only used as far as voices fill it.
pub(super) fn for_keys(device: &Device) -> usize {
    match device {
        Device::Cuda(_) => of_gpu().map_or(KV_BUDGET, |bytes| (bytes / 5 * 2) as usize),
        _ => KV_BUDGET,
    }
}

/// Bytes for what requests hold unless the operator says otherwise: an eighth of the machine's
/// memory, within bounds that let one large upload through and are enough for many.
pub(super) fn for_requests() -> u64 {
    (of_machine().unwrap_or(UNKNOWN) / 8).clamp(640 << 20, 1 << 30)
}

/// The memory of the first GPU, from the driver's own tool.
fn of_gpu() -> Option<u64> {
    let query = ["--query-gpu=memory.total", "--format=csv,noheader,nounits", "--id=0"];
    let told = Command::new("nvidia-smi").args(query).output().ok()?;
    let megabytes: u64 = String::from_utf8(told.stdout).ok()?.trim().parse().ok()?;
    Some(megabytes << 20)
}

/// The memory of the machine, or of the container if that is less.
#[cfg(target_os = "linux")]
fn of_machine() -> Option<u64> {
    let table = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = kilobytes(&table)? << 10;
    let limits = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let limit = |path| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    Some(limits.into_iter().filter_map(limit).fold(total, u64::min))
}

#[cfg(target_os = "linux")]
fn kilobytes(table: &str) -> Option<u64> {
    let line = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// The memory of the machine.
#[cfg(not(target_os = "linux"))]
fn of_machine() -> Option<u64> {
    let told = Command::new("sysctl").args(["-n", "hw.memsize"]).output().ok()?;
    String::from_utf8(told.stdout).ok()?.trim().parse().ok()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_machine_tells_its_memory() {
        assert_eq!(kilobytes("MemTotal:       24577532 kB\nMemFree: 1 kB\n"), Some(24_577_532));
        assert_eq!(kilobytes("nonsense"), None);
        assert!(of_machine().is_some_and(|bytes| bytes > 64 << 20));
    }
}
