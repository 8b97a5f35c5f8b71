//! Lines on stdout. Whoever reads them may leave (`millrace status --json | head`): that ends a command, and panics with `println!`.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

/// What shells show of a program that a closed pipe ended: 128 and SIGPIPE's number.
const READER_LEFT: i32 = 141;

/// As `println!`; when it cannot be written, the process ends: with 141 when the reader has left.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::cli::stdout::write(format_args!("{}\n", format_args!($($words)*)))
    };
}
pub(super) use say;

/// Writes, or ends the process as [`say`] does.
pub(super) fn write(words: Arguments<'_>) {
    if let Err(error) = try_write(words) {
        if error.kind() == ErrorKind::BrokenPipe {
            std::process::exit(READER_LEFT);
        }
        eprintln!("millrace: stdout: {error}");
        std::process::exit(1);
    }
}

/// Writes at once.
///
/// # Errors
/// Stdout's: for a command that goes on without anybody who reads.
pub(super) fn try_write(words: Arguments<'_>) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_fmt(words)?;
    stdout.flush()
}
