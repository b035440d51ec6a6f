//! A release as one page, for people who were not there: what was to happen, what did, and what
//! proves it. Pure: from what the daemon tells to one self-contained HTML document, without
//! scripts, and without anything to be fetched.

mod charts;
mod curves;
mod judgements;
mod markup;
mod receipts;
mod sections;
mod states;
mod svg;
mod words;

use serde::{Deserialize, Serialize};

use self::markup::{Html, classed, element, tag};
use self::states::Course;
use crate::api::release::ReleaseShow;
use crate::api::types::Receipt;
use crate::release::sample::Sample;

/// All that a report is made of.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The release with all that happened.
    pub release: ReleaseShow,
    /// What was measured of both versions, the first first.
    pub samples: Vec<Sample>,
    /// Receipts of what it drained, the first first.
    pub receipts: Vec<Receipt>,
}

impl Report {
    /// Of a release; `receipts` are all of its service.
    #[must_use]
    pub fn new(release: ReleaseShow, samples: Vec<Sample>, receipts: Vec<Receipt>) -> Self {
        let line = &release.line;
        // Those it stands on, and those that it wrote on the way: of each batch, or of a new
        // version that was given up. Times of this format are in the order of their text.
        let written = |receipt: &Receipt| {
            let target = &receipt.report.target;
            let its = *target == line.from || *target == line.to || line.instances.contains(target);
            let before_end = line.ended_at.as_ref().is_none_or(|end| receipt.at <= *end);
            its && receipt.at >= line.started_at && before_end
        };
        let wanted = |receipt: &Receipt| line.receipts.contains(&receipt.id) || written(receipt);
        let mut receipts: Vec<Receipt> = receipts.into_iter().filter(wanted).collect();
        receipts.sort_by_key(|receipt| receipt.id);
        Self { release, samples, receipts }
    }

    /// The page.
    #[must_use]
    pub fn to_html(&self) -> String {
        let course = Course::of(self);
        let line = &self.release.line;
        let title = format!("{}: release {}, {}", line.service, line.id, words::versions(line));
        let head = [
            element("meta", &[("charset", &"utf-8")], ()),
            element(
                "meta",
                &[("name", &"viewport"), ("content", &"width=device-width, initial-scale=1")],
                (),
            ),
            tag("title", &title),
            tag("style", Html::fixed(include_str!("style.css"))),
        ];
        let body = [
            sections::head(self, &title),
            states::section(self, &course),
            charts::section(self, &course),
            judgements::section(self),
            sections::hooks(self),
            receipts::section(self),
            sections::timeline(self),
            sections::glossary(),
        ];
        let html = element("html", &[("lang", &"en")], [tag("head", head), tag("body", body)]);
        format!("<!DOCTYPE html>\n{}\n", html.into_string())
    }
}

/// A part of the page under a heading.
fn part(heading: &str, content: impl Into<Html>) -> Html {
    tag("section", [tag("h2", heading), content.into()])
}

/// Something said by the way.
fn note(text: impl Into<Html>) -> Html {
    classed("p", "note", text)
}

#[cfg(test)]
mod tests;
