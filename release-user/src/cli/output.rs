//! What is printed where: results to stdout, everything else to stderr.

use super::values::Output;
use crate::api::ErrorBody;
use crate::api::types::{ApiError, ErrorCode};
use serde::Serialize;
use std::io::{self, IsTerminal as _, Write as _};

/// Where results go.
pub(super) struct Out {
    pub format: Output,
    /// Whether stdout is a terminal.
    pub terminal: bool,
    /// Whether colours are wanted on stdout.
    pub colours: bool,
    sink: Box<dyn io::Write>,
    closed: bool,
}

impl Out {
    /// Prints to stdout.
    pub fn stdout(format: Output) -> Self {
        let terminal = io::stdout().is_terminal();
        Self {
            format,
            terminal,
            colours: terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            sink: Box::new(io::stdout()),
            closed: false,
        }
    }

    /// Prints to `sink` as if that were no terminal.
    #[cfg(test)]
    pub fn to_sink(format: Output, sink: Box<dyn io::Write>) -> Self {
        Self { format, terminal: false, colours: false, sink, closed: false }
    }

    /// Prints text as it is. A reader that went away is no error: the exit code still counts.
    ///
    /// # Errors
    /// When stdout cannot be written to for another reason, such as a full disk.
    pub fn text(&mut self, text: &str) -> Result<(), ApiError> {
        if self.closed {
            return Ok(());
        }
        match self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            Err(error) => Err(ApiError::new(
                ErrorCode::Internal,
                format!("stdout: cannot be written to: {error}"),
            )),
        }
    }

    /// Whether nobody reads any more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Prints one value: `text` makes it readable, given whether colours are wanted.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub fn value<T: Serialize>(
        &mut self,
        value: &T,
        text: impl FnOnce(&T, bool) -> String,
    ) -> Result<(), ApiError> {
        let text = match self.format {
            Output::Text => text(value, self.colours),
            Output::Json => json(value, true)?,
            Output::Jsonl => json(value, false)?,
        };
        self.text(&text)
    }

    /// Prints a list: as one array, or an item a line.
    ///
    /// # Errors
    /// As [`Out::text`].
    pub fn list<T: Serialize>(
        &mut self,
        items: &[T],
        text: impl FnOnce(&[T], bool) -> String,
    ) -> Result<(), ApiError> {
        let text = match self.format {
            Output::Text => text(items, self.colours),
            Output::Json => json(&items, true)?,
            Output::Jsonl => {
                items.iter().map(|item| json(item, false)).collect::<Result<_, _>>()?
            }
        };
        self.text(&text)
    }
}

/// A value, with its line end.
pub(super) fn json(value: &impl Serialize, pretty: bool) -> Result<String, ApiError> {
    let text =
        if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map(|text| text + "\n").map_err(|error| {
        ApiError::new(ErrorCode::Internal, format!("output: cannot be said in JSON: {error}"))
    })
}

/// `error: what: why (hint)`, or the same in JSON, with its line end.
pub(super) fn error_text(error: &ApiError, format: Output) -> String {
    let text = || format!("error: {}\n", error.in_full());
    match format {
        Output::Text => text(),
        Output::Json | Output::Jsonl => {
            json(&ErrorBody { error: error.clone() }, false).unwrap_or_else(|_| text())
        }
    }
}

/// Prints to stderr, as far as anybody reads it.
pub(super) fn to_stderr(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// One line on stderr that changes: on a terminal in place, elsewhere whenever `kind` does.
pub(super) struct Progress {
    terminal: bool,
    kind: Option<String>,
    shown: bool,
}

impl Progress {
    pub fn new() -> Self {
        Self { terminal: io::stderr().is_terminal(), kind: None, shown: false }
    }

    pub fn show(&mut self, kind: &str, line: &str) {
        let changed = self.kind.as_deref() != Some(kind);
        if self.terminal {
            // Return, text, erase the rest.
            to_stderr(&format!("\r{line}\x1b[K"));
            self.shown = true;
        } else if changed {
            to_stderr(&format!("{line}\n"));
        }
        if changed {
            self.kind = Some(kind.to_owned());
        }
    }

    /// Shows a line on a terminal alone.
    pub fn show_in_place(&mut self, line: &str) {
        if self.terminal {
            self.show("", line);
        }
    }

    /// Takes the line away, so that something else can be printed.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            to_stderr("\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
