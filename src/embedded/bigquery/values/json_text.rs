//! Text checks of the types that travel as text: JSON, GEOGRAPHY, INTERVAL.

/// The deepest nesting that a JSON column takes (data-types).
const JSON_DEPTH: usize = 500;

/// Whether a text is JSON that a JSON column takes.
pub(crate) fn check_json(text: &str) -> Result<(), &'static str> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| "is not valid JSON")?;
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    if deepest > JSON_DEPTH { Err("is nested deeper than 500") } else { Ok(()) }
}

/// Whether a text looks like WKT or GeoJSON. Geometry itself (closed rings, crossing edges) is not examined.
pub(crate) fn check_geography(text: &str) -> Result<(), &'static str> {
    const REFUSED: &str = "is not a valid geography (WKT or GeoJSON)";
    if text.trim_start().starts_with('{') {
        let value: serde_json::Value = serde_json::from_str(text).map_err(|_| REFUSED)?;
        return if value.get("type").is_some_and(|t| t.is_string()) { Ok(()) } else { Err(REFUSED) };
    }
    let upper = text.trim().to_ascii_uppercase();
    let known = ["POINT", "LINESTRING", "POLYGON", "MULTIPOINT", "MULTILINESTRING", "MULTIPOLYGON", "GEOMETRYCOLLECTION", "FULLGLOBE"];
    let (name, body) = upper.split_at(upper.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(upper.len()));
    if !known.contains(&name) {
        return Err(REFUSED);
    }
    let body = body.trim();
    if name == "FULLGLOBE" || body == "EMPTY" {
        return if name == "FULLGLOBE" && !body.is_empty() { Err(REFUSED) } else { Ok(()) };
    }
    let mut depth = 0_i32;
    for c in body.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ if depth == 0 => return Err(REFUSED),
            _ => {}
        }
    }
    if depth != 0 || !body.starts_with('(') {
        return Err(REFUSED);
    }
    if name != "GEOMETRYCOLLECTION" {
        for pair in body.split([',', '(', ')']).map(str::trim).filter(|p| !p.is_empty()) {
            let numbers: Vec<f64> = pair.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| REFUSED)?;
            match numbers[..] {
                [_, latitude] if (-90.0..=90.0).contains(&latitude) => {}
                _ => return Err(REFUSED),
            }
        }
    }
    Ok(())
}

/// `[sign]Y-M [sign]D [sign]H:M:S[.F]` within -10000-0 -3660000 -87840000:0:0 and its positive twin.
pub(crate) fn check_interval(text: &str) -> Result<(), &'static str> {
    const REFUSED: &str = "is not a valid interval";
    let parts: Vec<&str> = text.split(' ').collect();
    let [months, days, time] = parts[..] else { return Err(REFUSED) };
    let unsigned = |t: &'static str, part: &str| -> Result<Vec<u64>, &'static str> {
        let part = part.strip_prefix(['-', '+']).unwrap_or(part);
        part.split(['-', ':']).map(|n| n.parse().map_err(|_| t)).collect()
    };
    let [y, m] = unsigned(REFUSED, months)?[..] else { return Err(REFUSED) };
    let [d] = unsigned(REFUSED, days)?[..] else { return Err(REFUSED) };
    let (clock, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [h, min, s] = unsigned(REFUSED, clock)?[..] else { return Err(REFUSED) };
    if fraction.is_empty() || fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(REFUSED);
    }
    let too_large = y * 12 + m > 120_000 || d > 3_660_000 || h > 87_840_000 || h * 3600 + min * 60 + s > 316_224_000_000;
    if too_large { Err("is out of range") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json() {
        assert!(check_json(r#"{"a":[1,"]"]}"#).is_ok());
        assert!(check_json("{a:1}").is_err());
        assert!(check_json(&format!("{}{}", "[".repeat(500), "]".repeat(500))).is_ok());
        assert!(check_json(&format!("{}{}", "[".repeat(501), "]".repeat(501))).is_err());
    }

    #[test]
    fn geography() {
        for good in ["POINT(1 2)", "POLYGON((0 0, 1 0, 1 1, 0 0))", "point empty", r#"{"type":"Point","coordinates":[1,2]}"#] {
            assert!(check_geography(good).is_ok(), "{good}");
        }
        for bad in ["POINT(1 91)", "POINT(1", "CIRCLE(1 2)", "", "{}", "POINT(a b)"] {
            assert!(check_geography(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn interval() {
        assert!(check_interval("1-2 -3 4:5:6.789").is_ok());
        assert!(check_interval("-10000-0 -3660000 -87840000:0:0").is_ok());
        assert!(check_interval("10001-0 0 0:0:0").is_err());
        assert!(check_interval("1 day").is_err());
    }
}
