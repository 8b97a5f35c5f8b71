//! What is wrong with a record, before it is put into words.

use crate::record::{RecordError, RecordErrorClass, Stage};

/// The field's path is unknown or it is the record itself.
pub(super) const NO_PATH: u32 = u32::MAX;

/// A failure as it is passed on the hot path: small, without allocation. It is put into words once, at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault {
    pub class: RecordErrorClass,
    /// Index into the plan's paths.
    pub path: u32,
    /// Byte position in the data.
    pub position: usize,
    pub what: &'static str,
}

impl Fault {
    #[cold]
    pub fn new(class: RecordErrorClass, position: usize, what: &'static str) -> Self {
        Self { class, path: NO_PATH, position, what }
    }

    /// Names the field, unless an inner one was named already.
    #[cold]
    pub fn at_path(self, path: u32) -> Self {
        Self { path: if self.path == NO_PATH { path } else { self.path }, ..self }
    }

    #[cold]
    pub fn into_error(self, paths: &[String]) -> RecordError {
        let path = paths.get(self.path as usize);
        let field = path.map_or_else(String::new, |p| format!("field `{p}`, "));
        RecordError::new(Stage::Decode, self.class, format!("{field}byte {}: {}", self.position, self.what))
    }
}
