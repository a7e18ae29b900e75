//! How much memory there is: the limit of the container.

use std::path::Path;

/// The memory limit in bytes of the control group of this process, version 2 or 1; none if it is unlimited.
pub fn memory_limit() -> Option<u64> {
    limit_below(
        Path::new("/sys/fs/cgroup"),
        &std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
    )
}

/// The smallest limit of a group and those around it. `membership` is the text of `/proc/self/cgroup`.
fn limit_below(root: &Path, membership: &str) -> Option<u64> {
    let limits = membership.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (folder, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            of if of.split(',').any(|of| of == "memory") => (root.join("memory"), "memory.limit_in_bytes"),
            _ => return Vec::new(),
        };
        let group = Path::new(group.trim_start_matches('/'));
        // Inside a container, the root that is mounted may be the container's own group already.
        group.ancestors().filter_map(|group| read(&folder.join(group).join(file))).collect()
    });
    limits.min()
}

fn read(file: &Path) -> Option<u64> {
    // Version 1 says "unlimited" by a number close to the largest.
    std::fs::read_to_string(file).ok()?.trim().parse().ok().filter(|limit| *limit < 1 << 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_around_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("pod/memory.max", "536870912\n");
        write("pod/envoy/memory.max", "max\n");
        write("memory/box/memory.limit_in_bytes", "1048576\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        let limit = |membership| limit_below(root.path(), membership);
        assert_eq!(limit("0::/pod/envoy\n"), Some(512 << 20));
        assert_eq!(limit("0::/pod\n"), Some(512 << 20));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit("5:cpu,memory:/box\n0::/\n"), Some(1 << 20));
        assert_eq!(limit("5:memory:/\n4:cpu:/box\n"), None);
        assert_eq!(limit(""), None);
    }
}
