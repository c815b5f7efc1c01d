//! The binary format, as far as attacks put it together by hand.

/// The ids of sections of a component.
pub(crate) const CUSTOM: u8 = 0;
pub(crate) const CORE_MODULE: u8 = 1;
pub(crate) const CORE_INSTANCE: u8 = 2;
pub(crate) const COMPONENT: u8 = 4;

/// The first eight bytes of a component.
pub(crate) const PREAMBLE: [u8; 8] = [0, b'a', b's', b'm', 0x0d, 0, 1, 0];

/// A number as it is written in the format.
pub(crate) fn leb(mut number: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let seven = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(seven);
            return bytes;
        }
        bytes.push(seven | 0x80);
    }
}

/// A section.
pub(crate) fn section(id: u8, content: &[u8]) -> Vec<u8> {
    [&[id], leb(u32::try_from(content.len()).unwrap()).as_slice(), content].concat()
}

/// The sections of a component that is well-formed: ids and whole sections.
pub(crate) struct Sections<'a>(&'a [u8]);

impl<'a> Sections<'a> {
    pub(crate) fn of(component: &'a [u8]) -> Self {
        Self(&component[8..])
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let id = *self.0.first()?;
        let (mut len, mut head) = (0_usize, 1);
        loop {
            let byte = self.0[head];
            len |= usize::from(byte & 0x7f) << (7 * (head - 1));
            head += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let (whole, rest) = self.0.split_at(head + len);
        self.0 = rest;
        Some((id, whole))
    }
}
