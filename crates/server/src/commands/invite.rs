//! `waft invite`: links by which people make accounts, with a QR code for their telephones.

use super::status::{connect, unexpected};
use super::{Failure, say};
use crate::admin::{Answer, Invite, InviteWish, Request};
use crate::cli;
use qrcode::{Color, EcLevel, QrCode};

/// White around the code, in its squares. (The standard wants four.)
const MARGIN: usize = 2;

pub fn invite(arguments: &cli::Invite) -> Result<(), Failure> {
    match arguments {
        cli::Invite::Create { domain, username, inviter, class, days, uses, json, place } => {
            let wish = InviteWish {
                domain: domain.clone(),
                username: username.clone(),
                inviter: inviter.as_ref().map(ToString::to_string),
                class: class.clone(),
                days: *days,
                uses: *uses,
            };
            let Answer::Invited { uri, invitation } = connect(place)?.ask(&Request::InviteCreate(wish))? else {
                return Err(unexpected());
            };
            if *json {
                let told = serde_json::json!({ "uri": uri, "invitation": invitation });
                say(told);
            } else {
                if let Some(code) = code(&uri) {
                    say(code);
                }
                say(&uri);
                say(format_args!("\n{}", about(&invitation)));
                say(format_args!("take it back: waft invite revoke {}", invitation.id));
            }
        }
        cli::Invite::List { json, place } => {
            let Answer::Invites { invites } = connect(place)?.ask(&Request::InviteList)? else {
                return Err(unexpected());
            };
            for it in invites {
                if *json {
                    say(serde_json::to_string(&it).map_err(Failure::said)?);
                } else {
                    say(format_args!("{} {}", it.id, about(&it)));
                }
            }
        }
        cli::Invite::Revoke { id, place } => {
            connect(place)?.ask(&Request::InviteRevoke { id: id.clone() })?;
            say("the invitation is void");
        }
    }
    Ok(())
}

fn about(it: &Invite) -> String {
    let what = match (&it.username, it.account, it.uses_left) {
        (Some(name), _, _) => format!("the account {name}@{}", it.domain),
        (None, true, 1) => format!("an account of {}", it.domain),
        (None, true, uses) => format!("{uses} accounts of {}", it.domain),
        (None, false, _) => "a contact".into(),
    };
    let class = it.class.as_ref().map(|class| format!(" in the class {class}")).unwrap_or_default();
    let inviter = it.inviter.as_ref().map(|jid| format!(", by {jid}")).unwrap_or_default();
    format!("good for {what}{class}{inviter}, until {}", it.expires)
}

/// The link as a QR code of half blocks, dark on light whatever the terminal's colours are. `None`: it is too long.
fn code(uri: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(uri, EcLevel::M).ok()?;
    let width = code.width();
    let is_dark = |x: usize, y: usize| {
        let inside = (MARGIN..MARGIN + width).contains(&x) && (MARGIN..MARGIN + width).contains(&y);
        inside && code[(x - MARGIN, y - MARGIN)] == Color::Dark
    };
    let whole = width + 2 * MARGIN;
    let mut out = String::new();
    for y in (0..whole).step_by(2) {
        // Black on white.
        out.push_str("\x1b[30;107m");
        for x in 0..whole {
            out.push(match (is_dark(x, y), is_dark(x, y + 1)) {
                (true, true) => '█',
                (true, false) => '▀',
                (false, true) => '▄',
                (false, false) => ' ',
            });
        }
        out.push_str("\x1b[0m\n");
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_a_code_with_its_three_corners() {
        let code = code("xmpp:example.org?register;preauth=abcdefghijkmnopqrstuvwxy").expect("it is short");
        let lines: Vec<String> =
            code.lines().map(|line| line.replace("\x1b[30;107m", "").replace("\x1b[0m", "")).collect();
        let width = lines[0].chars().count();
        assert_eq!(lines.len(), width.div_ceil(2), "as high as wide");
        assert!(lines.iter().all(|line| line.chars().count() == width));
        // The upper corners: seven dark squares, one above the other in the first of them.
        let first: Vec<char> = lines[1].chars().collect();
        assert!(
            first[2..9] == ['█', '▀', '▀', '▀', '▀', '▀', '█'] && first[width - 9..width - 2] == first[2..9],
            "{code}"
        );
    }
}
