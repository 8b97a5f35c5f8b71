//! What the rules of both files share: where a complaint goes, what may be shown, names that Kafka and BigQuery take.

use std::path::Path;

use super::document::{Document, Step, show_path};
use super::errors::ConfigError;

/// The place of a key.
#[derive(Debug, Clone)]
pub(super) struct Place(Vec<Step>);

/// The place of a key by its path, such as `table.cluster`.
pub(super) fn at(path: &str) -> Place {
    Place(path.split('.').map(|key| Step::Key(key.to_owned())).collect())
}

impl Place {
    /// An element of the array here.
    pub(super) fn index(mut self, i: usize) -> Self {
        self.0.push(Step::Index(i));
        self
    }
    /// A key of the table here.
    pub(super) fn key(mut self, key: &str) -> Self {
        self.0.push(Step::Key(key.to_owned()));
        self
    }
}

/// Collects what the rules find in one file.
pub(super) struct Complaints<'a> {
    pub document: &'a Document,
    /// Where the file is wrong already: nothing is concluded from there.
    pub wrong: &'a [Vec<Step>],
    pub errors: &'a mut Vec<ConfigError>,
}

impl Complaints<'_> {
    /// Complains about what stands at this place (or would stand there).
    pub(super) fn add(&mut self, place: &Place, message: impl Into<String>) {
        self.add_unless(place, &[], message);
    }

    /// The same, unless one of `others`, from which the complaint was concluded, is wrong already.
    pub(super) fn add_unless(&mut self, place: &Place, others: &[&Place], message: impl Into<String>) {
        if self.is_wrong(place) || others.iter().any(|other| self.is_wrong(other)) {
            return;
        }
        let span = self.document.nearest(&place.0).span.clone();
        self.errors.push(self.document.error(span, show_path(&place.0), message.into()));
    }

    fn is_wrong(&self, place: &Place) -> bool {
        self.wrong.iter().any(|wrong| place.0.starts_with(wrong))
    }

    /// The value as it may be shown.
    pub(super) fn show(&self, place: &Place, value: &str) -> String {
        if self.document.nearest(&place.0).substituted { "the substituted value".to_owned() } else { format!("`{value}`") }
    }

    /// A number or length within bounds, both included.
    pub(super) fn within<T: PartialOrd + std::fmt::Debug>(&mut self, place: &Place, value: T, min: T, max: T) {
        if value < min || value > max {
            let shown = self.show(place, &format!("{value:?}"));
            self.add(place, format!("{shown} is out of range: expected {min:?} to {max:?}"));
        }
    }

    /// A file that must be there.
    pub(super) fn file(&mut self, place: &Place, path: Option<&Path>) {
        if let Some(path) = path.filter(|path| !path.is_file()) {
            let shown = self.show(place, &path.display().to_string());
            self.add(place, format!("{shown} is no file that can be found"));
        }
    }

    /// An address that begins with `http://` or `https://` and carries no password.
    pub(super) fn url(&mut self, place: &Place, url: &str) {
        let parsed = url.parse::<http::Uri>().ok();
        let authority = parsed.as_ref().and_then(|uri| uri.authority());
        let scheme = parsed.as_ref().and_then(|uri| uri.scheme_str());
        if authority.is_some_and(|authority| authority.as_str().contains('@')) {
            self.add(place, "the address holds a user or a password, and addresses are shown in messages: use the keys for them");
        } else if authority.is_none() || !matches!(scheme, Some("http" | "https")) {
            let shown = self.show(place, url);
            self.add(place, format!("{shown} is no address: expected http://host:port or https://host"));
        }
    }
}

/// Whether Kafka takes this as a topic's name: 1 to 249 letters, digits, dots, underscores, hyphens (Topic.java).
pub(super) fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=249).contains(&name.len()) && name != "." && name != ".." && name.chars().all(legal)
}

/// What a topic's name may be, in words.
pub(super) const TOPIC_RULE: &str = "expected a topic's name: 1 to 249 letters, digits, `.`, `_`, `-`";
