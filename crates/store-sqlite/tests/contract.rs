//! The contract of every store, on SQLite.

use store::Store;
use store::contract::{Subject, wait};
use store_sqlite::{Options, SqliteStore};
use tempfile::TempDir;

struct OnDisk {
    store: SqliteStore,
    folder: TempDir,
}

fn open(folder: &TempDir) -> SqliteStore {
    SqliteStore::open(folder.path(), Options::default()).expect("the folder is ours")
}

impl Subject for OnDisk {
    type Store = SqliteStore;
    fn fresh() -> OnDisk {
        let folder = TempDir::new().expect("there is a folder for temporary files");
        OnDisk { store: open(&folder), folder }
    }
    fn store(&self) -> &SqliteStore {
        &self.store
    }
    fn reopened(self) -> OnDisk {
        wait(self.store.close()).expect("it closes");
        OnDisk { store: open(&self.folder), folder: self.folder }
    }
}

store::contract_tests!(OnDisk);
