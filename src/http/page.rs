//! The web page: one file without any other, shows `/status` and `/fleet` and asks again every two seconds.

/// HTML, style and script.
pub(super) const PAGE: &str = include_str!("page.html");
