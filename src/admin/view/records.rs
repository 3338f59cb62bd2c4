//! Resource records as text, in the form of zone files (RFC 1035, 5.1).

use std::{convert::Infallible, fmt};

use hickory_proto::rr::{self, RData};
use serde::{Deserialize, Serialize};

use crate::{
    record::Snapshot,
    zone::{Data, RrSet, Zone, ZoneName},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Record {
    /// The name of the record, with its final dot.
    pub owner: String,
    /// Seconds.
    pub ttl: u32,
    #[serde(rename = "type")]
    pub rtype: String,
    /// The record's data, in presentation format.
    pub data: String,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} IN {} {}", self.owner, self.ttl, self.rtype, self.data)
    }
}

/// Every record of the cluster zone, SOA first.
pub fn records<'a>(zone: &'a Zone, snapshot: &'a Snapshot, mut put: impl FnMut(Record)) {
    zone.for_each_set(snapshot, |owner, set| set_of(zone, &text_of(zone, owner), &set, &mut put));
}

/// Every reverse record: those of our reverse zones, or all if there are none.
pub fn pointers<'a>(zone: &'a Zone, snapshot: &'a Snapshot, mut put: impl FnMut(Record)) {
    zone.for_each_pointer(snapshot, |owner, set| set_of(zone, &text_of(zone, owner), &set, &mut put));
}

pub(super) fn set_of(zone: &Zone, owner: &str, set: &RrSet<'_>, put: &mut impl FnMut(Record)) {
    let Ok(()) = set.try_each(0, |data| {
        let data = data_of(zone, data);
        put(Record { owner: owner.to_owned(), ttl: set.ttl(), rtype: set.rtype().to_string(), data });
        Ok::<(), Infallible>(())
    });
}

/// A name of the zone as text, with the final dot.
pub(super) fn text_of(zone: &Zone, name: ZoneName<'_>) -> String {
    // Sources let only valid names through.
    zone.name_of(name).map_or_else(|error| format!("; {error}"), |name| name.to_string())
}

fn data_of(zone: &Zone, data: Data<'_>) -> String {
    let name = |name| text_of(zone, name);
    match data {
        Data::Address(ip) => ip.to_string(),
        Data::Cname(target) | Data::Ptr(target) | Data::Ns(target) => name(target),
        Data::Srv { weight, port, target } => format!("0 {weight} {port} {}", name(target)),
        Data::Soa { mname, rname, serial, refresh, retry, expire, minimum } => {
            format!("{} {} {serial} {refresh} {retry} {expire} {minimum}", name(mname), name(rname))
        }
        Data::Txt(text) => quoted(text),
        Data::Hinfo { cpu, os } => format!("{} {}", quoted(cpu), quoted(os)),
    }
}

impl From<&rr::Record> for Record {
    fn from(record: &rr::Record) -> Self {
        text_of_record(record)
    }
}

/// A record that the resolver put together, in the same form.
fn text_of_record(record: &rr::Record) -> Record {
    // hickory escapes a dash at the start of a label, which is no more special than elsewhere.
    let name = |name: &rr::Name| name.to_string().replace("\\-", "-").to_ascii_lowercase();
    let data = match &record.data {
        RData::CNAME(target) => name(&target.0),
        RData::PTR(target) => name(&target.0),
        RData::NS(host) => name(&host.0),
        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, name(&srv.target)),
        RData::TXT(text) => {
            text.txt_data.iter().map(|text| quoted(&String::from_utf8_lossy(text))).collect::<Vec<_>>().join(" ")
        }
        RData::HINFO(info) => [&info.cpu, &info.os].map(|text| quoted(&String::from_utf8_lossy(text))).join(" "),
        other => other.to_string(),
    };
    Record { owner: name(&record.name), ttl: record.ttl, rtype: record.record_type().to_string(), data }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
