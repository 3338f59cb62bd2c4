//! Options of EDNS that go with each question to the upstreams of a zone.

use std::{fmt, fmt::Write as _, net::IpAddr, str::FromStr};

use crate::dns::{
    Question,
    request::{Asker, Transport},
};

/// Longest data of an option, in bytes.
const DATA_MAX: usize = 128;
/// Client subnet, RFC 7871, 6.
const SUBNET: u16 = 8;

/// An option (RFC 6891, 6.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EdnsOption {
    code: u16,
    data: Data,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Data {
    Bytes(Vec<u8>),
    /// The name asked for, as text with its final dot.
    Name,
    /// The number of the type asked for.
    Type,
    /// The client's address.
    Client,
    ClientPort,
    /// The listener's address.
    Server,
    ServerPort,
    /// `udp` or `tcp`.
    Protocol,
    /// This many bits of the client's address, by its family.
    Subnet {
        v4: u8,
        v6: u8,
    },
}

impl EdnsOption {
    /// Appends it in the form of an OPT record. Left out: data of a client where there is none, as for a refresh, and the address
    /// of a listener of the other family, as in CoreDNS.
    pub fn put(&self, question: &Question, asker: Option<&Asker>, out: &mut Vec<u8>) {
        let client = asker.map(|asker| asker.client.ip().to_canonical());
        let server = asker.map(|asker| asker.server.ip().to_canonical());
        let data = match (&self.data, client) {
            (Data::Bytes(bytes), _) => bytes.clone(),
            (Data::Name, _) => {
                let name = question.record_name().to_ascii();
                name.into_bytes()
            }
            (Data::Type, _) => question.rtype.0.to_be_bytes().to_vec(),
            (Data::Client, Some(client)) => octets(client),
            (Data::Subnet { v4, v6 }, Some(client)) => subnet(client, if client.is_ipv4() { *v4 } else { *v6 }),
            (Data::Server, Some(client)) => match server.filter(|server| server.is_ipv4() == client.is_ipv4()) {
                Some(server) => octets(server),
                None => return,
            },
            (Data::ClientPort | Data::ServerPort | Data::Protocol, _) => match (&self.data, asker) {
                (Data::ClientPort, Some(asker)) => asker.client.port().to_be_bytes().to_vec(),
                (Data::ServerPort, Some(asker)) => asker.server.port().to_be_bytes().to_vec(),
                (_, Some(asker)) => protocol(asker.transport).as_bytes().to_vec(),
                (_, None) => return,
            },
            (Data::Client | Data::Server | Data::Subnet { .. }, None) => return,
        };
        let length = u16::try_from(data.len()).unwrap_or(0);
        out.extend(self.code.to_be_bytes().into_iter().chain(length.to_be_bytes()));
        out.extend_from_slice(&data);
    }
}

/// As CoreDNS names it.
pub(super) fn protocol(transport: Transport) -> &'static str {
    if matches!(transport, Transport::Udp | Transport::Quic) { "udp" } else { "tcp" }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Family, length, scope 0, and the bytes of the address that the length covers (RFC 7871, 6).
fn subnet(client: IpAddr, bits: u8) -> Vec<u8> {
    let mut data = vec![0, if client.is_ipv4() { 1 } else { 2 }, bits, 0];
    let mut address = octets(client);
    address.truncate(usize::from(bits.div_ceil(8)));
    if let (Some(last), rest @ 1..) = (address.last_mut(), bits % 8) {
        *last &= 0xFF << (8 - rest);
    }
    data.extend(address);
    data
}

impl FromStr for EdnsOption {
    type Err = String;

    /// `CODE [DATA]`, both in hexadecimal behind `0x`; data is text otherwise, or one of `{qname}`, `{qtype}`,
    /// `{protocol}`, `{client_ip}`, `{client_port}`, `{server_ip}` and `{server_port}`. Or
    /// `subnet BITS BITS`, for IPv4 and IPv6.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(bits) = text.strip_prefix("subnet ") {
            let bits = bits.split_once(' ').and_then(|(v4, v6)| Some((v4.parse().ok()?, v6.parse().ok()?)));
            let bits = bits.filter(|(v4, v6)| *v4 <= 32 && *v6 <= 128);
            let (v4, v6) =
                bits.ok_or_else(|| format!("{text:?} is not `subnet` with bits of IPv4 and IPv6 addresses"))?;
            return Ok(Self { code: SUBNET, data: Data::Subnet { v4, v6 } });
        }
        let (code, data) = text.split_once(' ').unwrap_or((text, ""));
        let number = match code.strip_prefix("0x") {
            Some(digits) => u16::from_str_radix(digits, 16).ok(),
            None => code.parse().ok(),
        };
        let code = number.ok_or_else(|| format!("{code:?} is not the code of an option, such as 65518 or 0xffee"))?;
        let data = match (data, data.strip_prefix("0x")) {
            ("{qname}", _) => Data::Name,
            ("{qtype}", _) => Data::Type,
            ("{client_ip}", _) => Data::Client,
            ("{client_port}", _) => Data::ClientPort,
            ("{server_ip}", _) => Data::Server,
            ("{server_port}", _) => Data::ServerPort,
            ("{protocol}", _) => Data::Protocol,
            (_, Some(digits)) => {
                Data::Bytes(bytes(digits).ok_or_else(|| format!("{data:?} is not bytes in hexadecimal"))?)
            }
            _ if data.starts_with('{') && data.ends_with('}') => {
                return Err(format!(
                    "{data} is not {{qname}}, {{qtype}}, {{protocol}}, {{client_ip}}, {{client_port}}, {{server_ip}} or {{server_port}}"
                ));
            }
            _ => Data::Bytes(data.as_bytes().to_vec()),
        };
        match &data {
            Data::Bytes(bytes) if bytes.len() > DATA_MAX => {
                Err(format!("an option has at most {DATA_MAX} bytes, found {}", bytes.len()))
            }
            _ => Ok(Self { code, data }),
        }
    }
}

fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = digits.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

impl fmt::Display for EdnsOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code;
        match &self.data {
            Data::Bytes(bytes) if bytes.is_empty() => write!(f, "{code}"),
            Data::Bytes(bytes) => {
                let mut data = String::new();
                for byte in bytes {
                    write!(data, "{byte:02x}")?;
                }
                write!(f, "{code} 0x{data}")
            }
            Data::Name => write!(f, "{code} {{qname}}"),
            Data::Type => write!(f, "{code} {{qtype}}"),
            Data::Client => write!(f, "{code} {{client_ip}}"),
            Data::ClientPort => write!(f, "{code} {{client_port}}"),
            Data::Server => write!(f, "{code} {{server_ip}}"),
            Data::ServerPort => write!(f, "{code} {{server_port}}"),
            Data::Protocol => write!(f, "{code} {{protocol}}"),
            Data::Subnet { v4, v6 } => write!(f, "subnet {v4} {v6}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Rtype;

    #[test]
    fn options_are_a_code_and_bytes() {
        let question = Question::new("www.example.".parse().unwrap(), Rtype::AAAA);
        for (text, shown, client, wire) in [
            ("3", "3", "10.1.2.3", &[0, 3, 0, 0][..]),
            ("0xffee 0x6162", "65518 0x6162", "10.1.2.3", &[0xFF, 0xEE, 0, 2, b'a', b'b']),
            ("65518 a b", "65518 0x612062", "10.1.2.3", &[0xFF, 0xEE, 0, 3, b'a', b' ', b'b']),
            ("1 {qname}", "1 {qname}", "10.1.2.3", b"\0\x01\0\x0cwww.example."),
            ("1 {qtype}", "1 {qtype}", "10.1.2.3", &[0, 1, 0, 2, 0, 28]),
            ("1 {client_ip}", "1 {client_ip}", "::ffff:10.1.2.3", &[0, 1, 0, 4, 10, 1, 2, 3]),
            ("subnet 20 56", "subnet 20 56", "10.1.255.3", &[0, 8, 0, 7, 0, 1, 20, 0, 10, 1, 0xF0]),
            ("subnet 24 16", "subnet 24 16", "2001:db8::1", &[0, 8, 0, 6, 0, 2, 16, 0, 0x20, 0x01]),
            ("subnet 0 0", "subnet 0 0", "10.1.2.3", &[0, 8, 0, 4, 0, 1, 0, 0]),
            ("subnet 24 56", "subnet 24 56", "", &[]),
            ("1 {client_ip}", "1 {client_ip}", "", &[]),
            ("1 {client_port}", "1 {client_port}", "10.1.2.3", &[0, 1, 0, 2, 0x0F, 0xA0]),
            ("1 {server_ip}", "1 {server_ip}", "10.1.2.3", &[0, 1, 0, 4, 169, 254, 20, 10]),
            ("1 {server_ip}", "1 {server_ip}", "2001:db8::1", &[]),
            ("1 {server_port}", "1 {server_port}", "2001:db8::1", &[0, 1, 0, 2, 0, 53]),
            ("1 {protocol}", "1 {protocol}", "10.1.2.3", &[0, 1, 0, 3, b'u', b'd', b'p']),
            ("1 {protocol}", "1 {protocol}", "", &[]),
        ] {
            let option: EdnsOption = text.parse().unwrap();
            let mut out = Vec::new();
            let asker = client.parse::<IpAddr>().ok().map(|client| Asker {
                client: (client, 4_000).into(),
                server: ([169, 254, 20, 10], 53).into(),
                transport: Transport::Udp,
                id: 7,
                recursion_desired: true,
                bytes: 40,
                payload: None,
            });
            option.put(&question, asker.as_ref(), &mut out);
            assert_eq!((option.to_string().as_str(), out.as_slice()), (shown, wire), "{text}");
            assert_eq!(shown.parse::<EdnsOption>().unwrap(), option);
        }
        let long = format!("1 {}", "x".repeat(DATA_MAX + 1));
        for text in
            ["", "x", "70000", "0xfffff", "1 0x1", "1 0xzz", "1 0x+1", "1 {port}", "subnet 33 56", "subnet 24", &long]
        {
            assert!(text.parse::<EdnsOption>().is_err(), "{text:?}");
        }
    }
}
