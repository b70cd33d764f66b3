//! Commands by which accounts come from other servers, and go to them.

use super::Place;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use xmpp::BareJid;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// Prosody's data folder, or its prosody.sqlite
    Prosody,
    /// What `ejabberdctl export_piefxis` wrote, and `export2sql` for the archives
    Ejabberd,
    /// A file of XEP-0227, or a folder of them
    Xep0227,
}

#[derive(Debug, Args)]
pub struct Import {
    /// Which server wrote it
    #[arg(value_enum)]
    pub from: Origin,
    /// The folder or file
    pub path: PathBuf,
    /// Only the accounts of this domain
    #[arg(long, value_name = "D")]
    pub domain: Option<String>,
    /// Of ejabberd: archives as SQL; may be given several times [default: *.sql in the folder]
    #[arg(long, value_name = "FILE")]
    pub archive: Vec<PathBuf>,
    /// Say what would be moved in and what left out, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

pub(super) const IMPORT_HELP: &str = "\
Stop the other server first: what it writes meanwhile is not moved. waft itself may run or not.
What is in waft already is never replaced; moving in again adds what is new.

Examples:
  waft import prosody /var/lib/prosody --dry-run
  ejabberdctl export_piefxis /var/lib/ejabberd/out
  ejabberdctl export2sql example.org /var/lib/ejabberd/out/example.org.sql
  waft import ejabberd /var/lib/ejabberd/out";

#[derive(Debug, Args)]
pub struct Export {
    /// The account, such as alice@localhost [default: all]
    pub jid: Option<BareJid>,
    /// All accounts of this domain alone
    #[arg(long, value_name = "D", conflicts_with = "jid")]
    pub domain: Option<String>,
    /// The file, which must not be there yet; only its owner can read it [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
}
