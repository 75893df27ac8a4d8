//! The bounds of discovery, by name.

/// Links at a time beyond which nobody is dialled, unless configured otherwise.
pub const LINKS_MAX: usize = 4_096;
