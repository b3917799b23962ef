//! The host as its files show it: `/proc`, `/sys`, and the limits of one process.
//!
//! A value that cannot be read is `None`, and a check then says so instead of guessing.

use std::fs;
use std::path::{Path, PathBuf};

/// Whom the package makes for the service.
const SERVICE_USER: &str = "uproar";

/// The groups of a user or a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Whose, in words.
    pub of: String,
    /// Their numbers.
    pub ids: Vec<u64>,
}

/// Where to read.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
    /// `self`, or the number of the process whose limits count.
    process: String,
}

impl Tree {
    /// This host, as this process sees it.
    #[must_use]
    pub fn host() -> Self {
        Self::under("/")
    }

    /// A tree that only looks like a host.
    #[must_use]
    pub fn under(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), process: "self".into() }
    }

    /// The limits of another process, such as a running node.
    #[must_use]
    pub fn with_process(self, pid: u32) -> Self {
        Self { process: pid.to_string(), ..self }
    }

    /// The trimmed text of a file.
    pub(super) fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = fs::read_to_string(self.path(path.as_ref())).ok()?;
        Some(text.trim().to_owned())
    }

    /// The numbers of a kernel setting, named with dots.
    pub(super) fn sysctl(&self, key: &str) -> Option<Vec<u64>> {
        let text = self.read(sysctl_path(key))?;
        text.split_whitespace().map(|number| number.parse().ok()).collect()
    }

    /// The text of a kernel setting, named with dots.
    pub(super) fn sysctl_text(&self, key: &str) -> Option<String> {
        self.read(sysctl_path(key))
    }

    /// A file of the process.
    pub(super) fn process(&self, file: &str) -> Option<String> {
        self.read(self.process_path(file))
    }

    /// Where a file of the process is, below the root.
    pub(super) fn process_path(&self, file: &str) -> String {
        format!("proc/{}/{file}", self.process)
    }

    /// The hard limit of the process in this row of its limits; `u64::MAX` is none.
    pub(super) fn hard_limit(&self, row: &str) -> Option<u64> {
        let limits = self.process("limits")?;
        let rest = limits.lines().find_map(|line| line.strip_prefix(row))?;
        match rest.split_whitespace().nth(1)? {
            "unlimited" => Some(u64::MAX),
            number => number.parse().ok(),
        }
    }

    /// RLIMIT_NOFILE of the process.
    #[must_use]
    pub fn descriptors_max(&self) -> Option<u64> {
        self.hard_limit("Max open files")
    }

    /// A field of the process's status, such as `Seccomp`.
    pub(super) fn status(&self, field: &str) -> Option<String> {
        let status = self.process("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Some(line?.trim().to_owned())
    }

    /// The groups of the running node, or of the user of the service, or of who asks where there is none.
    pub(super) fn service_groups(&self) -> Groups {
        let of_process = |of: String| {
            let fields = ["Gid", "Groups"].map(|field| self.status(field).unwrap_or_default());
            let ids = fields.iter().flat_map(|text| text.split_whitespace());
            Groups { of, ids: ids.filter_map(|id| id.parse().ok()).collect() }
        };
        if self.process != "self" {
            return of_process(format!("process {}", self.process));
        }
        let Some((_, gid)) = self.service_user() else { return of_process("this shell".into()) };
        let groups = self.read("etc/group").unwrap_or_default();
        let others = groups.lines().filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let is_member = fields.get(3)?.split(',').any(|member| member == SERVICE_USER);
            is_member.then(|| fields[2].parse().ok())?
        });
        let ids = std::iter::once(u64::from(gid)).chain(others).collect();
        Groups { of: format!("the user {SERVICE_USER}"), ids }
    }

    /// User and group of the service, if the package has made them.
    #[must_use]
    pub fn service_user(&self) -> Option<(u32, u32)> {
        let passwd = self.read("etc/passwd")?;
        let line = passwd.lines().find(|line| line.split(':').next() == Some(SERVICE_USER))?;
        let mut ids = line.split(':').skip(2);
        Some((ids.next()?.parse().ok()?, ids.next()?.parse().ok()?))
    }

    /// User and group that the process acts as.
    #[must_use]
    pub fn process_user(&self) -> Option<(u32, u32)> {
        let effective = |field| self.status(field)?.split_whitespace().nth(1)?.parse().ok();
        Some((effective("Uid")?, effective("Gid")?))
    }

    /// The hard limit of locked memory.
    #[must_use]
    pub fn memlock_max(&self) -> Option<u64> {
        self.hard_limit("Max locked memory")
    }

    /// The CPUs that the process may run on.
    #[must_use]
    pub fn cpus_allowed(&self) -> Option<Vec<usize>> {
        cpu_list(&self.status("Cpus_allowed_list")?)
    }

    /// The texts of a file in the process's own cgroup and in all above it, each with where it is. All of
    /// them bind: the tightest is what the process has.
    pub(super) fn cgroups(&self, file: &str) -> Vec<(String, String)> {
        let cgroups = self.process("cgroup").unwrap_or_default();
        let Some(own) = cgroups.lines().find_map(|line| line.strip_prefix("0::")) else {
            return Vec::new();
        };
        Path::new(own.trim_start_matches('/'))
            .ancestors()
            .filter_map(|above| {
                let text = self.read(Path::new("sys/fs/cgroup").join(above).join(file))?;
                Some((format!("/{}", above.display()), text))
            })
            .collect()
    }

    /// The names in a directory, sorted; none if it is not there.
    pub(super) fn names(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = fs::read_dir(self.path(path.as_ref())).into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// What the links in a directory point to; `None` if it cannot be read.
    pub(super) fn links(&self, path: &str) -> Option<Vec<String>> {
        let entries = fs::read_dir(self.path(path.as_ref())).ok()?.flatten();
        let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
        Some(links.filter_map(|link| link.into_os_string().into_string().ok()).collect())
    }

    /// Whether something is there.
    pub(super) fn has(&self, path: impl AsRef<Path>) -> bool {
        self.path(path.as_ref()).exists()
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.root.join(path)
    }
}

/// The CPUs of a list such as `0-3,7`.
pub(super) fn cpu_list(list: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| text.trim().parse::<usize>().ok();
        cpus.extend(number(low)?..=number(high)?);
    }
    Some(cpus)
}

fn sysctl_path(key: &str) -> PathBuf {
    Path::new("proc/sys").join(key.replace('.', "/"))
}
