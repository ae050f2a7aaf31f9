//! Looks a pickle over before candle builds it.
//!
//! candle's reader builds what it is told to: objects nested as deep as the file is long (which
//! overflow the stack when they are dropped), and copies of copies. Here the same machine runs on
//! depths and sizes alone, within bounds that checkpoints are far below.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use candle_core::pickle::OpCode;

/// Bytes of a pickle; those of published checkpoints have some hundred thousand.
const MOST_BYTES: u64 = 64 << 20;
/// Objects in objects.
const MOST_DEPTH: u32 = 200;
/// Objects that are built or copied, texts counted by their lengths.
const MOST_OBJECTS: u64 = 20_000_000;
/// Bytes of text that count as one object.
const TEXT: u64 = 32;

/// Looks over the pickles of a `torch.save` archive.
///
/// # Errors
/// A sentence's end that says what is wrong.
pub(super) fn check_archive(path: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut zip = zip::ZipArchive::new(BufReader::new(file)).map_err(|error| error.to_string())?;
    for index in 0..zip.len() {
        let entry = zip.by_index(index).map_err(|error| error.to_string())?;
        if entry.name().is_ok_and(|name| name.ends_with("data.pkl")) {
            check(&read_within(entry)?)?;
        }
    }
    Ok(())
}

/// A pickle's bytes, unless there are too many, whatever the archive's directory says.
pub(super) fn read_within(reader: impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("its pickle has more than {} MB", MOST_BYTES >> 20));
    }
    Ok(bytes)
}

/// An object as far as it matters here.
#[derive(Clone, Copy)]
struct Shape {
    depth: u32,
    objects: u64,
    is_mark: bool,
}

impl Shape {
    const LEAF: Self = Self { depth: 1, objects: 1, is_mark: false };
    const MARK: Self = Self { depth: 1, objects: 1, is_mark: true };

    fn text(bytes: usize) -> Self {
        Self { objects: 1 + bytes as u64 / TEXT, ..Self::LEAF }
    }

    fn around(parts: &[Self]) -> Self {
        let mut whole = Self::LEAF;
        parts.iter().for_each(|part| whole.take(*part));
        whole
    }

    fn take(&mut self, part: Self) {
        self.depth = self.depth.max(part.depth.saturating_add(1));
        self.objects = self.objects.saturating_add(part.objects);
    }
}

struct Machine<'a> {
    rest: &'a [u8],
    stack: Vec<Shape>,
    memo: HashMap<u32, Shape>,
    /// Objects made and copied so far.
    work: u64,
}

const CUT_OFF: &str = "its pickle is cut off";

/// Runs a pickle on shapes.
///
/// # Errors
/// As [`check_archive`].
pub(super) fn check(bytes: &[u8]) -> Result<(), String> {
    let mut machine = Machine { rest: bytes, stack: Vec::new(), memo: HashMap::new(), work: 0 };
    while machine.step()? {
        if machine.stack.last().is_some_and(|top| top.depth > MOST_DEPTH) {
            return Err(format!("its pickle nests more than {MOST_DEPTH} objects"));
        }
        if machine.work > MOST_OBJECTS {
            return Err(format!("its pickle unfolds to more than {MOST_OBJECTS} objects"));
        }
    }
    Ok(())
}

impl Machine<'_> {
    fn bytes(&mut self, count: usize) -> Result<&[u8], String> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or(CUT_OFF)?;
        self.rest = rest;
        Ok(bytes)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.bytes(1)?[0])
    }

    fn number(&mut self) -> Result<u32, String> {
        let bytes = self.bytes(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn line(&mut self) -> Result<(), String> {
        let end = self.rest.iter().position(|byte| *byte == b'\n').ok_or(CUT_OFF)?;
        self.bytes(end + 1).map(drop)
    }

    fn push(&mut self, shape: Shape) {
        self.work = self.work.saturating_add(1);
        self.stack.push(shape);
    }

    fn pop(&mut self) -> Result<Shape, String> {
        self.stack.pop().ok_or_else(|| "its pickle takes more than it has".into())
    }

    /// Replaces the last `count` objects by one that holds them.
    fn wrap(&mut self, count: usize) -> Result<(), String> {
        let first = self.stack.len().checked_sub(count).ok_or("its pickle takes more than it has")?;
        let whole = Shape::around(&self.stack[first..]);
        self.stack.truncate(first);
        self.push(whole);
        Ok(())
    }

    /// What lies above the last mark, taken off with it.
    fn marked(&mut self) -> Result<Shape, String> {
        let mark = self.stack.iter().rposition(|shape| shape.is_mark).ok_or("its pickle lacks a mark")?;
        let parts = Shape::around(&self.stack[mark + 1..]);
        self.stack.truncate(mark);
        Ok(parts)
    }

    /// Puts `parts`, counted as one object around them, into the last object.
    fn put_in(&mut self, parts: Shape) -> Result<(), String> {
        let last = self.stack.last_mut().ok_or("its pickle takes more than it has")?;
        last.depth = last.depth.max(parts.depth);
        last.objects = last.objects.saturating_add(parts.objects);
        Ok(())
    }

    fn remember(&mut self, place: u32) -> Result<(), String> {
        let shape = *self.stack.last().ok_or("its pickle takes more than it has")?;
        self.work = self.work.saturating_add(shape.objects);
        self.memo.insert(place, shape);
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Result<(), String> {
        let shape = *self.memo.get(&place).ok_or("its pickle recalls what it never had")?;
        self.work = self.work.saturating_add(shape.objects);
        self.push(shape);
        Ok(())
    }

    /// One operation; false at the end.
    fn step(&mut self) -> Result<bool, String> {
        let code = self.byte()?;
        let code =
            OpCode::try_from(code).map_err(|code| format!("its pickle has an operation {code} that is not known"))?;
        match code {
            OpCode::Stop => return Ok(false),
            OpCode::Proto => drop(self.byte()?),
            OpCode::Global => {
                self.line()?;
                self.line()?;
                self.push(Shape::LEAF);
            }
            OpCode::BinUnicode => {
                let length = self.number()? as usize;
                self.bytes(length)?;
                self.push(Shape::text(length));
            }
            OpCode::Long1 => {
                let length = self.byte()?.into();
                self.bytes(length)?;
                self.push(Shape::LEAF);
            }
            OpCode::BinInt1 => self.leaf(1)?,
            OpCode::BinInt2 => self.leaf(2)?,
            OpCode::BinInt => self.leaf(4)?,
            OpCode::BinFloat => self.leaf(8)?,
            OpCode::NewTrue | OpCode::NewFalse | OpCode::None => self.leaf(0)?,
            OpCode::EmptyTuple | OpCode::EmptyList | OpCode::EmptyDict => self.leaf(0)?,
            OpCode::Mark => self.push(Shape::MARK),
            OpCode::BinPersId | OpCode::Tuple1 => self.wrap(1)?,
            OpCode::Tuple2 | OpCode::Reduce | OpCode::NewObj | OpCode::Build => self.wrap(2)?,
            OpCode::Tuple3 => self.wrap(3)?,
            OpCode::Tuple | OpCode::Dict => {
                let parts = self.marked()?;
                self.push(parts);
            }
            OpCode::Append => {
                let part = self.pop()?;
                self.put_in(Shape::around(&[part]))?;
            }
            OpCode::SetItem => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.put_in(Shape::around(&[key, value]))?;
            }
            OpCode::Appends | OpCode::SetItems => {
                let parts = self.marked()?;
                self.put_in(parts)?;
            }
            OpCode::BinPut => {
                let place = self.byte()?.into();
                self.remember(place)?;
            }
            OpCode::LongBinPut => {
                let place = self.number()?;
                self.remember(place)?;
            }
            OpCode::BinGet => {
                let place = self.byte()?.into();
                self.recall(place)?;
            }
            OpCode::LongBinGet => {
                let place = self.number()?;
                self.recall(place)?;
            }
        }
        Ok(true)
    }

    /// A value of so many bytes.
    fn leaf(&mut self, bytes: usize) -> Result<(), String> {
        self.bytes(bytes)?;
        self.push(Shape::LEAF);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn objects_nested_without_end_are_refused() {
        // Three hundred kilobytes: a tuple in a tuple in a tuple.
        let tuples = [&b"\x80\x02N"[..], &b"\x85".repeat(300_000), b"."].concat();
        let lists = [&b"\x80\x02"[..], &b"]".repeat(100_000), &b"a".repeat(99_999), b"."].concat();
        let marks = [&b"\x80\x02"[..], &b"(".repeat(100_000), &b"t".repeat(100_000), b"."].concat();
        let built = [&b"\x80\x02N"[..], &b"Nb".repeat(100_000), b"."].concat();
        for pickle in [tuples, lists, marks, built] {
            assert!(check(&pickle).unwrap_err().contains("nests"));
        }
    }

    #[test]
    fn copies_of_copies_are_refused() {
        let mut pickle = b"\x80\x02Nq\x00".to_vec();
        (0..60).for_each(|_| pickle.extend(b"h\x00h\x00\x86q\x00"));
        pickle.push(b'.');
        assert!(check(&pickle).unwrap_err().contains("unfolds"));
        let text =
            [&b"\x80\x02X\x00\x00\x10\x00"[..], &[b'a'; 1 << 20], b"q\x00", &b"h\x00".repeat(2000), b"."].concat();
        assert!(check(&text).unwrap_err().contains("unfolds"));
    }

    #[test]
    fn what_is_cut_off_or_impossible_is_refused() {
        for (pickle, word) in [
            (&b"\x80\x02X\xff\xff\xff\xff"[..], "cut off"),
            (b"\x80\x02N", "cut off"),
            (b"\x86.", "takes more"),
            (b"h\x07.", "recalls"),
            (b"t.", "mark"),
            (b"\xfe.", "operation 254"),
        ] {
            assert!(check(pickle).unwrap_err().contains(word), "{pickle:?}");
        }
        assert!(read_within(std::io::repeat(0)).unwrap_err().contains("64 MB"));
    }
}
