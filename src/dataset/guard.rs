//! Parquet files of strangers: their footers and page headers are walked before a reader that
//! trusts them allocates what they claim.
//!
//! Both are structs of Thrift's compact protocol, of which only sizes matter here.

use std::ops::Range;

/// Longest footer, and most list elements in one: a reader makes some hundred bytes of each.
const FOOTER: usize = 16 << 20;
const ELEMENTS: usize = 400_000;
/// Largest page once decompressed. Writers make pages of 1 MiB.
const PAGE: u64 = 64 << 20;
/// Deepest nesting of structs.
const DEPTH: usize = 16;
/// Memory of one batch of rows, at most.
const BATCH: u64 = 64 << 20;

/// Checks that the footer of the Parquet file `bytes` can be parsed in bounded memory.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_footer(bytes: &[u8]) -> Result<(), String> {
    let broken = || "no Parquet footer".to_string();
    let end = bytes.len().checked_sub(8).ok_or_else(broken)?;
    let (length, magic) = bytes[end..].split_at(4);
    if magic != b"PAR1" {
        return Err(broken());
    }
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    let start = end.checked_sub(length).ok_or("a footer longer than the file")?;
    if length > FOOTER {
        return Err(format!("a footer of {length} bytes"));
    }
    let mut elements = ELEMENTS;
    Walk { bytes: &bytes[start..end], at: 0, elements: &mut elements }.fields(0, |_, _, _| {})
}

/// Checks the pages of the column chunk at `range` of the file `bytes`; gives the size of its
/// largest page once decompressed.
pub(super) fn check_pages(bytes: &[u8], range: Range<u64>) -> Result<u64, String> {
    let (from, to) = (usize::try_from(range.start), usize::try_from(range.end));
    let chunk = match (from, to) {
        (Ok(from), Ok(to)) if from <= to => bytes.get(from..to),
        _ => None,
    };
    let chunk = chunk.ok_or("a column beyond the end of the file")?;
    let mut at = 0;
    let mut largest = 0;
    while at < chunk.len() {
        let mut elements = ELEMENTS;
        let mut walk = Walk { bytes: chunk, at, elements: &mut elements };
        let (mut whole, mut packed) = (0, 0);
        walk.fields(0, |depth, field, value| match (depth, field) {
            (0, 2) => whole = value,
            (0, 3) => packed = value,
            _ => {}
        })?;
        let whole = u64::try_from(whole).map_err(|_| "a page of negative size")?;
        if whole > PAGE {
            return Err(format!("a page of {whole} bytes"));
        }
        largest = largest.max(whole);
        let packed = usize::try_from(packed).map_err(|_| "a page of negative size")?;
        at = walk
            .at
            .checked_add(packed)
            .filter(|&next| next <= chunk.len())
            .ok_or("a page beyond the end of its column")?;
    }
    Ok(largest)
}

/// How many rows a batch may have where a value can be as large as a page.
pub(super) fn batch_rows(largest_page: u64) -> usize {
    (BATCH / largest_page.max(1)).clamp(1, 8192) as usize
}

/// Most memory that the rows of a file of `size` bytes may take. Rows are tens of times larger than
/// their file at most, but for a bomb.
pub(super) fn decoded_bytes(size: usize) -> usize {
    size.saturating_mul(64).max(192 << 20)
}

/// A walk over a struct.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    elements: &'a mut usize,
}

impl Walk<'_> {
    fn byte(&mut self) -> Result<u8, String> {
        let byte = self.bytes.get(self.at).copied().ok_or("it ends too early")?;
        self.at += 1;
        Ok(byte)
    }

    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("a number of more than 64 bits".into())
    }

    fn zigzag(&mut self) -> Result<i64, String> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn jump(&mut self, length: u64) -> Result<(), String> {
        let left = self.bytes.len() - self.at;
        let length = usize::try_from(length).ok().filter(|&length| length <= left);
        self.at += length.ok_or("a text longer than the file")?;
        Ok(())
    }

    /// Walks a struct; `seen` hears of every whole number: depth, field, value.
    fn fields(
        &mut self,
        depth: usize,
        mut seen: impl FnMut(usize, i64, i64),
    ) -> Result<(), String> {
        self.structure(depth, &mut seen)
    }

    fn structure(
        &mut self,
        depth: usize,
        seen: &mut dyn FnMut(usize, i64, i64),
    ) -> Result<(), String> {
        if depth > DEPTH {
            return Err("structs nested too deep".into());
        }
        let mut field = 0;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(());
            }
            field = match head >> 4 {
                0 => self.zigzag()?,
                more => field + i64::from(more),
            };
            match head & 0x0f {
                // A boolean field's value is its type.
                1 | 2 => {}
                5 | 6 => {
                    let value = self.zigzag()?;
                    seen(depth, field, value);
                }
                kind => self.value(kind, depth, seen)?,
            }
        }
    }

    fn value(
        &mut self,
        kind: u8,
        depth: usize,
        seen: &mut dyn FnMut(usize, i64, i64),
    ) -> Result<(), String> {
        match kind {
            1..=3 => self.jump(1),
            4..=6 => self.varint().map(drop),
            7 => self.jump(8),
            8 => {
                let length = self.varint()?;
                self.jump(length)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                let count = usize::try_from(count).ok().filter(|count| count <= self.elements);
                let count = count.ok_or("lists of too many elements")?;
                *self.elements -= count;
                (0..count).try_for_each(|_| self.value(head & 0x0f, depth, seen))
            }
            // Deeper than any field that is asked for.
            12 => self.structure(depth + 1, seen),
            _ => Err(format!("a value of unknown kind {kind}")),
        }
    }
}
