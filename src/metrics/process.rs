//! What the system says of this process, under the names that Prometheus' client libraries
//! have made customary. Where there is no `/proc`, there is nothing to say.

use std::fs;

use rustix::param::{clock_ticks_per_second, page_size};

use super::registry::{Declaration, Family, Unit};

/// The families that can be had. Their names take no prefix.
pub(super) fn families() -> Vec<Family> {
    let stat = Stat::read();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let network = fs::read_to_string("/proc/self/net/netstat").unwrap_or_default();
    let stat_of = |value: fn(&Stat) -> Option<f64>| stat.as_ref().and_then(value);
    let families = [
        counter(CPU_SECONDS, stat_of(Stat::cpu_seconds)),
        gauge(START_TIME, stat_of(Stat::start_time)),
        gauge(VIRTUAL_MEMORY, stat_of(Stat::virtual_memory)),
        gauge(RESIDENT_MEMORY, stat_of(Stat::resident_memory)),
        gauge(VIRTUAL_MEMORY_MAX, limit(&limits, "Max address space")),
        gauge(MAX_FDS, limit(&limits, "Max open files")),
        gauge(OPEN_FDS, open_descriptors()),
        counter(RECEIVED, octets(&network, "InOctets")),
        counter(TRANSMITTED, octets(&network, "OutOctets")),
    ];
    families.into_iter().flatten().collect()
}

const CPU_SECONDS: &Declaration = &Declaration {
    name: "process_cpu_seconds_total",
    unit: Unit::Seconds,
    meaning: "Total user and system CPU time spent in seconds.",
};
const START_TIME: &Declaration = &Declaration {
    name: "process_start_time_seconds",
    unit: Unit::Seconds,
    meaning: "Start time of the process since unix epoch in seconds.",
};
const VIRTUAL_MEMORY: &Declaration = &Declaration {
    name: "process_virtual_memory_bytes",
    unit: Unit::Bytes,
    meaning: "Virtual memory size in bytes.",
};
const VIRTUAL_MEMORY_MAX: &Declaration = &Declaration {
    name: "process_virtual_memory_max_bytes",
    unit: Unit::Bytes,
    meaning: "Maximum amount of virtual memory available in bytes.",
};
const RESIDENT_MEMORY: &Declaration = &Declaration {
    name: "process_resident_memory_bytes",
    unit: Unit::Bytes,
    meaning: "Resident memory size in bytes.",
};
const OPEN_FDS: &Declaration = &Declaration {
    name: "process_open_fds",
    unit: Unit::Things,
    meaning: "Number of open file descriptors.",
};
const MAX_FDS: &Declaration = &Declaration {
    name: "process_max_fds",
    unit: Unit::Things,
    meaning: "Maximum number of open file descriptors.",
};
const RECEIVED: &Declaration = &Declaration {
    name: "process_network_receive_bytes_total",
    unit: Unit::Bytes,
    meaning: "Number of bytes received by the network namespace of the process.",
};
const TRANSMITTED: &Declaration = &Declaration {
    name: "process_network_transmit_bytes_total",
    unit: Unit::Bytes,
    meaning: "Number of bytes sent by the network namespace of the process.",
};

fn counter(declaration: &'static Declaration, value: Option<f64>) -> Option<Family> {
    value.map(|value| Family::counter(declaration, value))
}

fn gauge(declaration: &'static Declaration, value: Option<f64>) -> Option<Family> {
    value.map(|value| Family::gauge(declaration, value))
}

/// Fields of `/proc/self/stat` (proc(5)), from the third on: the second, a name in
/// parentheses, may hold anything.
struct Stat(Vec<u64>);

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (_, fields) = text.rsplit_once(") ")?;
        // Fields that are no such number, as the state or a priority, are not wanted here.
        Some(Self(
            fields
                .split(' ')
                .map(|field| field.trim().parse().unwrap_or(0))
                .collect(),
        ))
    }

    /// A field by its number in the manual page.
    fn field(&self, number: usize) -> Option<f64> {
        self.0.get(number.checked_sub(3)?).map(|value| *value as f64)
    }

    fn cpu_seconds(&self) -> Option<f64> {
        Some((self.field(14)? + self.field(15)?) / clock_ticks_per_second() as f64)
    }

    fn start_time(&self) -> Option<f64> {
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime "))?;
        let boot: f64 = boot.trim().parse().ok()?;
        Some(boot + self.field(22)? / clock_ticks_per_second() as f64)
    }

    fn virtual_memory(&self) -> Option<f64> {
        self.field(23)
    }

    fn resident_memory(&self) -> Option<f64> {
        Some(self.field(24)? * page_size() as f64)
    }
}

/// The soft limit in a line of `/proc/self/limits`.
fn limit(limits: &str, name: &str) -> Option<f64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().next()? {
        // As far as numbers go there.
        "unlimited" => Some(u64::MAX as f64),
        number => number.parse().ok(),
    }
}

fn open_descriptors() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // One of them is the directory that is being read.
    Some(count.saturating_sub(1) as f64)
}

/// A number out of `/proc/self/net/netstat`, where a line of names stands above one of values.
fn octets(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("IpExt: "));
    let (names, values) = (lines.next()?, lines.next()?);
    let mut pairs = names.split(' ').zip(values.split(' '));
    pairs.find(|(found, _)| *found == name)?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_a_name_with_parentheses() {
        let fields: Vec<String> = (3..=52).map(|number| (number * 100).to_string()).collect();
        let stat = Stat::parse(&format!("7 (a) R (b) {}", fields.join(" "))).expect("well formed");
        assert_eq!(stat.field(14), Some(1400.0));
        assert_eq!(stat.virtual_memory(), Some(2300.0));
        assert_eq!(stat.field(53), None);
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn limits_may_be_numbers_or_none() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            1024                 524288               files     \n\
                    Max address space         unlimited            unlimited            bytes     \n";
        assert_eq!(limit(text, "Max open files"), Some(1024.0));
        assert_eq!(
            limit(text, "Max address space"),
            Some(18_446_744_073_709_551_615.0)
        );
        assert_eq!(limit(text, "Max something"), None);
    }

    #[test]
    fn traffic_is_found_by_name() {
        let text = "TcpExt: InOctets\nTcpExt: 9\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 12 34\n";
        assert_eq!(octets(text, "InOctets"), Some(12.0));
        assert_eq!(octets(text, "OutOctets"), Some(34.0));
        assert_eq!(octets("", "OutOctets"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_tells_all_of_it() {
        assert_eq!(families().len(), 9);
    }
}
