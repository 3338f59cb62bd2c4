//! Response codes by the names that CoreDNS has for them.

use crate::wire::Rcode;

const RCODES: [(u16, &str); 20] = [
    (0, "NOERROR"),
    (1, "FORMERR"),
    (2, "SERVFAIL"),
    (3, "NXDOMAIN"),
    (4, "NOTIMP"),
    (5, "REFUSED"),
    (6, "YXDOMAIN"),
    (7, "YXRRSET"),
    (8, "NXRRSET"),
    (9, "NOTAUTH"),
    (10, "NOTZONE"),
    (11, "DSOTYPENI"),
    (16, "BADSIG"),
    (17, "BADKEY"),
    (18, "BADTIME"),
    (19, "BADMODE"),
    (20, "BADNAME"),
    (21, "BADALG"),
    (22, "BADTRUNC"),
    (23, "BADCOOKIE"),
];

/// A code by its name.
#[must_use]
pub fn named(word: &str) -> Option<Rcode> {
    let word = if word.eq_ignore_ascii_case("NOTIMPL") { "NOTIMP" } else { word };
    RCODES.iter().find(|(_, name)| name.eq_ignore_ascii_case(word)).map(|(number, _)| Rcode(*number))
}

/// A code by its name or number.
#[must_use]
pub fn read(word: &str) -> Option<Rcode> {
    let number = word.parse().ok().filter(|number| *number <= 23 && word.bytes().all(|byte| byte.is_ascii_digit()));
    named(word).or(number.map(Rcode))
}

/// The name of a code, or its number without one.
#[must_use]
pub fn shown(code: Rcode) -> String {
    let name = RCODES.iter().find(|(number, _)| *number == code.0).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| code.0.to_string())
}
