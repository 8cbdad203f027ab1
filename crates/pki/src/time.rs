//! Times in certificates: seconds since 1970-01-01T00:00:00Z, and their RFC 3339 form.

use std::fmt;

use crate::der::{Reader, tag};

const SECONDS_PER_DAY: i64 = 86_400;

/// A point in time in whole seconds since the UNIX epoch; earlier times are negative.
///
/// Displayed in UTC as RFC 3339 writes it, `2026-11-25T00:00:00Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(i64);

impl Time {
    /// A time from seconds since the epoch.
    pub fn from_unix_seconds(seconds: i64) -> Self {
        Self(seconds)
    }

    /// Seconds since the epoch.
    pub fn unix_seconds(self) -> i64 {
        self.0
    }

    /// Reads UTCTime or GeneralizedTime.
    ///
    /// Like Ghostunnel 1.11.1 it takes UTCTime without seconds and zone offsets other
    /// than zero, which RFC 5280 forbids but old authorities have written.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let element = reader.any()?;
        match element.tag {
            tag::UTC_TIME => utc_time(element.contents),
            tag::GENERALIZED_TIME => {
                let (date, rest) = element.contents.split_at_checked(14)?;
                let (century, date) = date.split_at_checked(2)?;
                let (year, date) = date.split_at_checked(2)?;
                let year = number(century)? * 100 + number(year)?;
                moment(year, date, rest)
            }
            _ => None,
        }
    }
}

impl From<rustls_pki_types::UnixTime> for Time {
    fn from(time: rustls_pki_types::UnixTime) -> Self {
        Self(i64::try_from(time.as_secs()).unwrap_or(i64::MAX))
    }
}

fn utc_time(contents: &[u8]) -> Option<Time> {
    let (year, rest) = contents.split_at_checked(2)?;
    let year = match number(year)? {
        year @ 0..50 => 2000 + year,
        year => 1900 + year,
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (date, zone) = rest.split_at_checked(digits)?;
    moment(year, date, zone)
}

/// `date` is `MMDDhhmm` with or without `ss`.
fn moment(year: i64, date: &[u8], zone: &[u8]) -> Option<Time> {
    let mut fields = [1, 1, 0, 0, 0];
    if date.len() != 8 && date.len() != 10 {
        return None;
    }
    for (field, digits) in fields.iter_mut().zip(date.chunks(2)) {
        *field = number(digits)?;
    }
    let [month, day, hour, minute, second] = fields;
    let valid = (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    let seconds = days_from_epoch(year, month, day) * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second;
    valid.then_some(Time(seconds - offset(zone)?))
}

/// Seconds east of Greenwich. Zero is written `Z`, never `+0000`.
fn offset(zone: &[u8]) -> Option<i64> {
    let (&sign, digits) = zone.split_first()?;
    if sign == b'Z' {
        return digits.is_empty().then_some(0);
    }
    let (hours, minutes) = digits.split_at_checked(2)?;
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let seconds = hours * 3600 + minutes * 60;
    if seconds == 0 || hours > 23 || minutes > 59 {
        return None;
    }
    match sign {
        b'+' => Some(seconds),
        b'-' => Some(-seconds),
        _ => None,
    }
}

fn number(digits: &[u8]) -> Option<i64> {
    match digits {
        [tens @ b'0'..=b'9', ones @ b'0'..=b'9'] => {
            Some(i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
        }
        _ => None,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since the epoch in the proleptic Gregorian calendar, with years that start in
/// March so that the leap day comes last.
fn days_from_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (month + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// The inverse of [`days_from_epoch`].
fn date_of(days: i64) -> (i64, i64, i64) {
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date_of(self.0.div_euclid(SECONDS_PER_DAY));
        let second = self.0.rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(tag: u8, text: &str) -> Option<String> {
        let mut der = vec![tag, u8::try_from(text.len()).expect("short")];
        der.extend(text.as_bytes());
        Time::read(&mut Reader::new(&der)).map(|time| time.to_string())
    }

    #[test]
    fn utc_time_covers_1950_to_2049() {
        for (text, expected) in [
            ("261125004835Z", Some("2026-11-25T00:48:35Z")),
            ("491231235959Z", Some("2049-12-31T23:59:59Z")),
            ("500101000000Z", Some("1950-01-01T00:00:00Z")),
            ("2611250048Z", Some("2026-11-25T00:48:00Z")),
            ("261125004835+0100", Some("2026-11-24T23:48:35Z")),
            ("261125004835-0030", Some("2026-11-25T01:18:35Z")),
            ("261125004835+0000", None),
            ("261125004835", None),
            ("26112500483Z", None),
            ("260229000000Z", None),
            ("261301000000Z", None),
            ("261100000000Z", None),
            ("261125240000Z", None),
            ("261125006000Z", None),
            ("261125000060Z", None),
            ("2611250000 1Z", None),
            ("261125004835Zx", None),
            ("", None),
        ] {
            assert_eq!(read(tag::UTC_TIME, text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn generalized_time_needs_four_digits_and_seconds() {
        for (text, expected) in [
            ("20500101000000Z", Some("2050-01-01T00:00:00Z")),
            ("99991231235959Z", Some("9999-12-31T23:59:59Z")),
            ("00010101000000Z", Some("0001-01-01T00:00:00Z")),
            ("20240229120000Z", Some("2024-02-29T12:00:00Z")),
            ("20500101000000.5Z", None),
            ("205001010000Z", None),
            ("20500101000000", None),
        ] {
            assert_eq!(read(tag::GENERALIZED_TIME, text).as_deref(), expected, "{text}");
        }
        assert_eq!(read(tag::IA5_STRING, "20500101000000Z"), None);
    }

    proptest! {
        #[test]
        fn calendar_conversions_are_inverse(days in -800_000i64..3_000_000) {
            let (year, month, day) = date_of(days);
            prop_assert_eq!(days_from_epoch(year, month, day), days);
            prop_assert!((1..=days_in_month(year, month)).contains(&day));
        }
    }
}
