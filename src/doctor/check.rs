//! One row of the doctor's table.

use serde::Serialize;

/// What a check came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Fits,
    /// The target is reached, but slower, less evenly, or only on a good day.
    Advice,
    /// The node does not start, or refuses or loses viewers before the target.
    Misfit,
    /// The host does not show it.
    Unknown,
}

impl Verdict {
    /// The word in the first column.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Fits => "ok",
            Self::Advice => "advice",
            Self::Misfit => "MISFIT",
            Self::Unknown => "unknown",
        }
    }
}

/// What was checked, what is, what should be, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// The setting or limit, by the name it has on the host.
    pub what: String,
    /// Its value.
    pub now: String,
    /// What the target asks for.
    pub needed: String,
    /// The judgement.
    pub verdict: Verdict,
    /// What goes wrong otherwise.
    pub why: &'static str,
    /// A command or a line of configuration; nothing when all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "numbers and texts alike, as literals at the calls"
)]
impl Check {
    /// A row that fits until judged otherwise.
    pub(super) fn new(what: impl Into<String>, why: &'static str) -> Self {
        Self {
            what: what.into(),
            now: String::new(),
            needed: String::new(),
            verdict: Verdict::Fits,
            why,
            fix: None,
        }
    }

    pub(super) fn now(mut self, now: impl ToString) -> Self {
        self.now = now.to_string();
        self
    }

    pub(super) fn needed(mut self, needed: impl ToString) -> Self {
        self.needed = needed.to_string();
        self
    }

    /// The judgement and the fix if `is_wrong`.
    pub(super) fn wrong_if(self, is_wrong: bool, verdict: Verdict, fix: impl ToString) -> Self {
        if is_wrong { Self { verdict, fix: Some(fix.to_string()), ..self } } else { self }
    }

    /// A row about something that cannot be read.
    pub(super) fn unknown(self) -> Self {
        Self { now: "not shown by this host".into(), verdict: Verdict::Unknown, ..self }
    }

    /// Says in the row that it goes by the configured address, if the real one was not to be seen.
    pub(super) fn listening(mut self, unseen: Option<&String>) -> Self {
        if let Some(why) = unseen {
            self.now += &format!(" ({why}; listen as configured)");
        }
        self
    }

    /// Compares a number that must be at least `needed`.
    pub(super) fn at_least(
        self,
        now: Option<u64>,
        needed: u64,
        verdict: Verdict,
        fix: impl ToString,
    ) -> Self {
        let row = self.needed(format!("at least {needed}"));
        match now {
            None => row.unknown(),
            Some(u64::MAX) => row.now("unlimited"),
            Some(now) => row.now(now).wrong_if(now < needed, verdict, fix),
        }
    }
}
