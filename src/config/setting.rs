//! One setting: its names, what it may hold, and how its text becomes a value.
//!
//! A setting is a row of data. Flags, variables, the file, `config default`, `config show`
//! and reload all walk the same rows, so a name or a range cannot differ between them.
//! What was typed stays text until a row turns it into the typed field it names.
//!
//! Not here: the rows (`server`, `limits`), where texts come from (`sources`).

use super::Config;

/// Whether a running node takes a new value on SIGHUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// At once.
    Live,
    /// Only when the process starts.
    Restart,
}

/// What a setting may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within `min..=max`.
    Number {
        /// What is counted.
        unit: &'static str,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// 0, which turns something off, or a whole number within `min..=max`.
    NumberOrZero {
        /// What is counted.
        unit: &'static str,
        /// Smallest value besides 0.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// A whole number within `min..=max`, or `auto`.
    NumberOrAuto {
        /// What is counted.
        unit: &'static str,
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// An IP address with a port.
    Address,
    /// An IP address with a port, or `off`.
    AddressOrOff,
    /// A name of 1 to 64 of `A–Z a–z 0–9 . _ -`, or `auto`.
    NameOrAuto,
    /// CPU numbers and ranges, as in `0,2-3`, or `auto`.
    CpusOrAuto,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
}

impl Kind {
    /// The range or form, as help texts and messages show it.
    #[must_use]
    pub fn range(&self) -> String {
        match self {
            Self::Number { unit, min, max } => format!("{min} to {max} {unit}"),
            Self::NumberOrZero { unit, min, max } => format!("0, or {min} to {max} {unit}"),
            Self::NumberOrAuto { unit, min, max } => format!("auto, or {min} to {max} {unit}"),
            Self::Address => "an IP address with a port, as in 0.0.0.0:8080 or [::]:8080".into(),
            Self::AddressOrOff => "an IP address with a port, or off".into(),
            Self::NameOrAuto => "auto, or 1 to 64 of A-Z a-z 0-9 . _ -".into(),
            Self::CpusOrAuto => "auto, or CPU numbers and ranges as in 0,2-3".into(),
            Self::Choice(words) => words.join(", "),
            Self::Switch => "true or false".into(),
        }
    }

    /// The placeholder that stands for the value in a usage line.
    #[must_use]
    pub fn placeholder(&self) -> String {
        match self {
            Self::Number { unit, .. }
            | Self::NumberOrZero { unit, .. }
            | Self::NumberOrAuto { unit, .. } => unit.to_uppercase(),
            Self::Address | Self::AddressOrOff => "IP:PORT".into(),
            Self::NameOrAuto => "NAME".into(),
            Self::CpusOrAuto => "CPUS".into(),
            Self::Choice(words) => words.join("|"),
            Self::Switch => "BOOL".into(),
        }
    }

    /// Unit, smallest and largest value, where it holds a number.
    #[must_use]
    pub fn bounds(&self) -> Option<(&'static str, u64, u64)> {
        match *self {
            Self::Number { unit, min, max }
            | Self::NumberOrZero { unit, min, max }
            | Self::NumberOrAuto { unit, min, max } => Some((unit, min, max)),
            _ => None,
        }
    }

    /// Whether the file writes this value without quotes.
    #[must_use]
    pub fn is_bare(&self, text: &str) -> bool {
        match self {
            Self::Number { .. } | Self::NumberOrZero { .. } | Self::Switch => true,
            Self::NumberOrAuto { .. } => text != "auto",
            _ => false,
        }
    }
}

/// One row of the table.
#[derive(Debug)]
pub struct Setting {
    /// The key in the file, in snake case; flag and variable derive from it.
    pub name: &'static str,
    /// Under which heading it is documented.
    pub group: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// The default, as one would type it.
    pub default: &'static str,
    /// Whether SIGHUP changes it.
    pub reload: Reload,
    /// For tests of the server itself; shown nowhere.
    pub is_hidden: bool,
    /// The effect, for an operator.
    pub help: &'static str,
    /// Puts a typed text into its field.
    pub(super) assign: fn(&mut Config, &str, &Kind) -> Result<(), String>,
    /// The field's value, as one would type it.
    pub(super) text: fn(&Config) -> String,
}

impl Setting {
    /// The flag without its dashes: `frame-bytes-max`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// The environment variable: `UPROAR_FRAME_BYTES_MAX`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("UPROAR_{}", self.name.to_uppercase())
    }

    /// The value a configuration holds, as one would type it.
    #[must_use]
    pub fn value(&self, config: &Config) -> String {
        (self.text)(config)
    }

    /// Puts the value of one configuration into another.
    pub fn copy(&self, from: &Config, to: &mut Config) {
        let text = self.value(from);
        (self.assign)(to, &text, &self.kind).expect("a value in effect passes its own row");
    }

    /// A value, given as one would type it, as the file writes it.
    #[must_use]
    pub fn toml_value(&self, text: &str) -> String {
        if self.kind.is_bare(text) { text.to_owned() } else { format!("\"{text}\"") }
    }

    /// Effect, default, range and whether a reload suffices: the whole paragraph.
    #[must_use]
    pub fn paragraph(&self) -> String {
        let reload = match self.reload {
            Reload::Live => "Changes with SIGHUP.",
            Reload::Restart => "Changes with a restart.",
        };
        format!("{}\nDefault: {}. Range: {}. {reload}", self.help, self.default, self.kind.range())
    }
}
