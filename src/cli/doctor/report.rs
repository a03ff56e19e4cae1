//! All findings, shown to a person as they come or to a program at the end.

use std::io::{IsTerminal, Result, Write};

use serde::Serialize;

use super::finding::{Finding, Level};

/// What is looked at, in the order in which it is shown: what can be slow comes last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    Configuration,
    Folders,
    Engine,
    Image,
    Workspace,
    Clients,
    Model,
    Sandbox,
}

impl Area {
    fn title(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Folders => "folders",
            Self::Engine => "engine",
            Self::Image => "image",
            Self::Workspace => "workspace",
            Self::Clients => "clients",
            Self::Model => "model server",
            Self::Sandbox => "sandbox",
        }
    }
}

/// A finding as programs read it.
#[derive(Debug, Serialize)]
struct Row {
    area: Area,
    check: &'static str,
    level: Level,
    message: String,
    remedy: Option<String>,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    ok: bool,
    findings: &'a [Row],
}

/// How findings are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    Json,
    Plain,
    Coloured,
}

impl Style {
    /// Colour only for eyes, and not for those who asked for none.
    pub fn of_standard_output(json: bool) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        match json {
            true => Self::Json,
            false if std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb => Self::Coloured,
            false => Self::Plain,
        }
    }
}

#[derive(Debug)]
pub struct Report<'o, W> {
    out: &'o mut W,
    style: Style,
    rows: Vec<Row>,
}

impl<'o, W: Write> Report<'o, W> {
    pub fn new(out: &'o mut W, style: Style) -> Self {
        Self { out, style, rows: Vec::new() }
    }

    /// Adds findings, and shows them at once to a person, who may have to wait for the next.
    pub fn add(&mut self, area: Area, findings: Vec<Finding>) -> Result<()> {
        if self.style != Style::Json {
            if !findings.is_empty() && self.rows.last().is_none_or(|row| row.area != area) {
                let gap = if self.rows.is_empty() { "" } else { "\n" };
                writeln!(self.out, "{gap}{}", self.paint("1", area.title()))?;
            }
            for finding in &findings {
                self.show(finding)?;
            }
            self.out.flush()?;
        }
        self.rows.extend(findings.into_iter().map(|finding| {
            let Finding { check, level, message, remedy } = finding;
            Row { area, check, level, message, remedy }
        }));
        Ok(())
    }

    /// Closes the report. The exit code is 1 where anything is an error.
    pub fn finish(self) -> Result<u8> {
        let count = |level| self.rows.iter().filter(|row| row.level == level).count();
        let (errors, warnings) = (count(Level::Error), count(Level::Warning));
        let ok = errors == 0;
        if self.style == Style::Json {
            serde_json::to_writer_pretty(&mut *self.out, &Document { ok, findings: &self.rows })?;
            writeln!(self.out)?;
        } else {
            let plural = |count| if count == 1 { "" } else { "s" };
            writeln!(
                self.out,
                "\n{} ok, {warnings} warning{}, {errors} error{}",
                count(Level::Ok),
                plural(warnings),
                plural(errors)
            )?;
        }
        self.out.flush()?;
        Ok(u8::from(!ok))
    }

    fn show(&mut self, finding: &Finding) -> Result<()> {
        let colour = match finding.level {
            Level::Ok => "32",
            Level::Warning => "33",
            Level::Error => "31",
        };
        let level = self.paint(colour, &format!("{:<7}", finding.level.word()));
        writeln!(self.out, "  {level}  {:<12}  {}", finding.check, finding.message)?;
        match &finding.remedy {
            Some(remedy) => writeln!(self.out, "{:25}→ {remedy}", ""),
            None => Ok(()),
        }
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        match self.style {
            Style::Coloured => format!("\u{1b}[{colour}m{text}\u{1b}[0m"),
            Style::Plain | Style::Json => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(style: Style) -> (String, u8) {
        let mut out = Vec::new();
        let mut report = Report::new(&mut out, style);
        report.add(Area::Engine, vec![Finding::ok("found", "there")]).expect("written");
        let bad = Finding::error("kernel", "another\u{1b}[31m\none", "use ours");
        report.add(Area::Engine, vec![bad]).expect("written");
        report.add(Area::Image, Vec::new()).expect("written");
        let code = report.finish().expect("written");
        (String::from_utf8(out).expect("utf-8"), code)
    }

    #[test]
    fn people_get_a_line_for_each_and_the_remedy_below() {
        let (text, code) = told(Style::Plain);
        assert_eq!(code, 1);
        let expected = "engine\n  ok       found         there\n  error    kernel        another \
                        one\n                         → use ours\n\n1 ok, 0 warnings, 1 error\n";
        assert_eq!(text, expected);
        let (coloured, _) = told(Style::Coloured);
        assert!(coloured.contains("\u{1b}[31merror  \u{1b}[0m"), "{coloured:?}");
    }

    #[test]
    fn programs_get_one_object() {
        let (text, _) = told(Style::Json);
        let document: serde_json::Value = serde_json::from_str(&text).expect("json");
        let expected = serde_json::json!({"ok": false, "findings": [
            {"area": "engine", "check": "found", "level": "ok", "message": "there", "remedy": null},
            {"area": "engine", "check": "kernel", "level": "error", "message": "another one",
             "remedy": "use ours"},
        ]});
        assert_eq!(document, expected);
    }
}
