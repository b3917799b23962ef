//! From text to typed values and back: one implementation for each type a setting can have.
//!
//! A refusal is the end of a sentence that begins with the setting's name, so it reads
//! "`shards` is 0, under the smallest value 1".

use std::net::SocketAddr;

use tracing::level_filters::LevelFilter;
use uproar_engine::limits::LagPolicy;

use super::setting::Kind;

/// A type a setting can have.
pub(super) trait Value: Sized {
    /// Reads what was typed.
    fn parse(text: &str, kind: &Kind) -> Result<Self, String>;
    /// The inverse of `parse`.
    fn text(&self) -> String;
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, for the journal where stderr is the journal, JSON otherwise.
    Auto,
    /// One readable line an event.
    Human,
    /// The same without the time, after its priority.
    Journal,
    /// One JSON object an event.
    Json,
}

/// CPUs in the order the shards take them, without repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// No machine we know of numbers its CPUs this high; a larger number is a typing error.
const CPU_MAX: usize = 4_095;

fn number(text: &str, kind: &Kind) -> Result<u64, String> {
    let (unit, min, max) = kind.bounds().expect("a number field stands on a row of a number kind");
    let plain = text.replace('_', "");
    let digits_only = !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit());
    if !digits_only {
        return Err(format!("is \"{text}\", which is not a whole number ({})", kind.range()));
    }
    match plain.parse::<u64>() {
        Ok(0) if matches!(kind, Kind::NumberOrZero { .. }) => Ok(0),
        Ok(n) if n < min => Err(format!("is {text}, under the smallest value {min} {unit}")),
        Ok(n) if n <= max => Ok(n),
        _ => Err(format!("is {text}, over the largest value {max} {unit}")),
    }
}

impl Value for u64 {
    fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
        number(text, kind)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
        let n = number(text, kind)?;
        Ok(Self::try_from(n).expect("the range of a u32 row ends within u32"))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for bool {
    fn parse(text: &str, _kind: &Kind) -> Result<Self, String> {
        text.parse().map_err(|_| format!("is \"{text}\", which is neither true nor false"))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

impl Value for SocketAddr {
    fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
        text.parse().map_err(|_| format!("is \"{text}\", which is not {}", kind.range()))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// `off` for an address, `auto` for everything else that may be absent.
fn absent(kind: &Kind) -> &'static str {
    if matches!(kind, Kind::AddressOrOff) { "off" } else { "auto" }
}

macro_rules! optional {
    ($type:ty, $absent:literal) => {
        impl Value for Option<$type> {
            fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
                if text == absent(kind) {
                    return Ok(None);
                }
                <$type as Value>::parse(text, kind).map(Some)
            }

            fn text(&self) -> String {
                self.as_ref().map_or_else(|| $absent.to_owned(), Value::text)
            }
        }
    };
}

optional!(u32, "auto");
optional!(String, "auto");
optional!(CpuList, "auto");
optional!(SocketAddr, "off");

impl Value for String {
    fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(text.to_owned());
        }
        Err(format!("is \"{text}\", which is not {}", kind.range()))
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl Value for CpuList {
    fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
        let bad = || format!("is \"{text}\", which is not {}", kind.range());
        let cpu = |t: &str| t.trim().parse::<usize>().ok().filter(|&c| c <= CPU_MAX);
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (cpu(first).ok_or_else(bad)?, cpu(last).ok_or_else(bad)?);
            if first > last {
                return Err(format!("is \"{text}\", where the range {part} runs backwards"));
            }
            for cpu in first..=last {
                if cpus.contains(&cpu) {
                    return Err(format!("is \"{text}\", which names CPU {cpu} twice"));
                }
                cpus.push(cpu);
            }
        }
        Ok(Self(cpus))
    }

    fn text(&self) -> String {
        self.0.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
    }
}

/// Words for the values of an enumeration, for both directions.
macro_rules! words {
    ($type:ty { $($word:literal = $value:path),* $(,)? }) => {
        impl Value for $type {
            fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
                match text {
                    $($word => Ok($value),)*
                    _ => Err(format!("is \"{text}\", which is not one of {}", kind.range())),
                }
            }

            fn text(&self) -> String {
                match *self {
                    $($value => $word,)*
                }
                .to_owned()
            }
        }
    };
}

words!(LagPolicy { "skip" = LagPolicy::Skip, "evict" = LagPolicy::Evict });
words!(LogFormat {
    "auto" = LogFormat::Auto,
    "human" = LogFormat::Human,
    "journal" = LogFormat::Journal,
    "json" = LogFormat::Json
});

impl Value for LevelFilter {
    fn parse(text: &str, kind: &Kind) -> Result<Self, String> {
        let Kind::Choice(words) = kind else { unreachable!("log_level is a choice") };
        let known = words.contains(&text).then(|| text.parse().ok()).flatten();
        known.ok_or_else(|| format!("is \"{text}\", which is not one of {}", kind.range()))
    }

    fn text(&self) -> String {
        self.to_string()
    }
}
