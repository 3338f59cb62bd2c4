//! Reads the cases, and makes what answers them.

use std::net::IpAddr;

use holdfast::{
    dns::{
        AnswerConfig, Context,
        pins::{Pin, Pins},
    },
    store::{self, Origin, What},
    sys::{Clock, ManualClock, UnixMillis},
    wire::{Name, Rtype},
    zone,
};

use crate::support::cluster;

/// The cluster of the cases.
pub const CLUSTER: &str = include_str!("cases/cluster.txt");

const FILES: [(&str, &str); 8] = [
    ("cluster_ip.txt", include_str!("cases/cluster_ip.txt")),
    ("headless.txt", include_str!("cases/headless.txt")),
    ("srv.txt", include_str!("cases/srv.txt")),
    ("alias.txt", include_str!("cases/alias.txt")),
    ("zone.txt", include_str!("cases/zone.txt")),
    ("reverse.txt", include_str!("cases/reverse.txt")),
    ("pins.txt", include_str!("cases/pins.txt")),
    ("state.txt", include_str!("cases/state.txt")),
];

/// When queries come, by the section's clock.
const NOW: UnixMillis = UnixMillis(10_000_000_000);

/// The clock that says when queries come.
pub fn clock() -> Clock {
    Clock::Manual(ManualClock::new(NOW))
}

/// Cases that one server answers.
#[derive(Debug)]
pub struct Section {
    /// Where it stands, and its title.
    pub title: String,
    pub zone: zone::Config,
    pub answer: AnswerConfig,
    /// When the records were last vouched for; none before the first list.
    as_of: Option<UnixMillis>,
    cluster: String,
    pins: Vec<Pin>,
    pub cases: Vec<Case>,
}

/// A question and what must come back.
#[derive(Debug)]
pub struct Case {
    pub place: String,
    pub name: Name,
    pub qtype: Rtype,
    pub expect: Expect,
}

/// What must come back. Records are in presentation form, lower case, with the serial of a SOA as `*`.
#[derive(Debug, Default)]
pub struct Expect {
    pub rcode: String,
    pub answers: Vec<String>,
    pub authorities: Vec<String>,
    pub additionals: Vec<String>,
    /// Extended error, if the query has EDNS.
    pub ede: Option<u16>,
    /// The answer is upstream's, or we refuse one: no AA.
    pub ours: bool,
}

impl Section {
    /// The cluster of the cases with the default configuration, and no cases.
    pub fn plain() -> Self {
        Self::new("plain".into())
    }

    /// The cluster of [`size::cluster`](super::size::cluster) with the default configuration, and no cases.
    pub fn large() -> Self {
        Self { cluster: super::size::cluster(), ..Self::new("large".into()) }
    }

    /// The one section of a text.
    pub fn read(text: &str) -> Self {
        let mut sections = read("text", text);
        sections.pop().filter(|_| sections.is_empty()).expect("one section")
    }

    /// What answers this section's cases: rules and records.
    pub fn context(&self) -> Context {
        let (mut writer, reader) = store::open();
        if let Some(as_of) = self.as_of {
            let origin = Origin::Watched { cluster: "battery".into(), new_epoch: false };
            let records = cluster::changes(&self.cluster).into_iter().collect();
            writer.apply(What::Reset { origin, records, as_of }).expect("a first list is applied");
        }
        Context::new(zone::Zone::new(&self.zone), reader, self.answer).with_pins(self.pins())
    }

    pub fn pins(&self) -> Pins {
        let pins = Pins::default();
        for pin in &self.pins {
            let _kept = pins.pin(pin.clone(), NOW).expect("a pin");
        }
        pins
    }

    fn new(title: String) -> Self {
        let name_servers = ["169.254.20.10", "fd00::53", "0.0.0.0"].map(|ip| ip.parse().expect("an address")).into();
        Self {
            title,
            zone: zone::Config { name_servers, ..zone::Config::default() },
            answer: AnswerConfig::default(),
            as_of: Some(NOW),
            cluster: CLUSTER.into(),
            pins: Vec::new(),
            cases: Vec::new(),
        }
    }

    fn option(&mut self, words: &[&str]) {
        match words {
            ["zone", name] => self.zone.zone = name.parse().expect("a zone"),
            ["pods", "disabled"] => self.zone.pods = zone::Pods::Disabled,
            ["compat", "coredns"] => self.zone.compat = zone::Compat::CoreDns,
            ["ttl", seconds] => self.zone.ttl = seconds.parse().expect("seconds"),
            ["pin", name, addresses @ ..] => {
                let addresses = addresses.iter().map(|ip| ip.parse().expect("an address")).collect();
                let name = self.expand(name);
                self.pins.push(Pin { name, addresses, ttl: 7, since: NOW, until: None, reason: None });
            }
            ["partial"] => self.cluster.push_str("\nnamespace _partial\n"),
            ["fallback"] => self.answer.cluster_fallback = true,
            ["age", "never"] => self.as_of = None,
            ["age", age] => {
                let seconds: i64 = age.strip_suffix('s').and_then(|age| age.parse().ok()).expect("seconds, like 60s");
                let millis = seconds.unsigned_abs() * 1_000;
                self.as_of = Some(UnixMillis(if seconds < 0 { NOW.0 + millis } else { NOW.0 - millis }));
            }
            ["reverse", networks @ ..] => {
                self.zone.reverse = networks.iter().map(|network| network.parse().expect("a network")).collect();
            }
            ["listen", ips @ ..] => {
                self.zone.name_servers = ips.iter().map(|ip| ip.parse::<IpAddr>().expect("an address")).collect();
            }
            _ => panic!("{}: no such option: {words:?}", self.title),
        }
    }

    fn expand(&self, word: &str) -> String {
        let zone = self.zone.zone.to_string();
        if word == "$" { zone } else { word.strip_suffix('$').map_or(word.into(), |head| format!("{head}{zone}")) }
    }

    fn case(&self, place: String, ask: &str) -> Case {
        let (name, qtype) = ask.split_once(' ').unwrap_or_else(|| panic!("{place}: {ask:?} is no question"));
        Case {
            name: self.expand(name).parse().unwrap_or_else(|error| panic!("{place}: {name}: {error}")),
            qtype: qtype.trim().parse().unwrap_or_else(|error| panic!("{place}: {error}")),
            place,
            expect: Expect { rcode: "NOERROR".into(), ours: true, ..Expect::default() },
        }
    }

    fn expect(&self, case: &mut Case, line: &str) {
        let words: Vec<String> = line.split_whitespace().map(|word| self.expand(word)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let asked = |word: &str| vec![format!("{} 0 IN TXT {word}", case.name)];
        let (asked_whole, asked_fallback) = (asked("forward"), asked("fallback"));
        let expect = &mut case.expect;
        match *words {
            ["NODATA"] => expect.authorities = self.soa(&self.zone.zone.to_string()),
            ["NODATA", zone] => expect.authorities = self.soa(zone),
            ["NXDOMAIN", ref zone @ ..] => {
                expect.rcode = "NXDOMAIN".into();
                expect.authorities = self.soa(zone.first().unwrap_or(&self.zone.zone.to_string().as_str()));
            }
            ["EDE", code] => expect.ede = Some(code.parse().expect("a code")),
            ["FORWARD"] => (expect.answers, expect.ours) = (asked_whole, false),
            ["FALLBACK"] => (expect.answers, expect.ours) = (asked_fallback, false),
            ["CHASE", target] => {
                expect.answers.push(format!("{target} 0 IN TXT forward"));
            }
            [rcode @ ("SERVFAIL" | "REFUSED")] => (expect.rcode, expect.ours) = (rcode.into(), false),
            ["+", ref record @ ..] => expect.additionals.push(self.record(&case.name, record)),
            ref record => expect.answers.push(self.record(&case.name, record)),
        }
    }

    fn soa(&self, zone: &str) -> Vec<String> {
        let (cluster, ttl) = (&self.zone.zone, self.zone.ttl);
        let shown = if self.is_stale() { ttl.min(30) } else { ttl };
        vec![format!("{zone} {shown} IN SOA ns.dns.{cluster} hostmaster.{cluster} * 7200 1800 86400 {ttl}")]
    }

    fn is_stale(&self) -> bool {
        self.as_of.is_some_and(|as_of| as_of.age(NOW) > self.answer.stale_after)
    }

    /// A record in full, from one that leaves out what goes without saying.
    fn record(&self, asked: &Name, words: &[&str]) -> String {
        let (owner, words) = match words {
            [owner, rest @ ..] if owner.ends_with('.') => ((*owner).to_owned(), rest),
            _ => (asked.to_string(), words),
        };
        let (ttl, words) = match words {
            [ttl, rest @ ..] if ttl.parse::<u32>().is_ok() => ((*ttl).to_owned(), rest),
            _ => (self.zone.ttl.to_string(), words),
        };
        format!("{owner} {ttl} IN {}", words.join(" ")).trim_end().to_owned()
    }
}

/// Every section of every file.
pub fn sections() -> Vec<Section> {
    FILES.iter().flat_map(|(file, text)| read(file, text)).collect()
}

fn read(file: &str, text: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{file}:{}", number + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(title) = line.strip_prefix("== ") {
            sections.push(Section::new(format!("{file}: {title}")));
            continue;
        }
        let section = sections.last_mut().unwrap_or_else(|| panic!("{place}: a title comes first"));
        if let Some(option) = line.strip_prefix('@') {
            section.option(&option.split_whitespace().collect::<Vec<_>>());
            continue;
        }
        let (ask, expect) = match line.split_once("=>") {
            _ if line.starts_with(' ') => (None, line),
            Some((ask, expect)) => (Some(ask), expect),
            None => (Some(line), ""),
        };
        let mut case = match ask {
            Some(ask) => section.case(place, ask.trim()),
            None => section.cases.pop().unwrap_or_else(|| panic!("{place}: a question comes first")),
        };
        for line in expect.split(';').map(str::trim).filter(|line| !line.is_empty()) {
            section.expect(&mut case, line);
        }
        section.cases.push(case);
    }
    sections
}
