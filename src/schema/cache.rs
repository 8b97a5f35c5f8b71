//! What a registry answered, kept within bounds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::SchemaError;
use crate::decode::{AvroSchema, SchemaKey};

/// The most schemas kept: the plans made of them are kept elsewhere, so that one that falls out costs a request when it is asked for again.
const SCHEMAS_MAX: usize = 1_000;
/// The most schema text that the kept schemas were made of, bytes.
const TEXT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most keys that are kept as known to be bad: garbage that looks like ids must not fill the memory.
const REFUSED_MAX: usize = 10_000;
/// How long a refusal is believed. Short, because a schema that was registered a moment ago may not have reached every registry node yet.
const REFUSED_FOR: Duration = Duration::from_secs(30);

struct Kept {
    schema: Arc<AvroSchema>,
    text_bytes: usize,
    used: u64,
}

struct Refused {
    error: SchemaError,
    until: Duration,
}

/// Schemas by key, the least recently used dropped first; and refusals (unknown, unusable) for 30 s. Times are monotonic.
#[derive(Default)]
pub struct SchemaCache {
    kept: HashMap<SchemaKey, Kept>,
    text_bytes: usize,
    uses: u64,
    refused: HashMap<SchemaKey, Refused>,
}

impl SchemaCache {
    /// What is known of this key now: `None` means that the source has to be asked.
    pub fn get(&mut self, key: &SchemaKey, now: Duration) -> Option<Result<Arc<AvroSchema>, SchemaError>> {
        self.uses += 1;
        if let Some(kept) = self.kept.get_mut(key) {
            kept.used = self.uses;
            return Some(Ok(Arc::clone(&kept.schema)));
        }
        self.refused.get(key).filter(|refused| now < refused.until).map(|refused| Err(refused.error.clone()))
    }

    /// Keeps a schema that was made of `text_bytes` of text.
    pub fn keep(&mut self, key: SchemaKey, schema: Arc<AvroSchema>, text_bytes: usize) {
        self.refused.remove(&key);
        self.uses += 1;
        if let Some(earlier) = self.kept.insert(key, Kept { schema, text_bytes, used: self.uses }) {
            self.text_bytes -= earlier.text_bytes;
        }
        self.text_bytes += text_bytes;
        while self.kept.len() > 1 && (self.kept.len() > SCHEMAS_MAX || self.text_bytes > TEXT_BYTES_MAX) {
            let Some(oldest) = self.kept.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone()) else { break };
            if let Some(dropped) = self.kept.remove(&oldest) {
                self.text_bytes -= dropped.text_bytes;
            }
        }
    }

    /// Keeps an answer that says for certain that the key has no usable schema; other errors are passing troubles and are not kept.
    pub fn refuse(&mut self, key: SchemaKey, error: &SchemaError, now: Duration) {
        if !matches!(error, SchemaError::Unknown(_) | SchemaError::Unusable(_)) {
            return;
        }
        if self.refused.len() >= REFUSED_MAX {
            self.refused.retain(|_, refused| now < refused.until);
        }
        if self.refused.len() >= REFUSED_MAX {
            // All of them fresh: begin again rather than search for the oldest on every new key.
            self.refused.clear();
        }
        self.refused.insert(key, Refused { error: error.clone(), until: now + REFUSED_FOR });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn schema(id: u32) -> Arc<AvroSchema> {
        Arc::new(crate::schema::parse::parse(id.to_string(), r#""int""#, &[]).unwrap())
    }

    #[test]
    fn drops_the_least_recently_used() {
        let mut cache = SchemaCache::default();
        for id in 0..SCHEMAS_MAX as u32 {
            cache.keep(SchemaKey::Id(id), schema(id), 10);
        }
        assert!(cache.get(&SchemaKey::Id(0), Duration::ZERO).is_some());
        cache.keep(SchemaKey::Id(9999), schema(9999), 10);
        assert!(cache.get(&SchemaKey::Id(0), Duration::ZERO).is_some());
        assert!(cache.get(&SchemaKey::Id(1), Duration::ZERO).is_none());
        cache.keep(SchemaKey::Id(10_000), schema(10_000), TEXT_BYTES_MAX);
        assert_eq!((cache.kept.len(), cache.text_bytes), (1, TEXT_BYTES_MAX));
    }

    #[test]
    fn refusals_pass_and_are_bounded_and_troubles_are_not_kept() {
        let mut cache = SchemaCache::default();
        let (key, start) = (SchemaKey::Id(7), Duration::from_secs(100));
        cache.refuse(key.clone(), &SchemaError::Unavailable("503".into()), start);
        assert!(cache.get(&key, start).is_none());
        let unknown = SchemaError::Unknown("40403".into());
        cache.refuse(key.clone(), &unknown, start);
        assert_eq!(cache.get(&key, start + Duration::from_secs(29)).unwrap().unwrap_err(), unknown);
        assert!(cache.get(&key, start + Duration::from_secs(30)).is_none());
        cache.keep(key.clone(), schema(7), 10);
        assert!(cache.get(&key, start).unwrap().is_ok());
        for id in 0..3 * REFUSED_MAX as u32 {
            cache.refuse(SchemaKey::Id(id), &unknown, start);
            assert!(cache.refused.len() <= REFUSED_MAX);
        }
    }
}
