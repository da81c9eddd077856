//! The machine, in a few words.

use std::fs::read_to_string;

/// Such as `4 x Intel(R) Xeon(R) CPU, 24 GiB, Linux 6.18.5`, or `2 of 4 x …` where the run is bound to some of the cores
/// (`taskset`): the cluster, which it starts, is bound to the same.
pub fn describe() -> String {
    let read = |path| read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let memory = read("/proc/meminfo");
    let kernel = read("/proc/sys/kernel/osrelease");
    let usable = std::thread::available_parallelism().map_or(usize::MAX, usize::from);
    compose(&cpus, usable, &memory, kernel.trim())
}

fn compose(cpus: &str, usable: usize, memory: &str, kernel: &str) -> String {
    let value = |line: &str| line.split(':').nth(1).map(|value| value.trim().to_owned());
    let count = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let model = cpus
        .lines()
        .find(|line| line.starts_with("model name"))
        .and_then(value);
    let kilobytes: Option<f64> = memory
        .lines()
        .find(|line| line.starts_with("MemTotal"))
        .and_then(|line| line.split_whitespace().nth(1))
        .and_then(|number| number.parse().ok());
    let gibibytes = kilobytes.unwrap_or_default() / f64::from(1 << 20);
    let model = model.unwrap_or_else(|| "CPU".into());
    let count = if usable < count {
        format!("{usable} of {count}")
    } else {
        count.to_string()
    };
    format!("{count} x {model}, {gibibytes:.0} GiB, Linux {kernel}")
}

/// The machine's load average over the last minute.
pub fn load() -> f64 {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_by_what_matters() {
        let cpus = "processor\t: 0\nmodel name\t: Fast One\n\nprocessor\t: 1\nmodel name\t: Fast One\n";
        let memory = "MemTotal:       16777216 kB\nMemFree: 1 kB\n";
        assert_eq!(compose(cpus, 2, memory, "6.1"), "2 x Fast One, 16 GiB, Linux 6.1");
        assert_eq!(
            compose(cpus, 1, memory, "6.1"),
            "1 of 2 x Fast One, 16 GiB, Linux 6.1"
        );
    }

    #[test]
    fn the_load_of_this_machine_is_read() {
        assert!(load() > 0.0 || read_to_string("/proc/loadavg").unwrap().starts_with("0.00"));
    }
}
