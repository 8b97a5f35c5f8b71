//! NUMERIC and BIGNUMERIC: exact decimals in 256 bits, without allocation.

use crate::table::ColumnType;

/// A magnitude of 256 bits, least significant word first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct U256([u64; 4]);

impl U256 {
    /// Times `factor` plus `add`; whether it fits.
    fn mul_add(&mut self, factor: u64, add: u64) -> bool {
        let mut carry = u128::from(add);
        for word in &mut self.0 {
            carry += u128::from(*word) * u128::from(factor);
            *word = carry as u64;
            carry >>= 64;
        }
        carry == 0
    }

    /// Divides in place and returns the remainder.
    fn div(&mut self, divisor: u64) -> u64 {
        let mut rest = 0u128;
        for word in self.0.iter_mut().rev() {
            rest = rest << 64 | u128::from(*word);
            *word = (rest / u128::from(divisor)) as u64;
            rest %= u128::from(divisor);
        }
        rest as u64
    }

    fn scale_up(&mut self, mut digits: u32) -> bool {
        while digits > 0 {
            let step = digits.min(19);
            if !self.mul_add(10u64.pow(step), 0) {
                return false;
            }
            digits -= step;
        }
        true
    }

    /// Divides by a power of ten; whether nothing was lost.
    fn scale_down(&mut self, mut digits: u32) -> bool {
        while digits > 0 && *self != Self::default() {
            let step = digits.min(19);
            if self.div(10u64.pow(step)) != 0 {
                return false;
            }
            digits -= step;
        }
        true
    }

    fn less(&self, other: &Self) -> bool {
        self.0.iter().rev().lt(other.0.iter().rev())
    }

    fn negate(&mut self) {
        let mut carry = true;
        for word in &mut self.0 {
            (*word, carry) = (!*word).overflowing_add(u64::from(carry));
        }
    }
}

/// Why a decimal does not fit its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Misfit {
    /// More digits before the point than the column takes.
    TooLarge,
    /// More digits behind the point than the column takes: rounding would lose them silently.
    TooFine,
    /// No decimal number at all.
    NoNumber,
}

impl Misfit {
    /// In words.
    pub const fn what(self) -> &'static str {
        match self {
            Self::TooLarge => "a decimal is beyond the column's range",
            Self::TooFine => "a decimal has more digits behind the point than the column: it would be rounded",
            Self::NoNumber => "the text is no decimal number",
        }
    }
}

/// What a NUMERIC or BIGNUMERIC column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DecimalColumn {
    /// 9 or 38: the power of ten of the wire form.
    wire_scale: u32,
    /// The column's own scale.
    scale: u32,
    /// Magnitudes at the wire's scale must be below.
    limit: U256,
    /// As text, not as bytes.
    pub text: bool,
}

/// A decimal at a column's wire scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal {
    negative: bool,
    magnitude: U256,
}

impl DecimalColumn {
    /// `None` for other types.
    pub fn of(ty: &ColumnType, text: bool) -> Option<Self> {
        let (wire_scale, parameters) = match ty {
            ColumnType::Numeric(p) => (9, *p),
            ColumnType::BigNumeric(p) => (38, *p),
            _ => return None,
        };
        let scale = parameters.map_or(wire_scale, |(_, s)| s.min(wire_scale));
        let mut limit = U256([1, 0, 0, 0]);
        match (parameters, wire_scale) {
            (None, 9) => limit.scale_up(38),
            (Some((p, s)), _) => limit.scale_up((p.saturating_sub(s) + wire_scale).min(77)),
            // 2^255, BIGNUMERIC's own end.
            (None, _) => {
                limit = U256([0, 0, 0, 1 << 63]);
                true
            }
        };
        Some(Self { wire_scale, scale, limit, text })
    }

    /// A decimal of this scale whose unscaled value is big-endian two's complement (Avro's form).
    pub fn fit_be_bytes(&self, bytes: &[u8], scale: i64) -> Result<Decimal, Misfit> {
        let negative = bytes.first().is_some_and(|b| b & 0x80 != 0);
        let fill = if negative { 0xff } else { 0 };
        let significant = &bytes[bytes.iter().take_while(|b| **b == fill).count()..];
        if significant.len() > 32 || (significant.len() == 32 && (significant[0] & 0x80 != 0) != negative) {
            return Err(Misfit::TooLarge);
        }
        let mut word = [fill; 32];
        word[32 - significant.len()..].copy_from_slice(significant);
        let mut magnitude = U256::default();
        for (i, chunk) in word.rchunks_exact(8).enumerate() {
            magnitude.0[i] = chunk.iter().fold(0, |w, b| w << 8 | u64::from(*b));
        }
        if negative {
            magnitude.negate();
        }
        self.fit(negative, magnitude, scale)
    }

    /// A whole number.
    pub fn fit_i64(&self, value: i64) -> Result<Decimal, Misfit> {
        self.fit(value < 0, U256([value.unsigned_abs(), 0, 0, 0]), 0)
    }

    /// `[sign]digits[.digits][e[sign]digits]`.
    pub fn parse(&self, text: &str) -> Result<Decimal, Misfit> {
        let (negative, body) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        let (number, exponent) = body.split_once(['e', 'E']).map_or((body, Ok(0)), |(n, e)| (n, e.parse::<i32>()));
        let exponent = i64::from(exponent.map_err(|_| Misfit::NoNumber)?);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(Misfit::NoNumber);
        }
        // Zeros at the end of the fraction say nothing.
        let fraction = fraction.trim_end_matches('0');
        let mut magnitude = U256::default();
        let mut fits = true;
        for digit in whole.bytes().chain(fraction.bytes()) {
            if !digit.is_ascii_digit() {
                return Err(Misfit::NoNumber);
            }
            fits &= magnitude.mul_add(10, u64::from(digit - b'0'));
        }
        if !fits {
            return Err(Misfit::TooLarge);
        }
        self.fit(negative, magnitude, fraction.len() as i64 - exponent)
    }

    fn fit(&self, negative: bool, mut magnitude: U256, scale: i64) -> Result<Decimal, Misfit> {
        if magnitude == U256::default() {
            return Ok(Decimal { negative: false, magnitude });
        }
        let wire = i64::from(self.wire_scale);
        if scale > wire + 80 {
            return Err(Misfit::TooFine);
        }
        if scale < wire - 160 {
            return Err(Misfit::TooLarge);
        }
        if scale > wire {
            if !magnitude.scale_down((scale - wire) as u32) {
                return Err(Misfit::TooFine);
            }
        } else if !magnitude.scale_up((wire - scale) as u32) {
            return Err(Misfit::TooLarge);
        }
        let lowest = negative && magnitude == self.limit && self.limit == U256([0, 0, 0, 1 << 63]);
        if !magnitude.less(&self.limit) && !lowest {
            return Err(Misfit::TooLarge);
        }
        let mut rounded = magnitude;
        if !rounded.scale_down(self.wire_scale - self.scale) {
            return Err(Misfit::TooFine);
        }
        Ok(Decimal { negative, magnitude })
    }

    /// Little-endian two's complement of minimal length, at least a byte (java-bigquerystorage, BigDecimalByteStringEncoder).
    pub fn wire_bytes(&self, value: &Decimal) -> ([u8; 32], usize) {
        let mut words = value.magnitude;
        if value.negative {
            words.negate();
        }
        let mut bytes = [0; 32];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(words.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let fill = if value.negative { 0xff } else { 0 };
        let mut len = 32;
        while len > 1 && bytes[len - 1] == fill && (bytes[len - 2] & 0x80 != 0) == value.negative {
            len -= 1;
        }
        (bytes, len)
    }

    /// The shortest text, without exponent: at most 80 bytes.
    pub fn text(&self, value: &Decimal) -> ([u8; 82], usize) {
        let mut digits = [b'0'; 80];
        let mut rest = value.magnitude;
        let mut used = 0;
        while rest != U256::default() || used <= self.wire_scale as usize {
            digits[used] = b'0' + rest.div(10) as u8;
            used += 1;
        }
        let zeros = digits[..self.wire_scale as usize].iter().take_while(|d| **d == b'0').count();
        let (mut out, mut len) = ([0u8; 82], 0);
        let mut put = |byte: u8| {
            out[len] = byte;
            len += 1;
        };
        if value.negative {
            put(b'-');
        }
        for place in (zeros..used).rev() {
            if place + 1 == self.wire_scale as usize {
                put(b'.');
            }
            put(digits[place]);
        }
        (out, len)
    }
}

/// The text of a wire form's bytes: for rows shown as JSON.
pub(super) fn wire_text(ty: &ColumnType, bytes: &[u8]) -> Option<String> {
    let column = DecimalColumn::of(
        match ty {
            ColumnType::Numeric(_) => &ColumnType::Numeric(None),
            _ => &ColumnType::BigNumeric(None),
        },
        true,
    )?;
    let mut be = bytes.to_vec();
    be.reverse();
    let value = column.fit_be_bytes(&be, i64::from(column.wire_scale)).ok()?;
    let (text, len) = column.text(&value);
    String::from_utf8(text[..len].to_vec()).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use num_bigint::BigInt;
    use proptest::prelude::*;

    use super::*;

    fn numeric() -> DecimalColumn {
        DecimalColumn::of(&ColumnType::Numeric(None), true).unwrap()
    }
    fn big() -> DecimalColumn {
        DecimalColumn::of(&ColumnType::BigNumeric(None), true).unwrap()
    }
    fn shown(column: &DecimalColumn, text: &str) -> Result<String, Misfit> {
        let value = column.parse(text)?;
        let (bytes, len) = column.text(&value);
        Ok(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    #[test]
    fn texts_and_limits() {
        let max = "99999999999999999999999999999.999999999";
        assert_eq!(shown(&numeric(), max).unwrap(), max);
        assert_eq!(shown(&numeric(), &format!("-{max}")).unwrap(), format!("-{max}"));
        assert_eq!(shown(&numeric(), "100000000000000000000000000000"), Err(Misfit::TooLarge));
        assert_eq!(shown(&numeric(), "0.0000000001"), Err(Misfit::TooFine));
        assert_eq!(shown(&numeric(), "1.50000000000000000000"), Ok("1.5".to_owned()));
        assert_eq!(shown(&numeric(), "-0.05"), Ok("-0.05".to_owned()));
        assert_eq!(shown(&numeric(), "12e2"), Ok("1200".to_owned()));
        assert_eq!(shown(&numeric(), "-0"), Ok("0".to_owned()));
        for bad in ["", "-", ".", "1x", "e5", "1e", "NaN", "0x1", "1e99999999999"] {
            assert_eq!(shown(&numeric(), bad), Err(Misfit::NoNumber), "{bad}");
        }
        let low = "-578960446186580977117854925043439539266.34992332820282019728792003956564819968";
        assert_eq!(shown(&big(), low).unwrap(), low);
        assert_eq!(shown(&big(), &low[1..]), Err(Misfit::TooLarge), "the positive end is one less");
        assert_eq!(shown(&big(), "1e300"), Err(Misfit::TooLarge));
        assert_eq!(shown(&big(), "1e-300"), Err(Misfit::TooFine));
        let narrow = DecimalColumn::of(&ColumnType::Numeric(Some((5, 2))), true).unwrap();
        assert_eq!(
            (shown(&narrow, "999.99"), shown(&narrow, "1000"), shown(&narrow, "0.001")),
            (Ok("999.99".to_owned()), Err(Misfit::TooLarge), Err(Misfit::TooFine))
        );
    }

    proptest! {
        #[test]
        fn wire_bytes_are_bigints(unscaled in any::<i128>(), scale in 0i64..=9, sign_bytes in 0usize..4) {
            let scaled = BigInt::from(unscaled) * BigInt::from(10).pow(9 - scale as u32);
            let mut bytes = BigInt::from(unscaled).to_signed_bytes_be();
            let fill = if unscaled < 0 { 0xff } else { 0 };
            bytes.splice(0..0, vec![fill; sign_bytes]);
            let limit = BigInt::from(10).pow(38);
            match numeric().fit_be_bytes(&bytes, scale) {
                Ok(value) => {
                    let (wire, len) = numeric().wire_bytes(&value);
                    prop_assert_eq!(wire[..len].to_vec(), scaled.to_signed_bytes_le());
                    prop_assert!(scaled < limit && scaled > -limit);
                    prop_assert_eq!(wire_text(&ColumnType::Numeric(None), &wire[..len]).unwrap(), { let (t, n) = numeric().text(&value); String::from_utf8(t[..n].to_vec()).unwrap() });
                }
                Err(e) => prop_assert!(e == Misfit::TooLarge && (scaled.clone() >= limit || scaled <= -limit)),
            }
            let wide = big().fit_be_bytes(&bytes, scale).unwrap();
            let scaled = BigInt::from(unscaled) * BigInt::from(10).pow(38 - scale as u32);
            let (wire, len) = big().wire_bytes(&wide);
            prop_assert_eq!(wire[..len].to_vec(), scaled.to_signed_bytes_le());
        }
    }
}
