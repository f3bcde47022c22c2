//! A manual page: sections, paragraphs and lists, whose source in roff the crate `roff` writes.

use roff::{Inline, Roff, bold, roman};

/// A manual page that is being written. In its texts, words between backticks are printed bold.
pub struct Page {
    roff: Roff,
    /// True right after a section's title, where a paragraph needs no macro.
    at_title: bool,
}

impl Page {
    /// Begins the page `name` of a section of the manual. `date` and `source` are at its foot, `manual` at its head.
    pub fn new(name: &str, section: &str, date: &str, source: &str, manual: &str) -> Self {
        let mut roff = Roff::new();
        roff.control("TH", [name, section, date, source, manual]);
        Self { roff, at_title: false }
    }

    /// Begins a part of a page that has its title already.
    pub fn part() -> Self {
        Self { roff: Roff::new(), at_title: false }
    }

    /// Begins a section.
    pub fn section(&mut self, title: &str) {
        self.roff.control("SH", [title]);
        self.at_title = true;
    }

    /// Adds a paragraph.
    pub fn paragraph(&mut self, text: &str) {
        self.begin("PP");
        self.roff.text(inlines(text));
    }

    /// Adds an item of a list, with what is said of it below.
    pub fn item(&mut self, item: &str, text: &str) {
        self.at_title = false;
        self.roff.control("TP", []).text(inlines(item)).text(inlines(text));
    }

    /// Indents what follows, up to [`Page::outdent`].
    pub fn indent(&mut self) {
        self.roff.control("RS", []);
    }

    /// Ends an indentation.
    pub fn outdent(&mut self) {
        self.roff.control("RE", []);
    }

    /// Adds lines that are printed as they are.
    pub fn example(&mut self, lines: &[&str]) {
        self.begin("PP");
        self.roff.control("RS", ["4"]).control("EX", []);
        for line in lines {
            self.roff.text([roman(*line)]);
        }
        self.roff.control("EE", []).control("RE", []);
    }

    /// Begins a paragraph by a macro, unless the title of a section is right before it.
    fn begin(&mut self, paragraph: &str) {
        if !self.at_title {
            self.roff.control(paragraph, []);
        }
        self.at_title = false;
    }

    /// Returns the source of the page.
    pub fn source(&self) -> String {
        self.roff.render()
    }
}

/// Returns the text with the words between backticks in bold.
fn inlines(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate().filter(|(_, part)| !part.is_empty());
    parts.map(|(index, part)| if index % 2 == 1 { bold(part) } else { roman(part) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_its_title_and_its_texts() {
        let mut page = Page::new("VIDAR", "7", "2026-01-02", "Vidar 1", "Manual of Vidar");
        page.section("FILES");
        page.item("`/boot/a-b`", "The image.");
        page.paragraph(".dot at the start");
        page.section("NOTES");
        page.paragraph("The first.");
        let source = page.source();
        assert!(source.contains(".TH VIDAR 7 2026-01-02 \"Vidar 1\" \"Manual of Vidar\"\n"), "{source}");
        assert!(source.contains(".SH FILES\n.TP\n\\fB/boot/a\\-b\\fR\nThe image.\n"), "{source}");
        assert!(source.contains(".PP\n\\&.dot at the start\n.SH NOTES\nThe first.\n"), "{source}");
    }

    #[test]
    fn backticks_make_words_bold() {
        assert_eq!(inlines("a `b` c"), [roman("a "), bold("b"), roman(" c")]);
        assert_eq!(inlines("`b`"), [bold("b")]);
    }
}
