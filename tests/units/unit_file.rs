//! A unit file as systemd reads it: sections, keys with several values, an empty value that takes
//! back those before it, and drop-ins that go on where the file ends.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A unit with its drop-ins.
#[derive(Clone, Debug, Default)]
pub(crate) struct UnitFile {
    keys: BTreeMap<(String, String), Vec<String>>,
}

impl UnitFile {
    /// A unit of `tuning/systemd`.
    pub(crate) fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning/systemd").join(name);
        Self::default().with(&fs::read_to_string(path).unwrap())
    }

    /// The same after a drop-in.
    pub(crate) fn with(mut self, text: &str) -> Self {
        let mut section = String::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                section = name.to_owned();
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no key: {line}"));
            let values = self.keys.entry((section.clone(), key.to_owned())).or_default();
            if value.is_empty() {
                values.clear();
            } else {
                values.push(value.to_owned());
            }
        }
        self
    }

    /// All values of a key, in their order.
    pub(crate) fn all(&self, section: &str, key: &str) -> &[String] {
        self.keys.get(&(section.to_owned(), key.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The last value of a key.
    pub(crate) fn last(&self, section: &str, key: &str) -> Option<&str> {
        self.all(section, key).last().map(String::as_str)
    }

    /// The words of all values of a key.
    pub(crate) fn words(&self, section: &str, key: &str) -> Vec<&str> {
        self.all(section, key).iter().flat_map(|value| value.split(' ')).collect()
    }

    /// The number of a key, 0 if it is not there.
    pub(crate) fn number(&self, section: &str, key: &str) -> usize {
        self.last(section, key).map_or(0, |number| number.parse().unwrap())
    }
}
