//! Uploaded files: the sources of templates.

use std::fmt;

use time::OffsetDateTime;

use super::{FileId, UserId};

/// A file to store. Whose it is says the permit.
#[derive(Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The primary key, unless the user has uploaded the same content before.
    pub id: FileId,
    /// What it is, such as `application/x-tar`: 1 to 64 characters.
    pub mimetype: String,
    /// Its content.
    pub data: Vec<u8>,
}

/// A row of `files` (domain: files).
#[derive(Clone, PartialEq, Eq)]
pub struct File {
    /// The primary key.
    pub id: FileId,
    /// The SHA-256 of its content, as 64 hexadecimal digits.
    pub hash: String,
    /// When it was uploaded first.
    pub created_at: OffsetDateTime,
    /// Who uploaded it.
    pub created_by: UserId,
    /// What it is.
    pub mimetype: String,
    /// Its content.
    pub data: Vec<u8>,
}

// A source may be large, and may hold secrets.
impl fmt::Debug for NewFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewFile({}, {}, {} bytes)", self.id, self.mimetype, self.data.len())
    }
}

impl fmt::Debug for File {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "File({}, {}, {} bytes)", self.id, self.mimetype, self.data.len())
    }
}

/// What became of an upload.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileOutcome {
    /// It is stored with the id that was given.
    Stored,
    /// The user has uploaded the same content before. Nothing was written.
    Known(FileId),
}
