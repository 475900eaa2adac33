//! What the system says of this process (proc(5)).

use std::fs;

use super::{Families, NONE};

/// Times in /proc are in hundredths of a second on every architecture that Rust's standard library is built for.
const TICKS: f64 = 100.0;

/// Looks it up. What cannot be read stays as it was.
pub(super) fn set(families: &Families) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The program's name may hold spaces and parentheses; what follows it may not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Numbered as in proc_pid_stat(5), where the state is field 3.
    let ticks = |field: usize| fields.get(field - 3).and_then(|text| text.parse::<f64>().ok());
    if let (Some(user), Some(system)) = (ticks(14), ticks(15)) {
        let counter = families.cpu.with_label_values(NONE);
        counter.reset();
        counter.inc_by((user + system) / TICKS);
    }
    if let (Some(started), Some(boot)) = (ticks(22), boot_time()) {
        families.start_time.with_label_values(NONE).set(boot + started / TICKS);
    }
    if let Some(bytes) = resident() {
        families.resident.with_label_values(NONE).set(bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        families.open_fds.with_label_values(NONE).set(open.count().try_into().unwrap_or(i64::MAX));
    }
}

fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn resident() -> Option<i64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
