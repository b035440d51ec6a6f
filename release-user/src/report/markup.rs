//! HTML that is well-formed by construction: text is escaped, and every element is closed. It reads
//! as XML, too.

use std::fmt::{Display, Write as _};

/// A piece of a page.
#[derive(Clone, Debug, Default)]
pub struct Html(String);

/// Elements without content, in HTML as in XML.
const VOID: [&str; 2] = ["meta", "br"];

impl Html {
    /// Text that is part of this program, as it is.
    pub const fn fixed(text: &'static str) -> FixedHtml {
        FixedHtml(text)
    }

    /// Adds a piece.
    pub fn push(&mut self, more: impl Into<Self>) {
        self.0 += &more.into().0;
    }

    /// The markup.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// See [`Html::fixed`].
pub struct FixedHtml(&'static str);

impl From<FixedHtml> for Html {
    fn from(fixed: FixedHtml) -> Self {
        Self(fixed.0.to_owned())
    }
}

impl From<&str> for Html {
    fn from(text: &str) -> Self {
        Self(escape(text))
    }
}

impl From<String> for Html {
    fn from(text: String) -> Self {
        Self(escape(&text))
    }
}

impl From<&String> for Html {
    fn from(text: &String) -> Self {
        Self(escape(text))
    }
}

impl From<()> for Html {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl<T: Into<Self>, const N: usize> From<[T; N]> for Html {
    fn from(parts: [T; N]) -> Self {
        parts.into_iter().collect()
    }
}

impl<T: Into<Self>> From<Vec<T>> for Html {
    fn from(parts: Vec<T>) -> Self {
        parts.into_iter().collect()
    }
}

impl<T: Into<Self>> FromIterator<T> for Html {
    fn from_iter<I: IntoIterator<Item = T>>(parts: I) -> Self {
        let mut all = Self::default();
        parts.into_iter().for_each(|part| all.push(part));
        all
    }
}

/// An element with attributes.
pub fn element(
    name: &'static str,
    attributes: &[(&'static str, &dyn Display)],
    content: impl Into<Html>,
) -> Html {
    let mut text = format!("<{name}");
    for (key, value) in attributes {
        // Writing to a String cannot fail.
        let _ = write!(text, " {key}=\"{}\"", escape(&value.to_string()));
    }
    if VOID.contains(&name) {
        return Html(text + "/>");
    }
    let _ = write!(text, ">{}</{name}>", content.into().0);
    Html(text)
}

/// An element without attributes.
pub fn tag(name: &'static str, content: impl Into<Html>) -> Html {
    element(name, &[], content)
}

/// An element of a class.
pub fn classed(name: &'static str, class: &str, content: impl Into<Html>) -> Html {
    element(name, &[("class", &class)], content)
}

/// A table with a header, in a box that scrolls by itself where it is too wide.
pub fn table(header: &[&str], rows: Vec<Html>) -> Html {
    let header = header.iter().map(|name| element("th", &[("scope", &"col")], *name));
    let head = tag("thead", tag("tr", header.collect::<Html>()));
    classed("div", "wide", tag("table", [head, tag("tbody", rows)]))
}

/// A row of a table.
pub fn row(cells: Vec<Html>) -> Html {
    tag("tr", cells.into_iter().map(|cell| tag("td", cell)).collect::<Html>())
}

/// What can be opened.
pub fn details(summary: impl Into<Html>, content: impl Into<Html>) -> Html {
    tag("details", [tag("summary", summary), content.into()])
}

/// Text that means itself, in content and in quoted attributes. What neither HTML nor XML can say,
/// e.g. the escape sequences of terminals, becomes U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            '\n' | '\t' => escaped.push(character),
            '\r' => {}
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            control if control.is_control() => escaped.push(char::REPLACEMENT_CHARACTER),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_means_itself_everywhere() {
        let hostile = "<script>'\"&\u{1b}[0m\u{0}\r\n";
        let title: &dyn Display = &hostile;
        let html = element("p", &[("title", title)], hostile).into_string();
        let safe = "&lt;script&gt;&#39;&quot;&amp;\u{fffd}[0m\u{fffd}\n";
        assert_eq!(html, format!("<p title=\"{safe}\">{safe}</p>"));
    }

    #[test]
    fn elements_are_closed() {
        assert_eq!(tag("td", ()).into_string(), "<td></td>");
        assert_eq!(tag("br", ()).into_string(), "<br/>");
        let html = details("a", ["b", "c"]).into_string();
        assert_eq!(html, "<details><summary>a</summary>bc</details>");
    }
}
