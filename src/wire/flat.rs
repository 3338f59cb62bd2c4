//! Names in uncompressed wire form, and the limits of names.

/// Longest label (RFC 1035, 2.3.4).
pub(super) const LABEL_BYTES_MAX: usize = 63;

/// Longest name in wire form, with the root's zero byte (RFC 1035, 2.3.4).
pub(super) const NAME_BYTES_MAX: usize = 255;

/// Most labels a name has, the root not counted: 127 times two bytes and the root.
const LABELS_MAX: usize = 127;

/// Bytes handled at once when a name is copied; the copy is rounded up to it.
const CHUNK: usize = 16;

/// Why text or bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Two dots in a row, or a dot in front.
    #[error("a label is empty")]
    EmptyLabel,
    #[error("a label is longer than 63 bytes")]
    LabelTooLong,
    /// The name is too long.
    #[error("the name is longer than 255 bytes")]
    TooLong,
    /// A backslash is followed by neither three digits up to 255 nor a character to be taken as it is.
    #[error("an escape is malformed")]
    Escape,
    /// The bytes end before the name does, or hold a compression pointer where none may be.
    #[error("the name is cut off or compressed")]
    Malformed,
}

/// A name in uncompressed wire form with the offsets of its labels, in any case.
#[derive(Clone)]
pub(super) struct Flat {
    /// The wire form; what follows the root is of no meaning.
    bytes: [u8; 256],
    /// Offset of each label's length byte.
    starts: [u8; LABELS_MAX + 1],
    /// Offset of the root's zero byte. Not the length, so that the root name is all zeros and cheap to make.
    root: u8,
    labels: u8,
}

impl Flat {
    pub(super) const ROOT: Self = Self { bytes: [0; 256], starts: [0; LABELS_MAX + 1], root: 0, labels: 0 };

    /// Reads an uncompressed name from the start of `body`, in lower case.
    ///
    /// A first pass finds the labels, a second copies sixteen bytes at a time: length bytes are below `A`, so the whole
    /// wire form can be lower-cased without looking at them.
    #[inline]
    pub(super) fn read_lower(&mut self, body: &[u8]) -> Result<(), NameError> {
        // Within these bounds a name that is too long does not end.
        let bounded = body.get(..NAME_BYTES_MAX).unwrap_or(body);
        let mut at = 0;
        let mut labels: u8 = 0;
        loop {
            let Some(&len) = bounded.get(at) else {
                return Err(if at < NAME_BYTES_MAX { NameError::Malformed } else { NameError::TooLong });
            };
            // The root's own start is noted too: the empty suffix is one like any other.
            self.starts[usize::from(labels) & LABELS_MAX] = low_byte(at);
            match len {
                1..=63 => at += 1 + usize::from(len),
                0 => break,
                64..0xC0 => return Err(NameError::LabelTooLong),
                0xC0.. => return Err(NameError::Malformed),
            }
            labels = labels.wrapping_add(1);
        }
        let len = at + 1;
        let (sources, rest) = body.as_chunks::<CHUNK>();
        let (targets, _) = self.bytes.as_chunks_mut::<CHUNK>();
        let needed = len.div_ceil(CHUNK);
        for (target, source) in targets.iter_mut().zip(sources).take(needed) {
            *target = lower(*source);
        }
        if sources.len() < needed
            && let Some(target) = targets.get_mut(sources.len())
        {
            let mut last = [0; CHUNK];
            for (to, from) in last.iter_mut().zip(rest) {
                *to = *from;
            }
            *target = lower(last);
        }
        self.root = low_byte(at);
        self.labels = labels;
        Ok(())
    }

    /// Appends a label in front of the root.
    pub(super) fn push(&mut self, label: &[u8]) -> Result<(), NameError> {
        if label.is_empty() {
            return Err(NameError::EmptyLabel);
        }
        if label.len() > LABEL_BYTES_MAX {
            return Err(NameError::LabelTooLong);
        }
        let at = usize::from(self.root);
        let end = at + 1 + label.len();
        if end >= NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        self.bytes[at] = low_byte(label.len());
        self.bytes[at + 1..end].copy_from_slice(label);
        self.bytes[end] = 0;
        self.labels += 1;
        self.starts[usize::from(self.labels)] = low_byte(end);
        self.root = low_byte(end);
        Ok(())
    }

    /// Lower-cases all of it: length bytes are below `A`.
    pub(super) fn make_lower(&mut self) {
        self.bytes.make_ascii_lowercase();
    }

    /// Labels, the root not counted.
    pub(super) fn labels(&self) -> usize {
        usize::from(self.labels)
    }

    /// Offset of the wire form without its first `skip` labels; at most that of the root.
    #[inline]
    pub(super) fn start(&self, skip: usize) -> usize {
        usize::from(self.starts[skip.min(self.labels()) & LABELS_MAX])
    }

    /// The wire form without its first `skip` labels; at least the root's zero byte.
    #[inline]
    pub(super) fn suffix(&self, skip: usize) -> &[u8] {
        self.bytes.get(self.start(skip)..=usize::from(self.root)).unwrap_or(&[0])
    }

    /// The label at `index`; empty if there is none.
    #[inline]
    pub(super) fn label(&self, index: usize) -> &[u8] {
        let start = self.start(index);
        let len = usize::from(self.bytes[start]);
        self.bytes.get(start + 1..start + 1 + len).unwrap_or_default()
    }
}

/// Offsets and lengths within a name, all below 256.
#[expect(clippy::cast_possible_truncation, reason = "the callers hold it below 256")]
#[inline]
const fn low_byte(value: usize) -> u8 {
    debug_assert!(value < 256);
    value as u8
}

#[inline]
fn lower(mut chunk: [u8; CHUNK]) -> [u8; CHUNK] {
    for byte in &mut chunk {
        *byte = byte.to_ascii_lowercase();
    }
    chunk
}
