//! The `Date` header's text (RFC 9110 §5.6.7), from the time that the shell tells.

use std::fmt;

const DAY_MS: u64 = 86_400_000;
/// 9999-12-31: the form has four digits for a year.
const DAYS_MAX: u64 = 2_932_896;

/// A wall-clock time as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, Debug)]
pub struct HttpDate {
    /// Unix milliseconds.
    pub wall_ms: u64,
}

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] =
            ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
        let days = (self.wall_ms / DAY_MS).min(DAYS_MAX);
        let seconds = self.wall_ms % DAY_MS / 1_000;
        let (year, month, day) = civil(days);
        let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
        let weekday = WEEKDAYS[(days % 7) as usize];
        let month = MONTHS[month as usize];
        write!(
            f,
            "{weekday}, {day:02} {month} {year:04} {hours:02}:{minutes:02}:{:02} GMT",
            seconds % 60
        )
    }
}

/// Year, month from 0 and day from 1 of a day since 1970-01-01.
///
/// Counted from 0000-03-01 on: then a leap day is the last of its year, and months have 153 days
/// in five.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    let days = days + 719_468;
    let day = days % DAYS_OF_400_YEARS;
    let year = (day - day / 1_460 + day / 36_524 - day / (DAYS_OF_400_YEARS - 1)) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = (march_month + 2) % 12;
    let year = days / DAYS_OF_400_YEARS * 400 + year + u64::from(month < 2);
    (year, month, day_of_month)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate { wall_ms: seconds * 1_000 + 999 }.to_string(), text);
        }
        let last = HttpDate { wall_ms: u64::MAX }.to_string();
        assert!(last.starts_with("Fri, 31 Dec 9999 "), "{last}");
    }
}
