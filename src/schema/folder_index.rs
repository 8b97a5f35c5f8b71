//! The `.avsc` files of a folder as they are now, and which of them a name means.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use super::SchemaError;
use super::limits::TEXT_BYTES_MAX;
use super::parse::full_name;

/// The most files that a folder may hold, its own folders included.
const FILES_MAX: usize = 10_000;
/// The most bytes of all files together.
const FOLDER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How deep folders within it are followed.
const FOLDERS_DEEP_MAX: usize = 8;
/// The longest name that is looked up, bytes.
const NAME_BYTES_MAX: usize = 1024;

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileState {
    /// Relative to the folder, with `/` between its parts.
    name: String,
    /// Where it is, symbolic links followed. `None`: the link leads outside the folder.
    path: Option<PathBuf>,
    bytes: u64,
    modified: Option<SystemTime>,
}

/// One file's text.
#[derive(Debug)]
pub struct SchemaFile {
    /// Relative to the folder.
    pub name: String,
    /// Its text, or why it cannot be read: troubles of a file concern only itself.
    pub text: Result<String, SchemaError>,
    full_name: Option<String>,
}

/// The files of a folder at one moment.
#[derive(Debug)]
pub struct FolderIndex {
    state: Vec<FileState>,
    /// Every file, in the order of their names.
    pub files: Vec<SchemaFile>,
    by_name: HashMap<String, Vec<usize>>,
}

/// Whether a header's value can be a name at all.
///
/// # Errors
/// `OutsideFolder` for what points out of the folder or is no name: absolute, `..`, hidden, backslash, control characters, empty.
pub fn check_name(name: &str) -> Result<(), SchemaError> {
    let outside = |why: &str| Err(SchemaError::OutsideFolder(format!("the schema header's value `{}` {why}", name.escape_debug())));
    if name.is_empty() {
        return outside("is empty");
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(SchemaError::OutsideFolder(format!("the schema header's value has {} bytes: no name is that long", name.len())));
    }
    if name.contains(|c: char| c == '\\' || c.is_control()) {
        return outside("holds a backslash or control characters: it is no name");
    }
    if Path::new(name).components().any(|part| !matches!(part, Component::Normal(_))) {
        return outside("points outside the schema folder");
    }
    if name.split('/').any(|part| part.is_empty() || part.starts_with('.')) {
        return outside("is no name of a schema file");
    }
    Ok(())
}

impl FolderIndex {
    /// Reads the folder, or returns `None` when nothing changed since `earlier`. Blocks.
    ///
    /// # Errors
    /// `Unavailable`: the folder cannot be listed, or holds more than a schema folder may.
    pub fn read(folder: &Path, earlier: Option<&Self>) -> Result<Option<Self>, SchemaError> {
        let unavailable =
            |e: std::io::Error| SchemaError::Unavailable(format!("the schema folder {} cannot be read: {e}", folder.display()));
        let root = folder.canonicalize().map_err(unavailable)?;
        let mut state = Vec::new();
        list(&root, &root, 0, &mut state).map_err(unavailable)?;
        state.sort_by(|a, b| a.name.cmp(&b.name));
        if state.len() > FILES_MAX || state.iter().map(|file| file.bytes).sum::<u64>() > FOLDER_BYTES_MAX {
            return Err(SchemaError::Unavailable(format!(
                "the schema folder {} holds more than {FILES_MAX} schema files or {FOLDER_BYTES_MAX} bytes: name a folder of schemas only",
                folder.display()
            )));
        }
        if earlier.is_some_and(|earlier| earlier.state == state) {
            return Ok(None);
        }
        let files: Vec<SchemaFile> = state.iter().map(|file| read_file(folder, file)).collect();
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (at, file) in files.iter().enumerate() {
            let short = file.full_name.as_ref().map(|full| full.rsplit('.').next().unwrap_or(full).to_owned());
            for name in [file.full_name.clone(), short].into_iter().flatten() {
                let at_name = by_name.entry(name).or_default();
                if at_name.last() != Some(&at) {
                    at_name.push(at);
                }
            }
        }
        Ok(Some(Self { state, files, by_name }))
    }

    /// The file that a name means: the file's name with or without `.avsc` first, then the full name, then the short name of its record.
    ///
    /// # Errors
    /// `FileMissing`: no such file (yet). `OutsideFolder`: a link out of the folder. `Unavailable`: several different files have this name.
    pub fn find(&self, name: &str) -> Result<usize, SchemaError> {
        for candidate in [name.to_owned(), format!("{name}.avsc")] {
            if let Ok(at) = self.state.binary_search_by(|file| file.name.as_str().cmp(&candidate)) {
                return match self.state[at].path {
                    Some(_) => Ok(at),
                    None => Err(SchemaError::OutsideFolder(format!(
                        "the schema file `{candidate}` is a link that leads outside the schema folder"
                    ))),
                };
            }
        }
        let missing = || SchemaError::FileMissing(format!("no file of the schema folder is or defines `{name}`: put `{name}.avsc` there"));
        let found = self.by_name.get(name).ok_or_else(missing)?;
        let first = *found.first().ok_or_else(missing)?;
        match found.iter().find(|at| self.files[**at].text != self.files[first].text) {
            Some(other) => Err(SchemaError::Unavailable(format!(
                "both {} and {} of the schema folder define `{name}`: remove one, or have the header name the file",
                self.files[first].name, self.files[*other].name
            ))),
            None => Ok(first),
        }
    }
}

fn list(root: &Path, folder: &Path, deep: usize, into: &mut Vec<FileState>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
        // Hidden ones too: a ConfigMap's real files are in `..data`, and its visible names link there.
        if into.len() > FILES_MAX || path.file_name().is_none_or(|n| n.as_encoded_bytes().starts_with(b".")) {
            continue;
        }
        let Ok(real) = path.canonicalize() else { continue };
        let inside = real.starts_with(root);
        let Ok(metadata) = fs::metadata(&real) else { continue };
        if metadata.is_dir() {
            if inside && deep < FOLDERS_DEEP_MAX && !fs::symlink_metadata(&path)?.is_symlink() {
                list(root, &path, deep + 1, into)?;
            }
        } else if metadata.is_file() && path.extension().is_some_and(|e| e == "avsc") {
            let (bytes, modified) = if inside { (metadata.len(), metadata.modified().ok()) } else { (0, None) };
            into.push(FileState { name: name.to_owned(), path: inside.then_some(real), bytes, modified });
        }
    }
    Ok(())
}

fn read_file(folder: &Path, file: &FileState) -> SchemaFile {
    let text = match &file.path {
        None => Err(SchemaError::OutsideFolder(format!("{} leads outside the schema folder", file.name))),
        Some(path) => {
            read_text(path).map_err(|why| SchemaError::Unavailable(format!("the schema file {} {why}", folder.join(&file.name).display())))
        }
    };
    let full_name = text.as_ref().ok().and_then(|text| full_name(text));
    SchemaFile { name: file.name.clone(), text, full_name }
}

fn read_text(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(format!("has more than {TEXT_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|e| format!("is no UTF-8: {e}"))
}
