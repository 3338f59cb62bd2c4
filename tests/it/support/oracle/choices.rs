//! Decisions, names and queries drawn from bytes.

/// Decisions drawn from bytes; once they are used up, all are 0.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Draws from these bytes, the first one first.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    pub fn below(&mut self, end: u8) -> usize {
        usize::from(self.byte() % end)
    }

    pub fn one_in(&mut self, n: u8) -> bool {
        self.below(n) == n as usize - 1
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.byte()).collect()
    }

    /// A label: nearly always one of a few, so that names have suffixes in common; sometimes any, sometimes too long.
    pub fn label(&mut self) -> Vec<u8> {
        const POOL: [&[u8]; 8] = [b"db", b"web", b"prod", b"Prod", b"svc", b"cluster", b"local", b"10-1-2-3"];
        match self.below(16) {
            15 => {
                let len = self.below(66);
                self.bytes(len)
            }
            14 => self.bytes(1),
            index => POOL[index % POOL.len()].to_vec(),
        }
    }

    pub fn labels(&mut self) -> Vec<Vec<u8>> {
        (0..self.below(7)).map(|_| self.label()).collect()
    }

    /// Labels that make a name.
    pub fn valid_labels(&mut self) -> Vec<Vec<u8>> {
        let labels = self.labels();
        if is_name(&labels) { labels } else { vec![b"prod".to_vec()] }
    }
}

pub fn is_name(labels: &[Vec<u8>]) -> bool {
    let bytes: usize = labels.iter().map(|label| 1 + label.len()).sum();
    bytes < 255 && labels.iter().all(|label| (1..=63).contains(&label.len()))
}

pub fn wire_name(labels: &[Vec<u8>]) -> Vec<u8> {
    let mut wire: Vec<u8> =
        labels.iter().flat_map(|label| [&[u8::try_from(label.len()).unwrap()], &label[..]].concat()).collect();
    wire.push(0);
    wire
}

/// The labels of an uncompressed name.
pub fn split(mut wire: &[u8]) -> Vec<Vec<u8>> {
    let mut labels = Vec::new();
    while let [len @ 1..=63, rest @ ..] = wire {
        let (label, rest) = rest.split_at(usize::from(*len));
        labels.push(label.to_vec());
        wire = rest;
    }
    labels
}

/// A well-formed query with whatever a client may put into one.
pub fn query(choices: &mut Choices<'_>) -> Vec<u8> {
    let mut message = choices.bytes(2);
    let flags = choices.u16() & 0x07FF;
    let question = wire_name(&choices.valid_labels());
    let records = if choices.one_in(4) { [choices.below(3), choices.below(3), choices.below(3)] } else { [0; 3] };
    let edns = !choices.one_in(4);
    message.extend(flags.to_be_bytes());
    message.extend([0, 1]);
    for (count, edns) in records.into_iter().zip([false, false, edns]) {
        message.extend(u16::try_from(count + usize::from(edns)).unwrap().to_be_bytes());
    }
    message.extend(question);
    let rtype = [1, 28, 33, 12, 255, 16, 6, choices.u16()][choices.below(8)];
    message.extend(rtype.to_be_bytes());
    message.extend(if choices.one_in(8) { choices.u16() } else { 1 }.to_be_bytes());
    let opt_at = choices.below(3).min(records[2]);
    for (section, count) in records.into_iter().enumerate() {
        for index in 0..=count {
            if section == 2 && edns && index == opt_at {
                opt(choices, &mut message);
            }
            if index < count {
                other_record(choices, &mut message);
            }
        }
    }
    if choices.one_in(8) {
        let len = choices.below(9);
        message.extend(choices.bytes(len));
    }
    message
}

fn opt(choices: &mut Choices<'_>, message: &mut Vec<u8>) {
    message.extend([0, 0, 41]);
    message.extend(choices.u16().to_be_bytes());
    message.extend([0, u8::from(choices.one_in(16)), choices.byte(), 0]);
    let mut options = Vec::new();
    for _ in 0..choices.below(4) {
        let code = [10, 3, 12, choices.u16()][choices.below(4)];
        let len = choices.below(41);
        options.extend(code.to_be_bytes());
        options.extend(u16::try_from(len).unwrap().to_be_bytes());
        options.extend(choices.bytes(len));
    }
    message.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
    message.extend(options);
}

fn other_record(choices: &mut Choices<'_>, message: &mut Vec<u8>) {
    // An unknown type keeps hickory from looking inside; TSIG is one for it too as it is built here.
    let owner = choices.valid_labels();
    if choices.one_in(2) {
        message.extend([0xC0, 12]);
    } else {
        message.extend(wire_name(&owner));
    }
    message.extend(if choices.one_in(4) { 250 } else { 65_280_u16 }.to_be_bytes());
    message.extend([0, 1]);
    message.extend(choices.bytes(4));
    let len = 1 + choices.below(20);
    message.extend(u16::try_from(len).unwrap().to_be_bytes());
    message.extend(choices.bytes(len));
}
