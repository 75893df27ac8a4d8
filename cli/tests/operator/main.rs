//! The binary as an operator meets it: its documents, its errors, its prompt, its live view.

mod canned;
mod cli;
mod documents;
mod failures;
mod mesh;
mod messages;
mod prompt;
mod screen;
mod terminal;
mod wire;
