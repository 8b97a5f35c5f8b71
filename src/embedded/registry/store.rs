//! What the registry knows: schemas by id, subjects with their versions, levels, modes.

use std::collections::{BTreeMap, HashMap};

use apache_avro::Schema;
use serde::{Deserialize, Serialize};

use super::compatibility::{Level, complaints};
use super::error::ApiError;
use super::schema::{Reference, StoredSchema};

/// What may be done with a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Mode {
    #[default]
    ReadWrite,
    ReadOnly,
    #[serde(rename = "READONLY_OVERRIDE")]
    ReadOnlyOverride,
    Import,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Version {
    pub(super) id: u32,
    pub(super) deleted: bool,
}

#[derive(Debug, Default)]
pub(super) struct Store {
    pub(super) level: Level,
    pub(super) mode: Mode,
    pub(super) levels: BTreeMap<String, Level>,
    pub(super) modes: BTreeMap<String, Mode>,
    pub(super) schemas: BTreeMap<u32, StoredSchema>,
    ids: HashMap<(String, Vec<Reference>), u32>,
    subjects: BTreeMap<String, BTreeMap<u32, Version>>,
}

impl Store {
    /// Names of subjects with a version that is not deleted (or any, with `deleted`).
    pub(super) fn subjects(&self, deleted: bool) -> Vec<&str> {
        let alive = |versions: &BTreeMap<u32, Version>| versions.values().any(|v| deleted || !v.deleted);
        self.subjects.iter().filter(|(_, versions)| alive(versions)).map(|(name, _)| name.as_str()).collect()
    }

    /// A subject's versions in order.
    pub(super) fn versions(&self, subject: &str, deleted: bool) -> Result<Vec<(u32, Version)>, ApiError> {
        let all = self.subjects.get(subject).ok_or_else(|| ApiError::subject_not_found(subject))?;
        let seen: Vec<(u32, Version)> = all.iter().map(|(n, v)| (*n, *v)).filter(|(_, v)| deleted || !v.deleted).collect();
        if seen.is_empty() { Err(ApiError::subject_not_found(subject)) } else { Ok(seen) }
    }

    /// One version by number, or the newest by `latest` or `-1`.
    pub(super) fn version(&self, subject: &str, asked: &str, deleted: bool) -> Result<(u32, Version), ApiError> {
        let number = match asked {
            "latest" | "-1" => None,
            n => match n.parse::<i32>() {
                Ok(n) if n > 0 => Some(n.unsigned_abs()),
                _ => return Err(ApiError::invalid_version(asked)),
            },
        };
        let versions = self.versions(subject, deleted)?;
        match number {
            None => versions.last().copied().ok_or_else(|| ApiError::subject_not_found(subject)),
            Some(n) => versions.into_iter().find(|(v, _)| *v == n).ok_or_else(|| ApiError::version_not_found(n)),
        }
    }

    /// Every (subject, version) that has this id.
    pub(super) fn places(&self, id: u32, deleted: bool) -> Vec<(&str, u32)> {
        let mut places = Vec::new();
        for (subject, versions) in &self.subjects {
            places.extend(versions.iter().filter(|(_, v)| v.id == id && (deleted || !v.deleted)).map(|(n, _)| (subject.as_str(), *n)));
        }
        places
    }

    /// Parses a text with its references looked up.
    pub(super) fn parse(&self, text: &str, mut references: Vec<Reference>) -> Result<StoredSchema, ApiError> {
        let mut texts = Vec::new();
        let mut seen = Vec::new();
        for reference in &mut references {
            if reference.version == -1
                && let Ok((newest, _)) = self.version(&reference.subject, "latest", false)
            {
                reference.version = i64::from(newest);
            }
        }
        self.gather(&references, &mut texts, &mut seen)?;
        StoredSchema::parse(text, references, &texts)
    }

    fn gather(&self, references: &[Reference], texts: &mut Vec<String>, seen: &mut Vec<u32>) -> Result<(), ApiError> {
        for reference in references {
            let missing = || {
                ApiError::invalid_schema(format!(
                    "No schema reference found for subject \"{}\" and version {}",
                    reference.subject, reference.version
                ))
            };
            let (_, version) = self.version(&reference.subject, &reference.version.to_string(), true).map_err(|_| missing())?;
            if seen.contains(&version.id) {
                continue;
            }
            seen.push(version.id);
            let schema = self.schemas.get(&version.id).ok_or_else(missing)?;
            self.gather(&schema.references, texts, seen)?;
            texts.push(schema.text.clone());
        }
        Ok(())
    }

    /// The id and version of a schema that is registered under this subject.
    pub(super) fn lookup(&self, subject: &str, schema: &StoredSchema, deleted: bool) -> Result<(u32, u32), ApiError> {
        let versions = self.versions(subject, deleted)?;
        let id = self.ids.get(&schema.identity());
        versions
            .iter()
            .rev()
            .find(|(_, v)| Some(&v.id) == id)
            .map(|(n, v)| (v.id, *n))
            .ok_or(ApiError { code: 40403, message: "Schema not found".to_owned() })
    }

    /// Registers; the same schema again gives the same id.
    pub(super) fn register(&mut self, subject: &str, text: &str, references: Vec<Reference>) -> Result<u32, ApiError> {
        if matches!(self.modes.get(subject).unwrap_or(&self.mode), Mode::ReadOnly | Mode::ReadOnlyOverride) {
            return Err(ApiError::read_only(subject));
        }
        let schema = self.parse(text, references)?;
        if let Ok((id, _)) = self.lookup(subject, &schema, false) {
            return Ok(id);
        }
        if let Some(complaint) = self.complaints(subject, &schema.whole, None)?.first() {
            return Err(ApiError::incompatible(complaint));
        }
        let identity = schema.identity();
        let id = match self.ids.get(&identity) {
            Some(id) => *id,
            None => {
                let id = self.schemas.keys().next_back().map_or(1, |last| last + 1);
                self.ids.insert(identity, id);
                self.schemas.insert(id, schema);
                id
            }
        };
        let versions = self.subjects.entry(subject.to_owned()).or_default();
        let number = versions.keys().next_back().map_or(1, |last| last + 1);
        versions.insert(number, Version { id, deleted: false });
        Ok(id)
    }

    /// Why this schema may not become the subject's next version; against one version only when it is named.
    pub(super) fn complaints(&self, subject: &str, new: &Schema, against: Option<&str>) -> Result<Vec<String>, ApiError> {
        let level = self.levels.get(subject).copied().unwrap_or(self.level);
        let earlier = match against {
            Some(version) => vec![self.version(subject, version, false)?.1],
            None => self.versions(subject, false).unwrap_or_default().into_iter().map(|(_, v)| v).collect(),
        };
        let earlier: Vec<&Schema> = earlier.iter().filter_map(|v| self.schemas.get(&v.id)).map(|s| &s.whole).collect();
        Ok(complaints(level, new, &earlier))
    }

    /// Ids of schemas that refer to this version.
    pub(super) fn referrers(&self, subject: &str, version: u32) -> Vec<u32> {
        let refers = |s: &StoredSchema| s.references.iter().any(|r| r.subject == subject && r.version == i64::from(version));
        let alive = |id: u32| !self.places(id, false).is_empty();
        self.schemas.iter().filter(|(id, s)| refers(s) && alive(**id)).map(|(id, _)| *id).collect()
    }

    /// Deletes a subject; gives the numbers of its versions.
    pub(super) fn delete_subject(&mut self, subject: &str, permanent: bool) -> Result<Vec<u32>, ApiError> {
        let all = self.subjects.get(subject).ok_or_else(|| ApiError::subject_not_found(subject))?;
        let alive = all.values().any(|v| !v.deleted);
        let numbers: Vec<u32> = all.iter().filter(|(_, v)| permanent || !v.deleted).map(|(n, _)| *n).collect();
        match (permanent, alive) {
            (false, false) => return Err(ApiError::subject_soft_deleted(subject)),
            (true, true) => return Err(ApiError::subject_not_soft_deleted(subject)),
            _ => {}
        }
        if let Some(number) = numbers.iter().find(|n| !self.referrers(subject, **n).is_empty()) {
            return Err(ApiError::still_referenced(subject, *number));
        }
        if permanent {
            self.subjects.remove(subject);
        } else if let Some(versions) = self.subjects.get_mut(subject) {
            versions.values_mut().for_each(|v| v.deleted = true);
        }
        self.levels.remove(subject);
        Ok(numbers)
    }

    /// Deletes one version; gives its number.
    pub(super) fn delete_version(&mut self, subject: &str, asked: &str, permanent: bool) -> Result<u32, ApiError> {
        let (number, version) = self.version(subject, asked, true)?;
        match (permanent, version.deleted) {
            (false, true) => return Err(ApiError::version_soft_deleted(subject, number)),
            (true, false) => return Err(ApiError::version_not_soft_deleted(subject, number)),
            _ => {}
        }
        if !self.referrers(subject, number).is_empty() {
            return Err(ApiError::still_referenced(subject, number));
        }
        if let Some(versions) = self.subjects.get_mut(subject) {
            if permanent {
                versions.remove(&number);
            } else if let Some(version) = versions.get_mut(&number) {
                version.deleted = true;
            }
            if versions.is_empty() {
                self.subjects.remove(subject);
            }
        }
        Ok(number)
    }
}
