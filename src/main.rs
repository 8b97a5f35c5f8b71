//! The program: allocator, TLS provider, exit code; everything else is in the library.

use std::process::ExitCode;

// jemalloc, for C code as well (the crate's feature: librdkafka holds more than rows do), with background threads (the crate's feature): pages that a burst dirtied go back to the system within about 10 s
// (dirty_decay_ms, jemalloc's default) although no thread of ours allocates meanwhile.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // First of all: rustls panics at the first connection when two providers are compiled in and none is chosen.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("millrace: a TLS provider was installed before main began");
        return ExitCode::FAILURE;
    }
    millrace::cli::main().into()
}
