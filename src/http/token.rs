//! The bearer token: who may ask, and who may tell.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::Secret;

/// `[worker] api_token`, where one is set. Kept as a hash: two texts of different lengths are compared in the same time too.
#[derive(Clone)]
pub struct ApiToken(Option<[u8; 32]>);

impl ApiToken {
    /// The token that was set.
    pub fn new(token: Option<&Secret>) -> Self {
        Self(token.map(|token| Sha256::digest(token.expose().trim()).into()))
    }

    /// Whether one is set.
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the request carries it (`Authorization: Bearer ...`, RFC 6750). Takes as long for a token that is nearly right as for any
    /// other.
    pub fn is_in(&self, headers: &HeaderMap) -> bool {
        let Some(expected) = &self.0 else { return false };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(value), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, token)) = value.to_str().ok().and_then(|value| value.split_once(' ')) else { return false };
        let hash: [u8; 32] = Sha256::digest(token.trim()).into();
        scheme.eq_ignore_ascii_case("bearer") && verify_slices_are_equal(&hash, expected).is_ok()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_token_counts() {
        let token = ApiToken::new(Some(&Secret::new("0123456789abcdef")));
        let with = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            token.is_in(&headers)
        };
        assert!(with("Bearer 0123456789abcdef") && with("bearer 0123456789abcdef"));
        for wrong in ["Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer ", "0123456789abcdef", "Basic 0123456789abcdef"] {
            assert!(!with(wrong), "{wrong}");
        }
        assert!(!token.is_in(&HeaderMap::new()));
        let mut twice = HeaderMap::new();
        twice.append(header::AUTHORIZATION, "Bearer 0123456789abcdef".parse().unwrap());
        twice.append(header::AUTHORIZATION, "Bearer 0123456789abcdef".parse().unwrap());
        assert!(!token.is_in(&twice), "which of them counts is nobody's guess");
        let none = ApiToken::new(None);
        let mut empty = HeaderMap::new();
        empty.insert(header::AUTHORIZATION, "Bearer ".parse().unwrap());
        assert!(!none.is_in(&empty) && !none.is_set());
    }
}
