//! Dates and times: BigQuery's ranges, text forms (data-types, lexical) and the packed forms of the Storage Write API
//! (java-bigquerystorage, `CivilTimeEncoder`).

/// 0001-01-01 and 9999-12-31 in days since 1970-01-01.
pub(crate) const DATE_RANGE_DAYS: std::ops::RangeInclusive<i64> = -719_162..=2_932_896;
/// The same days in microseconds.
pub(crate) const TIMESTAMP_RANGE_MICROS: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// Microseconds in a day.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar, `None` when there is no such day (years 1 to 9999).
pub(crate) fn days_of(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return None,
    };
    if !(1..=9999).contains(&year) || !(1..=last).contains(&day) {
        return None;
    }
    // Howard Hinnant, "chrono-compatible low-level date algorithms": years begin in March.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y - era * 400;
    let doy = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    Some(era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468)
}

/// Year, month and day of days since 1970-01-01; the inverse of [`days_of`].
pub(crate) fn civil_of(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z - era * 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// A number of 1 to `max_digits` digits at the start; the rest.
fn number(text: &str, max_digits: usize) -> Option<(i64, &str)> {
    let digits = text.bytes().take(max_digits).take_while(u8::is_ascii_digit).count();
    Some((text.get(..digits)?.parse().ok()?, text.get(digits..)?))
}

fn date_prefix(text: &str) -> Option<(i64, &str)> {
    let (year, rest) = number(text, 4)?;
    if text.len() - rest.len() != 4 {
        return None;
    }
    let (month, rest) = number(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = number(rest.strip_prefix('-')?, 2)?;
    Some((days_of(year, month, day)?, rest))
}

fn time_prefix(text: &str) -> Option<(i64, &str)> {
    let (hour, rest) = number(text, 2)?;
    let (minute, rest) = number(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = number(rest.strip_prefix(':')?, 2)?;
    // Text takes second 60 and reads it as the next minute's start.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (mut micros, mut rest) = (0, rest);
    if let Some(fraction) = rest.strip_prefix('.') {
        let (value, after) = number(fraction, 6)?;
        let digits = fraction.len() - after.len();
        micros = value * 10_i64.pow(6 - digits as u32);
        rest = after;
    }
    Some(((hour * 3600 + minute * 60 + second) * 1_000_000 + micros, rest))
}

/// `YYYY-[M]M-[D]D` as days since the epoch.
pub(crate) fn parse_date(text: &str) -> Option<i64> {
    date_prefix(text).filter(|(_, rest)| rest.is_empty()).map(|(days, _)| days)
}

/// `[H]H:[M]M:[S]S[.F]` as microseconds since midnight.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    time_prefix(text).filter(|(micros, rest)| rest.is_empty() && *micros < DAY_MICROS).map(|(micros, _)| micros)
}

fn datetime_prefix(text: &str) -> Option<(i64, &str)> {
    let (days, rest) = date_prefix(text)?;
    if rest.is_empty() {
        return Some((days * DAY_MICROS, rest));
    }
    match rest.strip_prefix([' ', 'T', 't']) {
        Some(time) => time_prefix(time).map(|(micros, rest)| (days * DAY_MICROS + micros, rest)),
        None => Some((days * DAY_MICROS, rest)),
    }
}

/// A date, then space, `T` or `t`, then a time: microseconds of the civil clock since 1970-01-01 00:00:00.
pub(crate) fn parse_datetime(text: &str) -> Option<i64> {
    datetime_prefix(text).filter(|(m, rest)| rest.is_empty() && TIMESTAMP_RANGE_MICROS.contains(m)).map(|(micros, _)| micros)
}

/// A datetime with `Z`, ` UTC`, an offset `+HH[:MM]`, or nothing (UTC): microseconds since the epoch.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    let (micros, rest) = datetime_prefix(text)?;
    let zone = rest.trim_start();
    let offset_minutes = match zone {
        "" if rest.is_empty() => 0,
        "Z" | "z" | "UTC" | "Etc/UTC" | "GMT" => 0,
        _ => {
            let sign = if zone.starts_with('-') { -1 } else { 1 };
            let (hours, rest) = number(zone.strip_prefix(['+', '-'])?, 2)?;
            let (minutes, rest) = match rest.strip_prefix(':').or((!rest.is_empty()).then_some(rest)) {
                Some(rest) => number(rest, 2)?,
                None => (0, rest),
            };
            if !rest.is_empty() || hours > 14 || minutes > 59 {
                return None;
            }
            sign * (hours * 60 + minutes)
        }
    };
    Some(micros - offset_minutes * 60_000_000).filter(|m| TIMESTAMP_RANGE_MICROS.contains(m))
}

/// Microseconds since midnight of a packed TIME: micros in bits 0-19, second 20-25, minute 26-31, hour 32-36.
pub(crate) fn unpack_time(packed: i64) -> Option<i64> {
    let (micros, second, minute, hour) = (packed & 0xF_FFFF, (packed >> 20) & 0x3F, (packed >> 26) & 0x3F, packed >> 32);
    let fits = micros < 1_000_000 && second < 60 && minute < 60 && (0..24).contains(&hour);
    fits.then_some((hour * 3600 + minute * 60 + second) * 1_000_000 + micros)
}

/// Microseconds of the civil clock of a packed DATETIME: a packed TIME, then day in bits 37-41, month 42-45, year 46-59.
pub(crate) fn unpack_datetime(packed: i64) -> Option<i64> {
    let time = unpack_time(packed & 0x1F_FFFF_FFFF)?;
    let (day, month, year) = ((packed >> 37) & 0x1F, (packed >> 42) & 0xF, packed >> 46);
    days_of(year, month, day).map(|days| days * DAY_MICROS + time)
}

/// `YYYY-MM-DD`.
pub(crate) fn format_date(days: i64) -> String {
    let (year, month, day) = civil_of(days);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `HH:MM:SS[.FFFFFF]`.
pub(crate) fn format_time(micros: i64) -> String {
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let clock = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction == 0 { clock } else { format!("{clock}.{fraction:06}") }
}

/// `YYYY-MM-DDTHH:MM:SS[.FFFFFF]`, as the REST API answers DATETIME.
pub(crate) fn format_datetime(micros: i64) -> String {
    format!("{}T{}", format_date(micros.div_euclid(DAY_MICROS)), format_time(micros.rem_euclid(DAY_MICROS)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn dates_at_the_ends_of_the_range() {
        assert_eq!(parse_date("0001-01-01"), Some(-719_162));
        assert_eq!(parse_date("9999-12-31"), Some(2_932_896));
        assert_eq!(parse_date("2024-2-29"), Some(19_782));
        for bad in ["2023-02-29", "0000-01-01", "10000-01-01", "2024-13-01", "24-01-01", "2024-01-01 "] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_day_comes_back() {
        for days in (-719_162..=2_932_896).step_by(97) {
            let (y, m, d) = civil_of(days);
            assert_eq!(days_of(y, m, d), Some(days));
        }
    }

    #[test]
    fn times_and_zones() {
        assert_eq!(parse_time("23:59:59.999999"), Some(DAY_MICROS - 1));
        assert_eq!(parse_time("24:00:00"), None);
        assert_eq!(parse_time("1:2:3.0000001"), None);
        assert_eq!(parse_timestamp("1970-01-01T01:00:00+01:00"), Some(0));
        assert_eq!(parse_timestamp("1970-01-01 00:00:00 UTC"), Some(0));
        assert_eq!(parse_timestamp("0001-01-01T00:00:00+01"), None);
        assert_eq!(parse_timestamp("1970-01-01T00:00:00 Mars"), None);
    }

    #[test]
    fn packed_forms() {
        assert_eq!(unpack_time((12 << 32) | (34 << 26) | (56 << 20) | 789), Some(45_296_000_789));
        assert_eq!(unpack_time(24 << 32), None);
        assert_eq!(unpack_time(60 << 20), None);
        let packed = (1970 << 46) | (1 << 42) | (2 << 37);
        assert_eq!(unpack_datetime(packed), Some(DAY_MICROS));
        assert_eq!(unpack_datetime((2023 << 46) | (2 << 42) | (29 << 37)), None);
    }
}
