//! Which CPUs the load generator may use, which it takes, and keeping to them.
//!
//! What the process was given (taskset, a cgroup's cpuset) is asked once, before the first pin: after
//! it the kernel answers with what we chose ourselves.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs this thread may use now, ascending.
pub(crate) fn allowed() -> Result<Vec<usize>, String> {
    let set = sched_getaffinity(None)
        .map_err(|error| format!("cannot ask which CPUs this process may use: {error}"))?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect())
}

/// The CPUs for planes: those wanted, or the last of the `allowed`.
pub(crate) fn choose(wanted: &[usize], allowed: &[usize]) -> Result<Vec<usize>, String> {
    if let Some(cpu) = wanted.iter().find(|cpu| !allowed.contains(cpu)) {
        let allowed = list(allowed);
        return Err(format!("this process may not use CPU {cpu}; it may use {allowed}"));
    }
    match (wanted, allowed.last()) {
        ([], Some(&last)) => Ok(vec![last]),
        ([], None) => Err("this process may use no CPU that this tool can name".to_owned()),
        (wanted, _) => Ok(wanted.to_vec()),
    }
}

/// What to say when planes and server share CPUs.
pub(crate) fn overlap(planes: &[usize], server: &[usize]) -> Option<String> {
    let shared: Vec<usize> = planes.iter().copied().filter(|cpu| server.contains(cpu)).collect();
    (!shared.is_empty()).then(|| {
        format!(
            "warning: the server is pinned to CPU {} as well as the load generator, so both are measured \
             together; give --cpus others",
            list(&shared)
        )
    })
}

/// Keeps this thread, and those it starts, on `cpus`, which are among the allowed.
pub(crate) fn pin(cpus: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    sched_setaffinity(None, &set)
        .map_err(|error| format!("cannot keep to CPU {}: {error}", list(cpus)))
}

fn list(cpus: &[usize]) -> String {
    cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_allowed_cpu_is_the_default_and_others_are_refused() {
        assert_eq!(choose(&[], &[0, 1]), Ok(vec![1]));
        assert_eq!(choose(&[], &[3]), Ok(vec![3]));
        assert_eq!(choose(&[5, 3], &[3, 4, 5]), Ok(vec![5, 3]));
        for refused in [2, 1_023, 1_024, usize::MAX] {
            let text = choose(&[3, refused], &[3, 4]).unwrap_err();
            assert_eq!(text, format!("this process may not use CPU {refused}; it may use 3,4"));
        }
        assert!(choose(&[], &[]).is_err());
    }

    #[test]
    fn only_shared_cpus_are_warned_of() {
        assert_eq!(overlap(&[1], &[0]), None);
        assert_eq!(overlap(&[1], &[]), None);
        assert!(overlap(&[0, 1, 2], &[1, 2]).unwrap().contains("CPU 1,2 as well"));
    }

    #[test]
    fn a_pinned_thread_may_use_what_it_was_pinned_to() {
        std::thread::spawn(|| {
            let last = choose(&[], &allowed().unwrap()).unwrap();
            pin(&last).unwrap();
            assert_eq!(allowed().unwrap(), last);
        })
        .join()
        .unwrap();
    }
}
