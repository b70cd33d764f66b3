//! Power cuts: the work on the store is recorded, and of the record images are made, as a power cut at any moment
//! could have left the disk. In some a sync failed before, and another process went on.

use crate::disk::layout::{MARKS, call, fate, file, what};
use crate::disk::{Disk, Plan};
use crate::image::{self, Contents, Journal};
use crate::random::Random;
use crate::walk::{Ground, HOST, worker};
use crate::work;
use std::io;
use std::path::{Path, PathBuf};

/// Of the second process.
const OTHER_HOST: &str = "b.example";
/// Images made of one record.
const IMAGES_PER_RECORD: u64 = 250;

#[derive(Default)]
pub struct Cuts {
    pub images: u64,
    pub records: u64,
    pub wrong: Vec<String>,
}

/// Makes and looks at so many images.
pub fn cuts(ground: &Ground, seed: u64, images: u64) -> io::Result<Cuts> {
    let mut cuts = Cuts::default();
    while cuts.images < images {
        let most = (images - cuts.images).min(IMAGES_PER_RECORD);
        let seed = seed.wrapping_add(cuts.records);
        record_and_cut(ground, seed, cuts.records % 2 == 1, most, &mut cuts)?;
        cuts.records += 1;
    }
    Ok(cuts)
}

fn record_and_cut(ground: &Ground, seed: u64, sync_fails: bool, images: u64, cuts: &mut Cuts) -> io::Result<()> {
    let mut random = Random::new(seed, 5);
    let aside = tempfile::tempdir_in(ground.parent.path())?;
    let folder = aside.path().join("data");
    std::fs::create_dir(&folder)?;
    let record = aside.path().join("record");
    let disk = Disk::new(&ground.library, &folder, aside.path())?;
    let run = |host, seed| {
        let mut command = worker(&folder, host, seed)?;
        disk.under(&mut command, Some(&record));
        command.output()
    };
    let mut works = vec![(HOST, seed)];
    // Where images are made from on.
    let mut from = 0;
    if sync_fails {
        let files = if random.one_in(3) { file::DATABASE } else { file::WAL };
        // The first are of a start: migrations, the epoch.
        let most = match files {
            file::WAL if random.one_in(3) => 8,
            file::WAL => 60,
            _ => 4,
        };
        let nth = 1 + random.below(most);
        disk.arm(Plan { calls: call::SYNC, files, fate: fate::EIO, from: nth, count: 1 })?;
        let ended = run(HOST, seed)?;
        let entries = image::read(&record)?;
        let failed = entries.iter().position(|entry| entry.what == what::SYNC_FAILED);
        if disk.chosen()? > 0 && !matches!(ended.status.code(), Some(10 | 11)) {
            let all = entries.len();
            let which = failed.map(|at| format!("sync {nth} of {}, entry {at} of {all}", entries[at].name));
            let which = which.unwrap_or_default();
            cuts.wrong.push(format!("seed {seed}: after {which} failed the process ended with {}", ended.status));
            println!("its record lies in {}", keep_record(&record)?.display());
        }
        disk.calm()?;
        from = failed.unwrap_or(0);
        works.push((OTHER_HOST, seed));
        run(OTHER_HOST, seed)?;
    } else {
        run(HOST, seed)?;
    }
    let entries = image::read(&record)?;
    let (mut journal, mut contents) = (Journal::default(), Contents::default());
    let mut moments: Vec<usize> =
        (0..images).map(|_| from + random.below((entries.len() - from) as u64 + 1) as usize).collect();
    moments.sort_unstable();
    let mut applied = 0;
    for moment in moments {
        for entry in &entries[applied..moment] {
            journal.apply(entry);
            contents.apply(entry);
        }
        applied = moment;
        let seed_of_cut = random.next();
        let image = tempfile::tempdir_in(ground.parent.path())?;
        contents.write(image.path())?;
        journal.cut(image.path(), &mut Random::new(seed_of_cut, 9))?;
        // What was said was said, whatever the disk forgot.
        let marks = contents.0.get(MARKS).cloned().unwrap_or_default();
        let wrong = work::compare(image.path(), &marks, &works);
        for what in &wrong {
            cuts.wrong.push(format!("seed {seed}, cut at {moment} of {}: {what}", entries.len()));
        }
        if !wrong.is_empty() {
            println!(
                "an image with something wrong lies in {}",
                keep(&contents, &journal, seed_of_cut, &record)?.display()
            );
        }
        cuts.images += 1;
    }
    Ok(())
}

fn keep_record(record: &Path) -> io::Result<PathBuf> {
    let kept = tempfile::Builder::new().prefix("waft-crash-record-").tempdir()?.keep();
    std::fs::copy(record, kept.join("record"))?;
    Ok(kept)
}

/// The image once more (looking at it changed it), and the record behind it, where they outlive this program.
fn keep(contents: &Contents, journal: &Journal, seed: u64, record: &Path) -> io::Result<PathBuf> {
    let kept = tempfile::Builder::new().prefix("waft-crash-image-").tempdir()?.keep();
    contents.write(&kept)?;
    journal.cut(&kept, &mut Random::new(seed, 9))?;
    std::fs::copy(record, kept.join("record"))?;
    Ok(kept)
}
