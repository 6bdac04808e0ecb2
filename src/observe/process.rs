//! What the system says of this process, read from `/proc` when it is asked for. Other systems have
//! no such files and therefore none of these metrics.

use std::fmt;
use std::fs::{read_dir, read_to_string};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

/// Ticks of a second in `/proc`, on every Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// The metrics `process_…`, under the names that every Prometheus client gives them.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let read = |name: &str| read_to_string(format!("/proc/{name}")).unwrap_or_default();
        let (stat, status, limits) = (read("self/stat"), read("self/status"), read("self/limits"));
        if let Some(seconds) = cpu_seconds(&stat) {
            let help = "Processor time of the process, its own and the kernel's.";
            let value = ConstCounter::new(seconds);
            let kind = value.metric_type();
            let unit = Some(&Unit::Seconds);
            value.encode(encoder.encode_descriptor("process_cpu", help, unit, kind)?)?;
        }
        let started = start_time(&stat, &read("stat"));
        let (bytes, seconds) = (Some(&Unit::Bytes), Some(&Unit::Seconds));
        // The folder is open while it is read.
        let open = read_dir("/proc/self/fd").map(|fds| fds.count().saturating_sub(1) as f64).ok();
        for (name, help, unit, value) in [
            ("process_resident_memory", "Memory in use.", bytes, memory(&status, "VmRSS:")),
            ("process_virtual_memory", "Addresses in use.", bytes, memory(&status, "VmSize:")),
            ("process_start_time", "When the process began, Unix time.", seconds, started),
            ("process_open_fds", "Open file descriptors.", None, open),
            ("process_max_fds", "Most open file descriptors.", None, max_fds(&limits)),
        ] {
            if let Some(value) = value {
                let value = ConstGauge::new(value);
                let kind = value.metric_type();
                value.encode(encoder.encode_descriptor(name, help, unit, kind)?)?;
            }
        }
        Ok(())
    }
}

/// The fields of `/proc/self/stat` behind the command's name, which may hold spaces and brackets.
fn stat_field(stat: &str, index: usize) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(index)?.parse().ok()
}

/// `utime` and `stime`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 11)? + stat_field(stat, 12)?) / TICKS)
}

/// Unix seconds: when the machine began, and how long after that `starttime` was.
fn start_time(stat: &str, machine: &str) -> Option<f64> {
    let line = machine.lines().find_map(|line| line.strip_prefix("btime "))?;
    let began: f64 = line.trim().parse().ok()?;
    Some(began + stat_field(stat, 19)? / TICKS)
}

/// Bytes, of a line such as `VmRSS:     1234 kB`.
fn memory(status: &str, name: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

/// The bound that is in force; nothing where there is none.
fn max_fds(limits: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_read_as_it_writes_them() {
        let stat = "4242 (a) R (b) S 1 2 3 0 -1 4194560 5 6 7 8 150 50 0 0 20 0 9 0 12345 99 1";
        assert_eq!(cpu_seconds(stat), Some(2.0));
        assert_eq!(start_time(stat, "cpu 1 2\nbtime 1000\nprocesses 7\n"), Some(1123.45));
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t     100 kB\n";
        assert_eq!(memory(status, "VmRSS:"), Some(102_400.0));
        assert_eq!(memory(status, "VmSize:"), Some(2_097_152.0));
        let limits = "Max cpu time   unlimited  unlimited  seconds\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!(max_fds("Max open files   unlimited  unlimited  files\n"), None);
        for nothing in ["", "1 (a", "1 (a) S"] {
            assert_eq!((cpu_seconds(nothing), start_time(nothing, "")), (None, None));
        }
        assert_eq!((memory("VmRSS: x kB", "VmRSS:"), memory("", "VmRSS:")), (None, None));
    }
}
