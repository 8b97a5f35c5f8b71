//! NUMERIC and BIGNUMERIC: text, bytes, and the limits of their parameters (data-types; java-bigquerystorage,
//! `BigDecimalByteStringEncoder`).

use num_bigint::{BigInt, Sign};

/// The scale in which every decimal is kept here: that of BIGNUMERIC.
pub(crate) const KEPT_SCALE: u32 = 38;
/// The largest NUMERIC, as a multiple of 10^-9.
const NUMERIC_MAX: i128 = 99_999_999_999_999_999_999_999_999_999_999_999_999;

/// What a decimal column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecimalLimits {
    /// 9 for NUMERIC, 38 for BIGNUMERIC.
    pub type_scale: u32,
    /// The parameters P and S, if the column has them.
    pub parameters: Option<(u32, u32)>,
}

/// A decimal in a form that costs nothing for NUMERIC.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum DecimalValue {
    /// A multiple of 10^-9.
    Nano(i128),
    /// A multiple of 10^-38.
    Big(BigInt),
}

impl DecimalValue {
    /// As a multiple of 10^-38.
    pub(crate) fn into_big(self) -> BigInt {
        match self {
            Self::Nano(value) => BigInt::from(value) * BigInt::from(10).pow(KEPT_SCALE - 9),
            Self::Big(value) => value,
        }
    }
}

impl DecimalLimits {
    /// From the bytes form: value x 10^scale, little-endian two's complement.
    pub(crate) fn read_bytes(&self, bytes: &[u8]) -> Result<DecimalValue, &'static str> {
        let widest = if self.type_scale == 9 { 16 } else { 32 };
        if bytes.is_empty() || bytes.len() > widest {
            return Err("has an encoding of a wrong length");
        }
        if self.type_scale == 9 {
            let fill = if bytes[bytes.len() - 1] & 0x80 == 0 { 0 } else { 0xFF };
            let mut whole = [fill; 16];
            whole[..bytes.len()].copy_from_slice(bytes);
            let value = i128::from_le_bytes(whole);
            if value.unsigned_abs() > NUMERIC_MAX as u128 {
                return Err("is out of range");
            }
            if let Some((precision, scale)) = self.parameters {
                let step = 10_i128.pow(9 - scale.min(9));
                if value % step != 0 || (value / step).unsigned_abs() >= 10_u128.pow(precision.min(38)) {
                    return Err("exceeds the column's precision or scale");
                }
            }
            return Ok(DecimalValue::Nano(value));
        }
        self.fitted(BigInt::from_signed_bytes_le(bytes))
    }

    /// From text: `[+-]digits[.digits][e[+-]digits]`. More decimal places than the column has are refused, never rounded.
    pub(crate) fn read_text(&self, text: &str) -> Result<DecimalValue, &'static str> {
        let (unscaled, scale) = parse(text).ok_or("is not a number")?;
        let kept = rescale(unscaled, scale).ok_or("has too many decimal places")?;
        self.fitted(kept)
    }

    /// From a double: its shortest decimal form, rounded to the type's scale (half away from zero), since a double carries noise digits.
    pub(crate) fn read_double(&self, value: f64) -> Result<DecimalValue, &'static str> {
        if !value.is_finite() {
            return Err("is not a finite number");
        }
        let (unscaled, scale) = parse(&format!("{value:e}")).ok_or("is not a number")?;
        let limit = self.parameters.map_or(self.type_scale, |(_, s)| s) as i64;
        if scale <= limit {
            return self.fitted(rescale(unscaled, scale).ok_or("is out of range")?);
        }
        let divisor = BigInt::from(10).pow((scale - limit).min(400) as u32);
        let half = &divisor / 2 * if unscaled.sign() == Sign::Minus { -1 } else { 1 };
        self.fitted(rescale((unscaled + half) / divisor, limit).ok_or("is out of range")?)
    }

    /// From a whole number.
    pub(crate) fn read_int(&self, value: i128) -> Result<DecimalValue, &'static str> {
        self.fitted(BigInt::from(value) * BigInt::from(10).pow(KEPT_SCALE))
    }

    /// Checks range and parameters of a multiple of 10^-38.
    fn fitted(&self, kept: BigInt) -> Result<DecimalValue, &'static str> {
        let limit: BigInt = if self.type_scale == 9 {
            BigInt::from(NUMERIC_MAX) * BigInt::from(10).pow(KEPT_SCALE - 9)
        } else {
            BigInt::from(2).pow(255) - 1
        };
        // BIGNUMERIC is 256 bits: its negative end is one step further.
        let lowest: BigInt = if self.type_scale == 9 { -limit.clone() } else { -limit.clone() - 1 };
        if kept > limit || kept < lowest {
            return Err("is out of range");
        }
        let scale = self.parameters.map_or(self.type_scale, |(_, s)| s);
        let step = BigInt::from(10).pow(KEPT_SCALE - scale);
        if &kept % &step != BigInt::ZERO {
            return Err("has too many decimal places");
        }
        if let Some((precision, _)) = self.parameters
            && (kept.magnitude() / step.magnitude()) >= num_bigint::BigUint::from(10_u32).pow(precision)
        {
            return Err("has too many digits");
        }
        Ok(DecimalValue::Big(kept))
    }
}

/// Unscaled digits and scale of a decimal text; exponents are held to what any type could take.
pub(crate) fn parse(text: &str) -> Option<(BigInt, i64)> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok().filter(|e| (-400..=400).contains(e))?),
        None => (text, 0),
    };
    let unsigned = mantissa.strip_prefix(['+', '-']).unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.len() + fraction.len() == 0 || whole.len() + fraction.len() > 200 {
        return None;
    }
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: BigInt = format!("{whole}{fraction}").parse().ok()?;
    let fraction_digits = i64::try_from(fraction.len()).ok()?;
    Some((if mantissa.starts_with('-') { -digits } else { digits }, fraction_digits - exponent))
}

/// To a multiple of 10^-38, `None` when digits would be lost.
fn rescale(unscaled: BigInt, scale: i64) -> Option<BigInt> {
    let shift = i64::from(KEPT_SCALE) - scale;
    if shift >= 0 {
        return Some(unscaled * BigInt::from(10).pow(u32::try_from(shift).ok()?));
    }
    let divisor = BigInt::from(10).pow(u32::try_from(-shift).ok()?);
    (&unscaled % &divisor == BigInt::ZERO).then(|| unscaled / divisor)
}

/// The shortest text of a multiple of 10^-38, as the REST API answers it.
pub(crate) fn format(kept: &BigInt) -> String {
    let digits = kept.magnitude().to_string();
    let padded = format!("{digits:0>width$}", width = KEPT_SCALE as usize + 1);
    let (whole, fraction) = padded.split_at(padded.len() - KEPT_SCALE as usize);
    let fraction = fraction.trim_end_matches('0');
    let sign = if kept.sign() == Sign::Minus { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    const NUMERIC: DecimalLimits = DecimalLimits { type_scale: 9, parameters: None };
    const BIG: DecimalLimits = DecimalLimits { type_scale: 38, parameters: None };

    fn shown(value: Result<DecimalValue, &'static str>) -> String {
        value.map_or_else(str::to_owned, |v| format(&v.into_big()))
    }

    #[test]
    fn numeric_by_text() {
        for (text, expected) in [
            ("1.25", "1.25"),
            ("-0.000000001", "-0.000000001"),
            ("99999999999999999999999999999.999999999", "99999999999999999999999999999.999999999"),
            ("100000000000000000000000000000", "is out of range"),
            ("0.0000000001", "has too many decimal places"),
            ("1e3", "1000"),
            ("abc", "is not a number"),
            ("", "is not a number"),
        ] {
            assert_eq!(shown(NUMERIC.read_text(text)), expected, "{text}");
        }
    }

    #[test]
    fn numeric_by_bytes() {
        assert_eq!(shown(NUMERIC.read_bytes(&1_250_000_000_i64.to_le_bytes()[..4])), "1.25");
        assert_eq!(shown(NUMERIC.read_bytes(&[0xFF])), "-0.000000001");
        assert_eq!(shown(NUMERIC.read_bytes(&i128::MAX.to_le_bytes())), "is out of range");
        assert_eq!(shown(NUMERIC.read_bytes(&[])), "has an encoding of a wrong length");
        assert_eq!(shown(NUMERIC.read_bytes(&[0; 17])), "has an encoding of a wrong length");
    }

    #[test]
    fn bignumeric_ends() {
        let end = "578960446186580977117854925043439539266.34992332820282019728792003956564819967";
        assert_eq!(shown(BIG.read_text(end)), end);
        assert_eq!(
            shown(BIG.read_text("578960446186580977117854925043439539266.34992332820282019728792003956564819968")),
            "is out of range"
        );
        assert_eq!(shown(BIG.read_bytes(&[0; 33])), "has an encoding of a wrong length");
    }

    #[test]
    fn parameters() {
        let limits = DecimalLimits { type_scale: 9, parameters: Some((5, 2)) };
        assert_eq!(shown(limits.read_text("999.99")), "999.99");
        assert_eq!(shown(limits.read_text("1000")), "has too many digits");
        assert_eq!(shown(limits.read_text("1.001")), "has too many decimal places");
        assert_eq!(shown(limits.read_bytes(&1_000_000_000_000_i64.to_le_bytes())), "exceeds the column's precision or scale");
        assert_eq!(shown(limits.read_double(0.005)), "0.01");
    }
}
