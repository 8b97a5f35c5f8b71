//! Dates and times: BigQuery's ranges, packed forms and text forms (`bigquery-rules.md` sections 2 and 3).

use crate::config::TimeUnit;

/// 0001-01-01 and 9999-12-31 in days since the epoch.
pub(super) const DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// 0001-01-01 00:00:00 and 9999-12-31 23:59:59.999999 in microseconds since the epoch.
pub(super) const MICROS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Microseconds of a day.
pub(super) const DAY_MICROS: i64 = 86_400_000_000;

/// A count of this unit in microseconds, finer ones cut towards the past; `None` beyond 64 bits.
#[inline(always)]
pub(super) const fn micros(count: i64, unit: TimeUnit) -> Option<i64> {
    match unit {
        TimeUnit::D => count.checked_mul(DAY_MICROS),
        TimeUnit::S => count.checked_mul(1_000_000),
        TimeUnit::Ms => count.checked_mul(1_000),
        TimeUnit::Us => Some(count),
        TimeUnit::Ns => Some(count.div_euclid(1_000)),
    }
}

/// Year, month and day of days since the epoch (Howard Hinnant, chrono-compatible low-level date algorithms).
pub(super) const fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + (month <= 2) as i64, month, doy - (153 * mp + 2) / 5 + 1)
}

/// Days since the epoch of a date, `None` for a day that the month does not have. The same source.
pub(super) fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let doy = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
    (civil(days) == (year, month, day)).then_some(days)
}

/// TIME packed: micros 0-19, second 20-25, minute 26-31, hour 32-36 (java-bigquerystorage, CivilTimeEncoder).
#[inline(always)]
pub(super) const fn pack_time(micros: i64) -> i64 {
    let seconds = micros / 1_000_000;
    ((seconds / 3_600) << 32) | ((seconds / 60 % 60) << 26) | ((seconds % 60) << 20) | (micros % 1_000_000)
}

/// DATETIME packed: as TIME, then day 37-41, month 42-45, year 46-59.
#[inline]
pub(super) const fn pack_datetime(micros: i64) -> i64 {
    let (year, month, day) = civil(micros.div_euclid(DAY_MICROS));
    year << 46 | month << 42 | day << 37 | pack_time(micros.rem_euclid(DAY_MICROS))
}

/// A text of at most 26 characters on the stack.
pub(super) struct Text {
    bytes: [u8; 26],
    len: usize,
}

impl Text {
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, mut value: i64, digits: usize) {
        for place in (self.len..self.len + digits).rev() {
            self.bytes[place] = b'0' + (value % 10) as u8;
            value /= 10;
        }
        self.len += digits;
    }

    fn sign(&mut self, sign: u8) {
        self.bytes[self.len] = sign;
        self.len += 1;
    }

    fn date(mut self, days: i64) -> Self {
        let (year, month, day) = civil(days);
        self.push(year, 4);
        self.sign(b'-');
        self.push(month, 2);
        self.sign(b'-');
        self.push(day, 2);
        self
    }

    fn time(mut self, micros: i64) -> Self {
        let seconds = micros / 1_000_000;
        self.push(seconds / 3_600, 2);
        self.sign(b':');
        self.push(seconds / 60 % 60, 2);
        self.sign(b':');
        self.push(seconds % 60, 2);
        self.sign(b'.');
        self.push(micros % 1_000_000, 6);
        self
    }

    const fn empty() -> Self {
        Self { bytes: [0; 26], len: 0 }
    }
}

/// `YYYY-MM-DD` of days within [`DAYS`].
pub(super) fn date_text(days: i64) -> Text {
    Text::empty().date(days)
}
/// `HH:MM:SS.ffffff` of microseconds within a day.
pub(super) fn time_text(micros: i64) -> Text {
    Text::empty().time(micros)
}
/// `YYYY-MM-DD HH:MM:SS.ffffff` of microseconds within [`MICROS`].
pub(super) fn datetime_text(micros: i64) -> Text {
    let mut text = date_text(micros.div_euclid(DAY_MICROS));
    text.sign(b' ');
    text.time(micros.rem_euclid(DAY_MICROS))
}

/// Takes up to `most` digits off the front, at least `least`.
fn digits(text: &str, least: usize, most: usize) -> Option<(i64, &str)> {
    let n = text.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if n < least {
        return None;
    }
    Some((text[..n].parse().ok()?, &text[n..]))
}

fn date_part(text: &str) -> Option<(i64, &str)> {
    let (year, rest) = digits(text, 4, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 1, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 1, 2)?;
    Some((days(year, month, day)?, rest))
}

/// Fractions beyond microseconds are cut towards the past. Second 60 is the next minute's 0.
fn time_part(text: &str) -> Option<(i64, &str)> {
    let (hour, rest) = digits(text, 1, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 1, 2)?;
    let (second, mut rest) = match rest.strip_prefix(':') {
        Some(rest) => digits(rest, 1, 2)?,
        None => (0, rest),
    };
    let mut fraction = 0;
    if let Some(after) = rest.strip_prefix('.') {
        let n = after.bytes().take_while(u8::is_ascii_digit).count();
        if n == 0 {
            return None;
        }
        for i in 0..6 {
            fraction = fraction * 10 + after.as_bytes()[..n].get(i).map_or(0, |d| i64::from(d - b'0'));
        }
        rest = &after[n..];
    }
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some((((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction, rest))
}

/// DATE's text form, in days.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    date_part(text).filter(|(_, rest)| rest.is_empty()).map(|(days, _)| days)
}

/// TIME's text form, in microseconds.
pub(super) fn parse_time(text: &str) -> Option<i64> {
    time_part(text).filter(|(micros, rest)| rest.is_empty() && *micros < DAY_MICROS).map(|(micros, _)| micros)
}

fn datetime_part(text: &str) -> Option<(i64, &str)> {
    let (days, rest) = date_part(text)?;
    match rest.strip_prefix([' ', 'T', 't']) {
        Some(time) => time_part(time).map(|(micros, rest)| (days * DAY_MICROS + micros, rest)),
        None => Some((days * DAY_MICROS, rest)),
    }
}

/// DATETIME's text form, in microseconds.
pub(super) fn parse_datetime(text: &str) -> Option<i64> {
    datetime_part(text).filter(|(micros, rest)| rest.is_empty() && MICROS.contains(micros)).map(|(micros, _)| micros)
}

/// TIMESTAMP's text form, in microseconds: without a zone it is UTC; zones by name are not taken, for they need a time zone database.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let (local, rest) = datetime_part(text)?;
    let zone = rest.strip_prefix(' ').unwrap_or(rest);
    let offset_minutes = match zone {
        "" | "Z" | "z" | "UTC" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, rest) = digits(zone.strip_prefix(['+', '-'])?, 1, 2)?;
            let rest = rest.strip_prefix(':').unwrap_or(rest);
            let (minutes, rest) = if rest.is_empty() { (0, rest) } else { digits(rest, 2, 2)? };
            if !rest.is_empty() || hours > 14 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    Some(local - offset_minutes * 60_000_000).filter(|m| MICROS.contains(m))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn dates_are_chronos() {
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for day in DAYS.step_by(97).chain([*DAYS.start(), *DAYS.end(), 0, -1]) {
            let expected = epoch + chrono::Duration::days(day);
            assert_eq!(date_text(day).as_bytes(), expected.to_string().as_bytes());
            assert_eq!(parse_date(&expected.to_string()), Some(day));
        }
        assert_eq!((days(2023, 2, 29), days(10_000, 1, 1), days(2024, 2, 29)), (None, None, Some(19_782)));
    }

    #[test]
    fn packed_forms_are_the_documented_bits() {
        assert_eq!(pack_time(((13 * 60 + 14) * 60 + 15) * 1_000_000 + 16), 13 << 32 | 14 << 26 | 15 << 20 | 16);
        let micros = parse_datetime("2026-11-21 23:59:58.000007").unwrap();
        assert_eq!(pack_datetime(micros), 2026 << 46 | 11 << 42 | 21 << 37 | 23 << 32 | 59 << 26 | 58 << 20 | 7);
        assert_eq!(pack_datetime(*MICROS.start()), 1 << 46 | 1 << 42 | 1 << 37);
        assert_eq!(datetime_text(micros).as_bytes(), b"2026-11-21 23:59:58.000007");
    }

    #[test]
    fn text_forms() {
        assert_eq!(parse_timestamp("1970-01-01T00:00:01Z"), Some(1_000_000));
        assert_eq!(parse_timestamp("1970-1-1 1:00:00.5+01:00"), Some(500_000));
        assert_eq!(parse_timestamp("1970-01-01 00:00:00-0130"), Some(5_400_000_000));
        assert_eq!(parse_timestamp("1970-01-01 00:00:00 UTC"), Some(0));
        assert_eq!(parse_timestamp("1970-01-02"), Some(DAY_MICROS));
        assert_eq!(parse_time("23:59:60"), None, "beyond the day");
        assert_eq!(parse_time("01:02:03.1234567"), Some(3_723_123_456));
        for bad in [
            "",
            "1970",
            "1970-13-01",
            "1970-01-01 25:00:00",
            "1970-01-01 00:00:00 Europe/Paris",
            "0001-01-01 00:00:00+01:00",
            "1970-01-01x",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }
}
