//! Gzip-compressed tar archives, as far as bundles are made of them: regular files with their
//! names. Nothing is written anywhere, so that a name is only a key.

use std::io::Read;

use flate2::read::MultiGzDecoder;

/// What an archive may hold when it is unpacked, names and padding included.
const LARGEST: u64 = 256 * 1024 * 1024;

/// How many members it may have.
const MOST_MEMBERS: usize = 10_000;

/// Longest name, and longest header extension that can carry one.
const LONGEST_EXTENSION: usize = 64 * 1024;

const BLOCK: usize = 512;

/// Why bytes are not an archive, or not one that is read here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// There is nothing.
    #[error("EOF")]
    Empty,
    /// No gzip header.
    #[error("gzip: invalid header")]
    NotGzip,
    /// Compressed data are damaged or end too early.
    #[error("gzip: {0}")]
    Damaged(String),
    /// The header of a member is none.
    #[error("archive/tar: invalid tar header")]
    Header,
    /// The archive ends in the middle of a member.
    #[error("unexpected EOF")]
    Truncated,
    /// More than is unpacked.
    #[error("the archive is larger than {} MiB when unpacked", LARGEST / 1024 / 1024)]
    TooLarge,
    /// More than is listed.
    #[error("the archive has more than {MOST_MEMBERS} members")]
    TooManyMembers,
    /// A name that is not UTF-8, too long, or points out of the archive.
    #[error("the archive has a member with an invalid name")]
    Name,
}

/// The regular files of an archive that `wanted` asks for by name, in order. Names are relative,
/// without `.` and empty components.
pub(crate) fn unpack(
    archive: &[u8],
    wanted: impl Fn(&str) -> bool,
) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    unpack_within(archive, wanted, LARGEST)
}

fn unpack_within(
    archive: &[u8],
    wanted: impl Fn(&str) -> bool,
    largest: u64,
) -> Result<Vec<(String, Vec<u8>)>, ArchiveError> {
    match archive {
        [] => return Err(ArchiveError::Empty),
        [0x1f, 0x8b, ..] => {}
        _ => return Err(ArchiveError::NotGzip),
    }
    let mut reader = Members {
        input: MultiGzDecoder::new(archive),
        left: largest,
    };
    let mut files = Vec::new();
    let mut long_name = None;
    let mut members = 0;
    while let Some(header) = reader.header()? {
        members += 1;
        if members > MOST_MEMBERS {
            return Err(ArchiveError::TooManyMembers);
        }
        let size = header.size()?;
        match header.kind() {
            b'x' => {
                let path = pax_path(&reader.extension(size)?)?;
                long_name = path.or(long_name);
            }
            b'L' => {
                let name = reader.extension(size)?;
                let end = name.iter().position(|&byte| byte == 0).unwrap_or(name.len());
                long_name = Some(name.get(..end).unwrap_or_default().to_vec());
            }
            kind => {
                let name = long_name.take().unwrap_or_else(|| header.name());
                let is_file = matches!(kind, b'0' | 0 | b'7');
                let name = if is_file {
                    plain_name(&name)?
                } else {
                    String::new()
                };
                if is_file && wanted(&name) {
                    files.push((name, reader.content(size)?));
                } else {
                    reader.skip(padded(size)?)?;
                }
            }
        }
    }
    reader.drain()?;
    Ok(files)
}

/// A name as a key; it must not lead out of the archive.
fn plain_name(name: &[u8]) -> Result<String, ArchiveError> {
    let name = std::str::from_utf8(name).map_err(|_| ArchiveError::Name)?;
    let parts: Vec<&str> = name
        .split('/')
        .filter(|part| !part.is_empty() && *part != ".")
        .collect();
    if parts.contains(&"..") || name.contains('\0') || parts.is_empty() {
        return Err(ArchiveError::Name);
    }
    Ok(parts.join("/"))
}

/// The path among the records of a pax header: `LENGTH KEY=VALUE\n`, length included.
fn pax_path(mut records: &[u8]) -> Result<Option<Vec<u8>>, ArchiveError> {
    let mut path = None;
    while !records.is_empty() {
        let blank = records
            .iter()
            .position(|&byte| byte == b' ')
            .ok_or(ArchiveError::Header)?;
        let length = records
            .get(..blank)
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| digits.parse::<usize>().ok())
            .filter(|&length| length > blank)
            .ok_or(ArchiveError::Header)?;
        let record = records.get(blank + 1..length).ok_or(ArchiveError::Header)?;
        let record = record.strip_suffix(b"\n").ok_or(ArchiveError::Header)?;
        match record.strip_prefix(b"path=") {
            Some(value) => path = Some(value.to_vec()),
            // A file that is larger than the header can say is larger than is unpacked.
            None if record.starts_with(b"size=") || record.starts_with(b"GNU.sparse.") => {
                return Err(ArchiveError::Header);
            }
            None => {}
        }
        records = records.get(length..).unwrap_or_default();
    }
    Ok(path)
}

fn padded(size: u64) -> Result<u64, ArchiveError> {
    let block = u64::try_from(BLOCK).map_err(|_| ArchiveError::TooLarge)?;
    size.checked_next_multiple_of(block).ok_or(ArchiveError::TooLarge)
}

struct Members<'a> {
    input: MultiGzDecoder<&'a [u8]>,
    /// How many bytes may still be unpacked.
    left: u64,
}

impl Members<'_> {
    /// The next header; none at the end, be it marked by a block of zeros or not.
    fn header(&mut self) -> Result<Option<Header>, ArchiveError> {
        let mut block = Box::new([0; BLOCK]);
        match self.fill(&mut block[..])? {
            0 => Ok(None),
            BLOCK if block.iter().all(|&byte| byte == 0) => Ok(None),
            BLOCK => Header(block).checked().map(Some),
            _ => Err(ArchiveError::Truncated),
        }
    }

    /// Fills `buffer` as far as there is something.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let read = self
                .input
                .read(rest)
                .map_err(|error| ArchiveError::Damaged(error.to_string()))?;
            if read == 0 {
                break;
            }
            filled += read;
            self.left = u64::try_from(read)
                .ok()
                .and_then(|read| self.left.checked_sub(read))
                .ok_or(ArchiveError::TooLarge)?;
        }
        Ok(filled)
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), ArchiveError> {
        let mut buffer = [0; 8 * BLOCK];
        if bytes > self.left {
            return Err(ArchiveError::TooLarge);
        }
        while bytes > 0 {
            let piece = usize::try_from(bytes).unwrap_or(usize::MAX).min(buffer.len());
            let read = self.fill(buffer.get_mut(..piece).unwrap_or_default())?;
            if read < piece {
                return Err(ArchiveError::Truncated);
            }
            bytes = bytes.saturating_sub(u64::try_from(piece).unwrap_or(u64::MAX));
        }
        Ok(())
    }

    /// Reads what is left: only then checksums have been compared.
    fn drain(&mut self) -> Result<(), ArchiveError> {
        let mut buffer = [0; 8 * BLOCK];
        while self.fill(&mut buffer)? > 0 {}
        Ok(())
    }

    /// A member's content and what pads it. Grows with what is there, not with what is announced.
    fn content(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        if size > self.left {
            return Err(ArchiveError::TooLarge);
        }
        let mut content = Vec::new();
        let read = self.input.by_ref().take(size).read_to_end(&mut content);
        read.map_err(|error| ArchiveError::Damaged(error.to_string()))?;
        let length = u64::try_from(content.len()).unwrap_or(u64::MAX);
        if length < size {
            return Err(ArchiveError::Truncated);
        }
        self.left = self.left.saturating_sub(length);
        self.skip(padded(size)?.saturating_sub(size))?;
        Ok(content)
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, ArchiveError> {
        match usize::try_from(size) {
            Ok(length) if length <= LONGEST_EXTENSION => self.content(size),
            _ => Err(ArchiveError::Name),
        }
    }
}

/// A ustar header (POSIX.1-1988).
struct Header(Box<[u8; BLOCK]>);

impl Header {
    /// A header whose sum is right, with the sum's own field counted as blanks.
    fn checked(self) -> Result<Self, ArchiveError> {
        const SUM: std::ops::Range<usize> = 148..156;
        let bytes = self.0.iter().enumerate();
        let sum: u64 = bytes
            .map(|(index, &byte)| u64::from(if SUM.contains(&index) { b' ' } else { byte }))
            .sum();
        match octal(self.field(SUM.start, SUM.end)) {
            Some(stated) if stated == sum => Ok(self),
            _ => Err(ArchiveError::Header),
        }
    }

    fn field(&self, start: usize, end: usize) -> &[u8] {
        self.0.get(start..end).unwrap_or_default()
    }

    fn kind(&self) -> u8 {
        self.0.get(156).copied().unwrap_or_default()
    }

    fn size(&self) -> Result<u64, ArchiveError> {
        octal(self.field(124, 136)).ok_or(ArchiveError::Header)
    }

    fn name(&self) -> Vec<u8> {
        let text = |field: &[u8]| {
            let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
            field.get(..end).unwrap_or_default().to_vec()
        };
        let name = text(self.field(0, 100));
        let prefix = text(self.field(345, 500));
        match self.field(257, 263) == b"ustar\0" && !prefix.is_empty() {
            true => [prefix, name].join(&b'/'),
            false => name,
        }
    }
}

/// Octal digits between blanks or zero bytes. Binary numbers, which are for more than eight
/// gigabytes, are not read.
fn octal(field: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(field).ok()?;
    let digits = text.trim_matches([' ', '\0']);
    if digits.is_empty() {
        return Some(0);
    }
    let valid = digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    valid.then(|| u64::from_str_radix(digits, 8).ok())?
}

#[cfg(test)]
mod tests;
