//! Memory that a reload has freed goes back to the system when the reload is over: the allocator by itself would keep it
//! for ten seconds, and reloads in a row would add up.

use tikv_jemalloc_ctl::{Access, AsName, arenas};

/// Gives back the pages that are free.
pub fn give_back() {
    let Ok(arenas) = arenas::narenas::read() else { return };
    for arena in 0..arenas {
        // An arena purges what it holds when it is told to hold nothing. One that was never used has no such setting.
        let name = format!("arena.{arena}.dirty_decay_ms\0");
        let decay: Result<isize, _> = name.name().read();
        if let Ok(decay) = decay {
            let _ = name.name().write(0_isize);
            let _ = name.name().write(decay);
        }
    }
}
