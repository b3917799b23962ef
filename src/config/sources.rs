//! Where values come from, who wins, and where to point when one is wrong.
//!
//! The sources keep what was typed; `load` makes a configuration of it. SIGHUP calls `load`
//! again on the same sources, so a reload and a start cannot judge a file differently.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::file::Read;
use super::{Config, Setting, check, documented, file, find, nearest, table};

/// Where a value was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere.
    Default,
    /// In the file, on this line (from 1).
    File(PathBuf, usize),
    /// In this environment variable.
    Variable(String),
    /// As this flag, with its dashes.
    Flag(String),
    /// Not at all: the sockets of a socket unit are as they are.
    SocketUnit,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(flag) => f.write_str(flag),
            Self::SocketUnit => f.write_str("the socket unit"),
        }
    }
}

/// What was typed for a setting, not yet judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The setting.
    pub name: &'static str,
    /// Its value as text.
    pub text: String,
    /// Where.
    pub origin: Origin,
}

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where to look.
    pub origin: Origin,
    /// What is wrong and what would be right, in one sentence without its full stop.
    pub sentence: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => f.write_str(&self.sentence),
            origin => write!(f, "{origin}: {}", self.sentence),
        }
    }
}

/// Everything wrong with a configuration, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if i == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// All that was typed, and the file to read at each load.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// `UPROAR_*` variables; empty ones count as unset.
    pub variables: Vec<(String, String)>,
    /// Flags, as settings and texts.
    pub flags: Vec<(&'static str, String)>,
}

/// A configuration and the history of each of its values.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Where each came from; what is missing here is a default.
    pub origins: BTreeMap<&'static str, Origin>,
    /// Things that are probably mistakes but stop nothing.
    pub warnings: Vec<String>,
}

impl Loaded {
    /// The same with the addresses of sockets that a socket unit brought, which are in effect
    /// whatever was typed. What was typed and differs is warned of.
    #[must_use]
    pub fn under_socket_unit(
        mut self,
        listen: Option<SocketAddr>,
        admin: Option<SocketAddr>,
    ) -> Self {
        let before = check::warnings(&self);
        self.warnings.retain(|warning| !before.contains(warning));
        for (name, held) in [("listen", listen), ("admin", admin)] {
            let Some(held) = held else { continue };
            let setting = find(name).expect("the table has both addresses");
            let typed = self.origin(setting);
            let (value, held) = (setting.value(&self.config), held.to_string());
            if typed != Origin::Default && typed != Origin::SocketUnit && value != held {
                self.warnings.push(format!(
                    "{typed}: {name} = {value} is not in effect: the socket unit holds {held}. Change \
                     ListenStream= (systemctl edit uproar.socket), or do without the unit: systemctl \
                     disable --now uproar.socket && systemctl restart uproar"
                ));
            }
            (setting.assign)(&mut self.config, &held, &setting.kind)
                .expect("the address of a socket is an address");
            self.origins.insert(setting.name, Origin::SocketUnit);
        }
        let now = check::warnings(&self);
        self.warnings.extend(now);
        self
    }

    /// Where the value of a setting came from.
    #[must_use]
    pub fn origin(&self, setting: &Setting) -> Origin {
        self.origins.get(setting.name).cloned().unwrap_or(Origin::Default)
    }
}

/// A configuration that may be wrong, and everything known to be wrong with it.
#[derive(Debug)]
pub struct Judged {
    loaded: Loaded,
    problems: Vec<Problem>,
    /// Settings that do not hold what was meant.
    missing: BTreeSet<&'static str>,
    is_any_missing: bool,
}

impl Judged {
    /// Applies rules across settings. Each problem comes with the settings it is about; when one of
    /// them has a problem of its own, the rule would blame good values for the bad one beside them.
    pub fn check<P>(&mut self, rules: impl FnOnce(&Loaded) -> P)
    where
        P: IntoIterator<Item = (&'static [&'static str], Problem)>,
    {
        for (names, problem) in rules(&self.loaded) {
            let is_fair = !names.iter().any(|name| self.missing.contains(name));
            if is_fair && !self.is_any_missing {
                self.problems.push(problem);
            }
        }
    }

    /// The configuration, if nothing is wrong with it.
    ///
    /// # Errors
    /// Every [`Problem`] found, those of the file by line; none of the values is used then.
    pub fn finish(mut self) -> Result<Loaded, Problems> {
        if self.problems.is_empty() {
            return Ok(self.loaded);
        }
        self.problems.sort_by_key(|problem| match problem.origin {
            Origin::Default => (0, 0),
            Origin::File(_, line) => (1, line),
            Origin::Variable(_) => (2, 0),
            Origin::Flag(_) => (3, 0),
            Origin::SocketUnit => (4, 0),
        });
        Err(Problems(self.problems))
    }
}

impl Sources {
    /// Reads the file again, judges everything typed, and puts the configuration together.
    ///
    /// # Errors
    /// Every [`Problem`] found; none of the values is used then.
    pub fn load(&self) -> Result<Loaded, Problems> {
        self.judge().finish()
    }

    /// The same for who has rules of his own to [`check`](Judged::check).
    #[must_use]
    pub fn judge(&self) -> Judged {
        let Read { mut typed, mut problems, mut missing, is_any_missing } =
            self.file.as_deref().map(file::read).unwrap_or_default();
        let (variables, warnings) = self.variables_typed();
        typed.extend(variables);
        typed.extend(self.flags.iter().map(|(name, text)| Typed {
            name,
            text: text.clone(),
            origin: Origin::Flag(format!("--{}", name.replace('_', "-"))),
        }));

        let mut config = Config::default();
        let mut origins = BTreeMap::new();
        for Typed { name, text, origin } in typed {
            let setting = find(name).expect("sources name only settings of the table");
            match (setting.assign)(&mut config, &text, &setting.kind) {
                Ok(()) => {
                    origins.insert(name, origin);
                }
                Err(why) => {
                    problems.push(Problem { origin, sentence: format!("{name} {why}") });
                    missing.insert(name);
                }
            }
        }
        let mut loaded = Loaded { config, origins, warnings };
        loaded.warnings.extend(check::warnings(&loaded));
        let mut judged = Judged { loaded, problems, missing, is_any_missing };
        judged.check(check::problems);
        judged
    }

    fn variables_typed(&self) -> (Vec<Typed>, Vec<String>) {
        let (mut typed, mut warnings) = (Vec::new(), Vec::new());
        for (variable, text) in self.variables.iter().filter(|(_, text)| !text.is_empty()) {
            let origin = || Origin::Variable(variable.clone());
            match table().find(|setting| setting.variable() == *variable) {
                Some(setting) => {
                    typed.push(Typed { name: setting.name, text: text.clone(), origin: origin() });
                }
                None => warnings.extend(near_miss(variable)),
            }
        }
        (typed, warnings)
    }
}

/// Kubernetes puts `UPROAR_SERVICE_HOST` and the like beside a service of our name, so an
/// unknown variable is worth a warning only when it looks like one of ours.
fn near_miss(variable: &str) -> Option<String> {
    let name = nearest(variable.strip_prefix("UPROAR_")?)?;
    let meant = documented().find(|setting| setting.name == name)?.variable();
    Some(format!("the variable {variable} is no setting and is ignored; did you mean {meant}?"))
}
