//! Values on the command line that several commands read alike.

use std::time::Duration;

/// A share: `0.1%`, or `0.001`.
pub(super) fn share(text: &str) -> Result<f64, String> {
    let (number, scale) = text.strip_suffix('%').map_or((text, 1.0), |n| (n, 100.0));
    match number.trim().parse::<f64>() {
        Ok(n) if (0.0..=scale).contains(&n) => Ok(n / scale),
        _ => Err(format!("`{text}` is no share such as `0.1%` or `0.001`, 0 to 100%")),
    }
}

/// A length of time: `30s`, `5m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("`{text}` is no length of time such as `30s`, `5m`: {e}"))
}

/// `name=value`.
pub(super) fn property(text: &str) -> Result<(String, String), String> {
    // The value may be a secret: it stays out of the message.
    let (name, value) = text.split_once('=').ok_or_else(|| "expected name=value".to_owned())?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// `name:partitions`.
pub(super) fn topic(text: &str) -> Result<(String, i32), String> {
    let parsed = text.rsplit_once(':').and_then(|(name, n)| Some((name.to_owned(), n.parse::<i32>().ok()?)));
    parsed.filter(|(name, n)| !name.is_empty() && *n > 0).ok_or_else(|| format!("`{text}` is not name:partitions, such as `orders:8`"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn shares_topics_and_what_they_are_not() {
        assert_eq!(share("0.1%"), Ok(0.001));
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("101%").is_err() && share("-1%").is_err() && share("some").is_err() && share("2").is_err());
        assert_eq!(topic("a:b:3"), Ok(("a:b".to_owned(), 3)));
        assert!(topic("a").is_err() && topic(":3").is_err() && topic("a:0").is_err());
        assert!(!property("sasl.password").unwrap_err().contains("sasl"));
        assert_eq!(property("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
    }
}
