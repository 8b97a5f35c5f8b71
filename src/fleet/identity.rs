//! Which worker this process is.

/// A worker's name and number in the fleet, the same over its restarts where the environment says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The pod's name; `worker-<ordinal>` where only the number is given; the machine's name and the process id otherwise.
    pub name: String,
    /// Its number in the StatefulSet: the highest is removed first.
    pub ordinal: Option<u32>,
}

impl Identity {
    /// From `POD_NAME` (its ordinal is the number behind the last hyphen) and `MILLRACE_ORDINAL`, which wins.
    pub fn from_environment(variable: impl Fn(&str) -> Option<String>) -> Self {
        let pod = variable("POD_NAME").filter(|pod| !pod.is_empty());
        let given = variable("MILLRACE_ORDINAL").and_then(|ordinal| ordinal.trim().parse().ok());
        let of_pod = pod.as_deref().and_then(|pod| pod.rsplit_once('-')?.1.parse().ok());
        let ordinal = given.or(of_pod);
        let name = pod.or_else(|| ordinal.map(|ordinal: u32| format!("worker-{ordinal}"))).unwrap_or_else(of_process);
        Self { name, ordinal }
    }
}

fn of_process() -> String {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let machine = if machine.trim().is_empty() { "worker" } else { machine.trim() };
    format!("{machine}-{}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Identity {
        Identity::from_environment(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn names_and_ordinals() {
        let is = |name: &str, ordinal| Identity { name: name.to_owned(), ordinal };
        assert_eq!(of(&[("POD_NAME", "millrace-12")]), is("millrace-12", Some(12)));
        assert_eq!(of(&[("POD_NAME", "millrace-x7k2")]), is("millrace-x7k2", None));
        assert_eq!(of(&[("MILLRACE_ORDINAL", "3")]), is("worker-3", Some(3)));
        assert_eq!(of(&[("POD_NAME", "a-1"), ("MILLRACE_ORDINAL", "4")]), is("a-1", Some(4)));
        let alone = of(&[]);
        assert!(alone.ordinal.is_none() && alone.name.ends_with(&std::process::id().to_string()), "{alone:?}");
    }
}
