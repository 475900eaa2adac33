//! Portolan's command.

use std::process::ExitCode;

/// Under load the system's allocator keeps more memory than is in use, and more of it after each reload.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    portolan::cli::main()
}
