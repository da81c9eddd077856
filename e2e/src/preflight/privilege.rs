//! Whether this process may make namespaces, networks and mounts.

/// Names and bits of the capabilities that a cluster cannot do without (see capabilities(7)).
const WANTED: [(&str, u32); 4] = [
    ("CAP_SYS_ADMIN", 21),
    ("CAP_NET_ADMIN", 12),
    ("CAP_SYS_CHROOT", 18),
    ("CAP_MKNOD", 27),
];

/// A message if this process lacks rights.
pub(super) fn missing() -> Option<String> {
    match std::fs::read_to_string("/proc/self/status") {
        Ok(status) => lacking(&status),
        Err(error) => Some(format!("cannot read /proc/self/status: {error}")),
    }
}

/// Looks at a process's status in the form of `/proc/self/status`.
fn lacking(status: &str) -> Option<String> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.split_whitespace().collect())
    };
    let ids: Vec<&str> = field("Uid:").unwrap_or_default();
    if ids.get(1) != Some(&"0") {
        return Some(
            "a cluster needs root, for namespaces, mounts and networks: run it with sudo".to_owned(),
        );
    }
    let effective: Vec<&str> = field("CapEff:").unwrap_or_default();
    let bits = effective
        .first()
        .and_then(|bits| u64::from_str_radix(bits, 16).ok())
        .unwrap_or(0);
    let missing: Vec<&str> = WANTED
        .iter()
        .filter(|(_, bit)| bits & (1 << bit) == 0)
        .map(|(name, _)| *name)
        .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "root here lacks {}: a container without these rights cannot hold a cluster",
            missing.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn root_with_all_rights_will_do() {
        assert_eq!(
            lacking("Name:\tx\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n"),
            None
        );
    }

    #[test]
    fn another_user_is_told_to_become_root() {
        let message = lacking("Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\n").unwrap();
        assert!(message.contains("needs root"), "{message}");
    }

    #[test]
    fn root_of_a_plain_container_is_told_what_it_lacks() {
        let message = lacking("Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n").unwrap();
        assert!(message.contains("CAP_SYS_ADMIN, CAP_NET_ADMIN:"), "{message}");
    }
}
