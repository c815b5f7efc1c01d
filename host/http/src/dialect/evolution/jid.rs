//! From what people type for a recipient to the recipient's JID.
//!
//! The rules are those that clients of this dialect rely on, oddities included: long digits are a group, Mexican and Argentine
//! mobile numbers lose the digit that WhatsApp does not know, and Brazilian ones lose their ninth digit where WhatsApp does.

/// The server part of people's JIDs.
const PEOPLE: &str = "@s.whatsapp.net";
/// The longest user part of a JID, in characters.
const MAX_USER: usize = 64;

/// The JID that a text stands for. It may stand for nothing that there is; see [`is_plausible`].
pub(super) fn from_number(number: &str) -> String {
    let number = without_device(number);
    if ["@g.us", PEOPLE, "@lid", "@broadcast"].iter().any(|server| number.contains(server)) {
        return number;
    }
    let bare: String = number.chars().filter(|c| !c.is_whitespace() && !matches!(c, '+' | '(' | ')')).collect();
    let bare = bare.split([':', '@']).next().unwrap_or_default();
    if bare.contains('-') && bare.chars().count() >= 24 {
        let group: String = bare.chars().filter(|c| c.is_ascii_digit() || *c == '-').collect();
        return format!("{group}@g.us");
    }
    let digits: String = bare.chars().filter(char::is_ascii_digit).collect();
    if digits.len() >= 18 {
        return format!("{digits}@g.us");
    }
    format!("{}{PEOPLE}", brazilian(mexican_or_argentine(digits)))
}

/// The digits before the `@`.
pub(super) fn user(jid: &str) -> &str {
    jid.split('@').next().unwrap_or_default()
}

/// Whether a JID has the form of one, so that WhatsApp can be asked about it.
pub(super) fn is_plausible(jid: &str) -> bool {
    jid.split_once('@').is_some_and(|(user, server)| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let known = ["s.whatsapp.net", "g.us", "lid", "broadcast"].contains(&server);
        known && !user.is_empty() && user.len() <= MAX_USER && user.chars().all(plain)
    })
}

/// Takes out the first colon that digits follow, with those digits: the number of a device.
fn without_device(number: &str) -> String {
    let colon = number.match_indices(':').map(|(at, _)| at).find(|at| {
        let next = number[at + 1..].chars().next();
        next.is_some_and(|c| c.is_ascii_digit())
    });
    match colon {
        Some(at) => format!("{}{}", &number[..at], number[at + 1..].trim_start_matches(|c: char| c.is_ascii_digit())),
        None => number.to_owned(),
    }
}

fn mexican_or_argentine(digits: String) -> String {
    match digits.get(..2) {
        Some("52" | "54") if digits.len() == 13 => format!("{}{}", &digits[..2], &digits[3..]),
        _ => digits,
    }
}

/// Area codes below 31, and subscribers that do not begin with 7, 8 or 9, keep their ninth digit.
fn brazilian(digits: String) -> String {
    if digits.len() != 13 || !digits.starts_with("55") {
        return digits;
    }
    let area: u8 = digits[2..4].parse().unwrap_or_default();
    if area < 31 || digits.as_bytes()[5] < b'7' { digits } else { format!("{}{}", &digits[..4], &digits[5..]) }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn numbers_become_jids() {
        for (number, jid) in [
            ("628123456789", "628123456789@s.whatsapp.net"),
            ("+62 812-3456-789", "628123456789@s.whatsapp.net"),
            ("+1 (555) 123 4567", "15551234567@s.whatsapp.net"),
            ("628123456789:12", "628123456789@s.whatsapp.net"),
            ("628123456789:12@s.whatsapp.net", "628123456789@s.whatsapp.net"),
            ("628123456789@c.us", "628123456789@s.whatsapp.net"),
            ("628123456789@s.whatsapp.net", "628123456789@s.whatsapp.net"),
            ("120363025246125486@g.us", "120363025246125486@g.us"),
            ("205227043110953@lid", "205227043110953@lid"),
            ("status@broadcast", "status@broadcast"),
            // A group by its number.
            ("120363025246125486", "120363025246125486@g.us"),
            ("628123456789-1612345678901", "628123456789-1612345678901@g.us"),
            ("62812345678-1612345678", "628123456781612345678@g.us"),
            ("12345678901234567", "12345678901234567@s.whatsapp.net"),
            // Mexico and Argentina.
            ("5215512345678", "525512345678@s.whatsapp.net"),
            ("5491112345678", "541112345678@s.whatsapp.net"),
            ("525512345678", "525512345678@s.whatsapp.net"),
            // Brazil.
            ("5531988887777", "553188887777@s.whatsapp.net"),
            ("5585999998888", "558599998888@s.whatsapp.net"),
            ("5511988887777", "5511988887777@s.whatsapp.net"),
            ("5531961234567", "5531961234567@s.whatsapp.net"),
            ("553188887777", "553188887777@s.whatsapp.net"),
            // What is no number.
            ("", "@s.whatsapp.net"),
            ("nobody", "@s.whatsapp.net"),
            ("é:1é", "@s.whatsapp.net"),
        ] {
            assert_eq!(from_number(number), jid, "{number}");
        }
    }

    #[test]
    fn only_what_has_the_form_of_a_jid_is_asked_about() {
        let check = |jid: &str, plausible: bool| assert_eq!(is_plausible(jid), plausible, "{jid}");
        check("628123456789@s.whatsapp.net", true);
        check("628123456789-1612345678901@g.us", true);
        check("status@broadcast", true);
        check("@s.whatsapp.net", false);
        check("x y@g.us", false);
        check("1@g.us@s.whatsapp.net", false);
        check("1@g.us.example.com", false);
        check(&format!("{}@lid", "1".repeat(65)), false);
    }
}
