//! A file per command. The only user of `embedded/`.
