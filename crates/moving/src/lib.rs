//! Accounts that move: from Prosody, ejabberd and XEP-0227 files to waft's store, and from there to XEP-0227.
//!
//! - [`account`]: one account on its way, whatever it came from.
//! - [`prosody`]: Prosody's data folder, and its SQLite database. [`lua`]: the tables in them. [`vcard4`]: its cards.
//! - [`pie`]: XEP-0227, read and written. [`document`]: a document cut into its parts.
//! - [`archive_sql`]: ejabberd's archives, which its export leaves out.
//! - [`settle`]: from an account on its way to changes of the store. [`leave`]: the other way.
//!
//! Nothing here knows a running server; [`Source`] gives one account after the other, so that no more than one is in
//! memory.

pub mod account;
pub mod archive_sql;
pub mod document;
pub mod leave;
pub mod lua;
pub mod pie;
pub mod prosody;
pub mod settle;
pub mod vcard4;

pub use account::{Account, Keys, LeftOut, Message, Node, Request};

use std::fmt;
use std::path::{Path, PathBuf};

/// Where accounts come from.
pub trait Source {
    /// How many accounts there are.
    ///
    /// # Errors
    /// What cannot be read.
    fn count(&self) -> Result<u64, Problem>;

    /// Gives one account after the other; ends with the first error of `take`.
    ///
    /// # Errors
    /// That one, or what cannot be read as a whole. What of an account cannot be read is in its [`LeftOut`].
    fn each(&self, take: &mut dyn FnMut(Account) -> Result<(), Problem>) -> Result<LeftOut, Problem>;
}

/// What ends a move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub path: PathBuf,
    pub what: String,
}

impl Problem {
    pub fn of(path: &Path, what: impl fmt::Display) -> Problem {
        Problem { path: path.into(), what: what.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.as_os_str().is_empty() {
            return f.write_str(&self.what);
        }
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

impl std::error::Error for Problem {}
