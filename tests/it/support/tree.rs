//! Temporary files and free ports.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A directory of a test's own, gone with it.
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("portolan-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // A short path: the addresses of unix sockets end at 107 bytes.
        let root = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        Self { root }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.join(name)
    }

    pub fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn read(&self, name: impl AsRef<Path>) -> String {
        fs::read(self.path(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        if std::env::var_os("KEEP_TREES").is_none() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// A port for those who cannot be told to pick one. It lies below the range that the system picks from, so that
/// no connection of another test takes it in between.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(61);
    (0..10_000)
        .map(|_| 20_000 + ((start + NEXT.fetch_add(7, Ordering::Relaxed)) % 12_000) as u16)
        .find(|port| is_free(*port))
        .expect("some port between 20000 and 32000 is free")
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}
