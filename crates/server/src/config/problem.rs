//! What is wrong with a configuration, and how it is told: file, line, caret, remedy.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Bytes of the file; `None` when no place in the file is at fault.
    pub span: Option<Range<usize>>,
    /// What is wrong.
    pub title: String,
    /// A word at the caret; may be empty.
    pub label: String,
    /// What to do.
    pub remedy: String,
}

/// All that is wrong with one configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Problems {
    pub file: Option<PathBuf>,
    /// The file's text; empty when it could not be read.
    pub text: String,
    pub list: Vec<Problem>,
}

impl Problems {
    pub fn of(file: Option<PathBuf>, title: impl Into<String>, remedy: impl Into<String>) -> Problems {
        Problems {
            file,
            text: String::new(),
            list: vec![Problem { span: None, title: title.into(), label: String::new(), remedy: remedy.into() }],
        }
    }

    /// For people, with carets; coloured when asked.
    pub fn render(&self, coloured: bool) -> String {
        let renderer = if coloured { Renderer::styled() } else { Renderer::plain() };
        let path = self.file.as_ref().map(|file| file.display().to_string());
        let mut out = String::new();
        for problem in &self.list {
            let mut group = Group::with_title(Level::ERROR.primary_title(problem.title.as_str()));
            if let Some(span) = &problem.span {
                let end = span.end.min(self.text.len());
                let start = span.start.min(end);
                let mut annotation = AnnotationKind::Primary.span(start..end);
                if !problem.label.is_empty() {
                    annotation = annotation.label(problem.label.as_str());
                }
                let mut snippet = Snippet::source(self.text.as_str()).annotation(annotation);
                if let Some(path) = &path {
                    snippet = snippet.path(path.as_str());
                }
                group = group.element(snippet);
            } else if let Some(path) = &path {
                group = group.element(annotate_snippets::Origin::path(path.as_str()));
            }
            let group = group.element(Level::HELP.message(problem.remedy.as_str()));
            out.push_str(&renderer.render(&[group]));
            out.push_str("\n\n");
        }
        out
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}
