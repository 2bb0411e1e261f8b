//! What an error means, for people and for scripts.

use serde_json::json;

use super::{
    Look, machine,
    output::Format,
    style::Style,
    text::{self, wrap},
};
use crate::xid::{Class, Xid};

/// Longer lines are hard to read, however wide the terminal is.
const COLUMNS_MAX: usize = 100;

/// An XID of the catalogue.
pub(crate) fn xid(xid: &Xid, format: Format, look: &Look) -> anyhow::Result<String> {
    let fields = [
        ("code", xid.code.to_string()),
        ("name", xid.name.clone()),
        ("class", xid.class.as_str().to_owned()),
        ("action", xid.action.as_str().to_owned()),
        ("meaning", xid.meaning.clone()),
        ("todo", xid.todo.clone()),
        ("nvidia", xid.nvidia.clone().unwrap_or_default()),
        ("practice", xid.practice.clone().unwrap_or_default()),
        ("follows", joined(&xid.follows, " ")),
    ];
    Ok(match format {
        Format::Table => page(xid, look),
        Format::Json | Format::Jsonl => machine::json(
            &json!({
                "code": xid.code, "name": xid.name, "class": xid.class.as_str(), "action": xid.action.as_str(),
                "meaning": xid.meaning, "todo": xid.todo, "nvidia": xid.nvidia, "practice": xid.practice,
                "follows": xid.follows,
            })
            .to_string(),
        ),
        Format::Csv => {
            let (names, values): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
            machine::csv(&names, [values])?
        }
    })
}

fn page(xid: &Xid, look: &Look) -> String {
    let style = match xid.class {
        Class::Fatal => Style::Bad,
        Class::Warning => Style::Warning,
        Class::Info => Style::Dim,
    };
    let paint = |style: Style, text: &str| style.paint(&text::escape(text), look.is_colored);
    let mut page = format!(
        "{}\n{}: {}\n",
        paint(Style::Bold, &format!("XID {}: {}", xid.code, xid.name)),
        paint(style, xid.class.as_str()),
        xid.action.describe()
    );
    let follows = (!xid.follows.is_empty())
        .then(|| format!("After {} it is only an echo, and joins their incident.", joined(&xid.follows, ", ")));
    let parts = [
        ("Meaning", Some(&xid.meaning)),
        ("What to do", Some(&xid.todo)),
        ("NVIDIA says", xid.nvidia.as_ref()),
        ("In practice", xid.practice.as_ref()),
        ("Follows", follows.as_ref()),
    ];
    let columns = look.width.unwrap_or(COLUMNS_MAX).min(COLUMNS_MAX);
    for (title, part) in parts {
        let Some(part) = part.filter(|part| !part.is_empty()) else { continue };
        page += &format!("\n{}\n", paint(Style::Bold, title));
        for line in wrap(&text::escape(part), columns.saturating_sub(2)) {
            page += &format!("  {line}\n");
        }
    }
    page
}

fn joined(codes: &[u32], separator: &str) -> String {
    codes.iter().map(ToString::to_string).collect::<Vec<_>>().join(separator)
}

#[cfg(test)]
mod tests {
    use belfry_common::model::Timestamp;
    use expect_test::expect;

    use super::*;
    use crate::xid::Catalogue;

    #[test]
    fn a_page_says_what_it_is_what_to_do_and_who_says_so() {
        let catalogue = Catalogue::built_in();
        let look = Look { width: Some(72), is_colored: false, now: Timestamp::from_millis(0) };
        let page = xid(catalogue.of(45).unwrap(), Format::Table, &look).unwrap();
        expect![[r#"
            XID 45: Channel removed
            warning: ignore

            Meaning
              The driver took down a channel because its job ended, was killed, or
              was hit by another error. It is an echo of that.

            What to do
              Look for the XID before it and act on that one. Alone: a job was
              killed or interrupted. If jobs die with it and nobody killed them,
              check `systemctl status nvidia-fabricmanager`.

            NVIDIA says
              With another XID: ignore, and follow that one. Alone: restart the
              Fabric Manager, whose unexpected end can be the cause.

            In practice
              On its own no fault: one for each channel at every Ctrl-C, kill or
              time limit of the scheduler, and after 48, 79 or 95 in numbers.

            Follows
              After 48, 62, 79, 94, 95, 119, 120, 144, 145, 154 it is only an echo,
              and joins their incident.
        "#]]
        .assert_eq(&page);
    }
}
