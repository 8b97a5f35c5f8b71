//! The program: allocator, TLS provider, exit code; everything else is in the library.

use std::process::ExitCode;

// Two features of the crate matter. C code allocates with jemalloc too, since librdkafka holds more memory than rows do. Background threads
// give the pages of a burst back to the system within about 10 s (jemalloc's `dirty_decay_ms`), also while no thread of ours allocates.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before anything else: with two providers compiled in and none chosen, rustls panics at the first connection.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("millrace: a TLS provider was installed before main began");
        return ExitCode::FAILURE;
    }
    millrace::cli::main().into()
}
