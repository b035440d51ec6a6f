//! Tests of the command line as a whole.

mod commands;
mod parsing;
mod registration;
mod report;
