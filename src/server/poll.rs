//! What files look like from outside: compared, it tells whether one has changed where the system does not say.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::fs::MetadataExt,
    path::PathBuf,
};

/// What entries of the file system looked like at one time: their inodes, sizes and times. notify's own poller compares
/// whole seconds, and sees no file that is replaced by an older one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp(u64);

impl Stamp {
    pub fn of<'a>(paths: impl Iterator<Item = &'a PathBuf>) -> Self {
        let mut hasher = DefaultHasher::new();
        for path in paths {
            let found = fs::symlink_metadata(path).ok();
            let facts = found.map(|found| {
                let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
                (found.dev(), found.ino(), found.size(), times)
            });
            (path, facts).hash(&mut hasher);
        }
        Self(hasher.finish())
    }
}
