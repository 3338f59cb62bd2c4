//! The reference part of `docs/config.md`, made from the table, and the check that it is what stands there.

use std::fmt::Write as _;

use super::{
    settings::Settings,
    table::{Described, Section},
};

/// The line the reference begins after.
pub const BEGIN: &str = "<!-- reference: made from the table of settings -->";
/// The line it ends before.
pub const END: &str = "<!-- end of reference -->";

/// Every setting, as Markdown.
pub fn reference() -> String {
    let mut text = String::new();
    for row in Settings::described() {
        describe(&row, "", &mut text);
        for inner in &row.inner {
            describe(inner, &format!("{}[].", row.setting.key), &mut text);
        }
    }
    text
}

fn describe(row: &Described, prefix: &str, text: &mut String) {
    let setting = row.setting;
    let _ = writeln!(text, "### `{prefix}{}`\n", setting.key);
    for line in row.doc.lines() {
        let _ = writeln!(text, "{}", line.strip_prefix(' ').unwrap_or(line));
    }
    let mut facts = vec![row.kind.clone()];
    facts.push(if setting.required { "required".into() } else { format!("default `{}`", setting.default) });
    if let Some(bounds) = setting.bounds {
        facts.push(format!("from {} to {} ({})", bounds.min, bounds.max, bounds.why));
    }
    if let Some(flag) = setting.flag {
        let more = if row.many { ", may be repeated" } else { "" };
        facts.push(format!("flag `{} {}`{more}", flag.name, flag.value));
    }
    if let Some(role) = setting.role {
        facts.push(format!("{} only", role.as_str()));
    }
    if prefix.is_empty() {
        facts.push(if setting.reload { "changed by SIGHUP" } else { "changed by a restart" }.into());
    }
    let _ = writeln!(text, "\n*{}.*\n", facts.join("; "));
}

/// The page with its reference made new.
///
/// # Errors
/// If the page has not the two lines the reference stands between.
pub fn renewed(page: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or_else(|| format!("the line {BEGIN} is missing"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("the line {END} is missing"))?;
    Ok(format!("{before}{BEGIN}\n\n{}{END}{after}", reference()))
}

/// Checks that a page says what the table says.
///
/// # Errors
/// The first line that differs, with what should stand there.
pub fn check(page: &str) -> Result<(), String> {
    let expected = renewed(page)?;
    let mut expected_lines = expected.lines();
    for (index, line) in page.lines().enumerate() {
        match expected_lines.next() {
            Some(expected) if expected == line => {}
            Some(expected) => return Err(format!("line {}: {line:?} should be {expected:?}", index + 1)),
            None => return Err(format!("line {}: {line:?} should not be there", index + 1)),
        }
    }
    expected_lines.next().map_or(Ok(()), |missing| Err(format!("{missing:?} is missing at the end")))
}
