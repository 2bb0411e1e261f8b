//! One series' readings in one chunk.
//!
//! ```text
//! column   = tag u8, [ holes ], payload
//! tag      = 0 constant · 1 pieces · 2 packed, plus 128 if there are holes
//! holes    = runs varint, [ readings since the run before varint · length varint · code u8 ]
//! constant = the value: an integer signed, a float as 8 bytes little-endian
//! pieces   = [ readings varint · bytes varint · bits ] until the column is full; bits as `codec::column` has them,
//!            none if all these readings are in holes
//! packed   = pco chunk of all values, integers or floats; where there is a hole the value before it
//! ```
//! Codes of holes are those of reasons, and 15 for "the series ended here". How many readings there are is told by the axis.

use belfry_common::{
    model::{Raw, Reason, Resolution},
    wire::codec::column as bits,
};

use super::{
    bytes::{Bytes, Malformed, put_signed, put_varint},
    pco,
};
use crate::{
    columns::{Columns, coded},
    pick::Places,
};

const CONSTANT: u8 = 0;
const PIECES: u8 = 1;
const PACKED: u8 = 2;
const HOLES: u8 = 128;

/// The reading at which a series ended: its group ticked on without it.
pub(crate) const ENDED: Raw = Raw::from_bits(i64::MIN + ENDED_CODE as i64);
const ENDED_CODE: u8 = 15;

/// From here on pco's tables pay: below, the codec's bits are smaller, and ten times cheaper.
const PACKED_READINGS_MIN: usize = 512;

/// Appends a column of readings.
pub(crate) fn encode(resolution: Resolution, readings: &[Raw], out: &mut Vec<u8>) {
    let holes = holes(readings);
    let has_holes = !holes.is_empty();
    let tag_at = out.len();
    out.push(0);
    if has_holes {
        put_holes(&holes, out);
    }
    let tag = encode_values(resolution, readings, has_holes, out);
    if let Some(place) = out.get_mut(tag_at) {
        *place = tag | if has_holes { HOLES } else { 0 };
    }
}

fn encode_values(resolution: Resolution, readings: &[Raw], has_holes: bool, out: &mut Vec<u8>) -> u8 {
    let mut values = readings.iter().filter(|reading| code(**reading).is_none());
    let first = values.next().map_or(0, |first| first.bits());
    if values.all(|value| value.bits() == first) {
        match resolution {
            Resolution::Decimal(_) => put_signed(first, out),
            Resolution::Float => out.extend_from_slice(&first.to_le_bytes()),
        }
        return CONSTANT;
    }
    let filled = if has_holes { filled(readings) } else { Vec::new() };
    let values = if has_holes { &filled } else { readings };
    if readings.len() < PACKED_READINGS_MIN {
        put_piece(values.len(), |out| bits::encode(resolution, values, out), out);
        return PIECES;
    }
    match resolution {
        Resolution::Decimal(_) => pco::encode(&values.iter().map(|value| value.bits()).collect::<Vec<i64>>(), out),
        Resolution::Float => pco::encode(&values.iter().map(|&value| float(value)).collect::<Vec<f64>>(), out),
    }
    PACKED
}

fn float(value: Raw) -> f64 {
    f64::from_bits(value.bits().cast_unsigned())
}

/// A run of readings that are already coded as [`bits`] has them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece<'a> {
    pub(crate) readings: usize,
    pub(crate) bits: &'a [u8],
}

/// Appends a column of pieces; with `has_ended` one reading more, at which the series ended.
pub(crate) fn encode_pieces(pieces: &[Piece<'_>], has_ended: bool, out: &mut Vec<u8>) {
    out.push(PIECES | if has_ended { HOLES } else { 0 });
    if has_ended {
        let before = pieces.iter().map(|piece| piece.readings).sum();
        put_holes(&[Hole { from: before, length: 1, code: ENDED_CODE }], out);
    }
    for piece in pieces {
        put_varint(piece.readings as u64, out);
        put_varint(piece.bits.len() as u64, out);
        out.extend_from_slice(piece.bits);
    }
    if has_ended {
        out.extend_from_slice(&[1, 0]);
    }
}

fn put_piece(readings: usize, encode: impl FnOnce(&mut Vec<u8>), out: &mut Vec<u8>) {
    let mut coded = Vec::new();
    encode(&mut coded);
    put_varint(readings as u64, out);
    put_varint(coded.len() as u64, out);
    out.extend_from_slice(&coded);
}

/// Memory for [`decode_samples`], one column after the other.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    integers: Vec<i64>,
    floats: Vec<f64>,
    readings: Vec<Raw>,
}

/// Appends the samples of a column at these places of its axis to `samples`, as a run.
///
/// # Errors
/// [`Malformed`] if there are not exactly as many as the axis has times.
pub(crate) fn decode_samples(
    resolution: Resolution,
    bytes: &[u8],
    (times, places): (&[i64], &Places),
    scratch: &mut Scratch,
    samples: &mut Columns,
) -> Result<(), Malformed> {
    let divisor = resolution.divisor();
    // What is behind the last that is wanted need not be decoded.
    let wanted = (places.end().min(times.len()), times.len());
    if places.is_empty() {
        return Ok(());
    }
    // What most columns are, without a look at each value for a reason that it cannot have.
    match (bytes.split_first(), resolution) {
        (Some((&PACKED, packed)), Resolution::Decimal(_)) => {
            pco::decode_into(packed, wanted, &mut scratch.integers)?;
            extend_with_integers(samples, (times, &scratch.integers), places, (divisor, |integer| integer));
        }
        (Some((&PACKED, packed)), Resolution::Float) => {
            pco::decode_into(packed, wanted, &mut scratch.floats)?;
            extend(samples, (times, &scratch.floats), places, |value| coded(Ok(value)));
        }
        (Some((&CONSTANT, constant_value)), _) => {
            let value = value(constant(resolution, constant_value)?, resolution);
            extend(samples, (times, times), places, |_| coded(value));
            if value.is_err() {
                samples.note_missing();
            }
        }
        _ => {
            scratch.readings.clear();
            let may_miss = decode_first(resolution, bytes, wanted, &mut scratch.readings)?;
            let readings = &scratch.readings;
            if resolution == Resolution::Float || may_miss {
                extend(samples, (times, readings), places, |reading| coded(value(reading, resolution)));
                if may_miss {
                    samples.note_missing();
                }
            } else {
                extend_with_integers(samples, (times, readings), places, (divisor, Raw::bits));
            }
        }
    }
    Ok(())
}

/// Appends integers divided by this.
fn extend_with_integers<T: Copy>(
    samples: &mut Columns,
    (times, readings): (&[i64], &[T]),
    places: &Places,
    (divisor, integer): (f64, impl Fn(T) -> i64),
) {
    // Numbers of 52 bits with a sign are the low bits of the floats from 2^52 on: so that processors that cannot convert more than one integer
    // of 64 bits at a time convert several.
    const BITS: u32 = 52;
    const HALF: i64 = 1 << (BITS - 1);
    const OFFSET: f64 = 6_755_399_441_055_744.0;
    let all = readings.iter().fold(0, |all, &reading| all | integer(reading).wrapping_add(HALF).cast_unsigned());
    let float = |integer: i64| f64::from_bits(OFFSET.to_bits().wrapping_add_signed(integer)) - OFFSET;
    let from = samples.len();
    if all >> BITS == 0 {
        extend(samples, (times, readings), places, |reading| float(integer(reading)));
    } else {
        extend(samples, (times, readings), places, |reading| integer(reading) as f64);
    }
    // Dividing by one is not free.
    if divisor != 1.0 {
        samples.divide(from, divisor);
    }
}

fn value(reading: Raw, resolution: Resolution) -> Result<f64, Option<Reason>> {
    if reading == ENDED { Err(None) } else { reading.value(resolution).map_err(Some) }
}

/// Appends the samples at some places of a chunk's times and readings.
fn extend<T: Copy>(
    samples: &mut Columns,
    (times, readings): (&[i64], &[T]),
    places: &Places,
    value: impl Fn(T) -> f64,
) {
    match places {
        Places::Run(run) => {
            let (times, readings) = (times.get(run.clone()), readings.get(run.clone()));
            if let Some((times, readings)) = times.zip(readings) {
                samples.extend(times, readings.iter().map(|&reading| value(reading)));
            }
        }
        Places::Single(places) => {
            let at = |&place: &u32| Some((*times.get(place as usize)?, value(*readings.get(place as usize)?)));
            samples.extend_at(places.iter().filter_map(at));
        }
    }
}

/// Appends `count` readings of a column to `readings`; whether some of them may be missing.
///
/// # Errors
/// [`Malformed`] if there are not exactly as many.
pub(crate) fn decode(
    resolution: Resolution,
    bytes: &[u8],
    count: usize,
    readings: &mut Vec<Raw>,
) -> Result<bool, Malformed> {
    decode_first(resolution, bytes, (count, count), readings)
}

/// As [`decode`], the first `wanted` of `count` readings or more.
fn decode_first(
    resolution: Resolution,
    bytes: &[u8],
    (wanted, count): (usize, usize),
    readings: &mut Vec<Raw>,
) -> Result<bool, Malformed> {
    let mut bytes = Bytes(bytes);
    let tag = bytes.u8()?;
    let holes = if tag & HOLES != 0 { take_holes(&mut bytes)? } else { Vec::new() };
    let from = readings.len();
    let mut may_miss = !holes.is_empty();
    match tag & !HOLES {
        CONSTANT => readings.resize(from + count, constant(resolution, bytes.0)?),
        PIECES => {
            // A hole may be anywhere in it.
            let wanted = if holes.is_empty() { wanted } else { count };
            may_miss |= decode_pieces(resolution, bytes, (wanted, count), readings)?;
        }
        PACKED => match resolution {
            Resolution::Decimal(_) => {
                let mut values: Vec<i64> = Vec::new();
                pco::decode(bytes.0, count, &mut values)?;
                readings.extend(values.into_iter().map(Raw::from_bits));
            }
            Resolution::Float => {
                let mut values: Vec<f64> = Vec::new();
                pco::decode(bytes.0, count, &mut values)?;
                readings.extend(values.into_iter().map(|value| Raw::from_bits(value.to_bits().cast_signed())));
            }
        },
        _ => return Err(Malformed),
    }
    let added = readings.get_mut(from..).unwrap_or_default();
    for Hole { from, length, code } in holes {
        let hole = from.checked_add(length).and_then(|to| added.get_mut(from..to)).ok_or(Malformed)?;
        hole.fill(Raw::from_bits(i64::MIN + i64::from(code)));
    }
    Ok(may_miss)
}

fn constant(resolution: Resolution, coded: &[u8]) -> Result<Raw, Malformed> {
    let mut bytes = Bytes(coded);
    let value = match resolution {
        Resolution::Decimal(_) => bytes.signed()?,
        Resolution::Float => i64::from_le_bytes(bytes.take(8)?.try_into().map_err(|_| Malformed)?),
    };
    bytes.end()?;
    Ok(Raw::from_bits(value))
}

fn decode_pieces(
    resolution: Resolution,
    mut bytes: Bytes<'_>,
    (wanted, count): (usize, usize),
    readings: &mut Vec<Raw>,
) -> Result<bool, Malformed> {
    let (until, end) = (readings.len() + wanted, readings.len() + count);
    let mut may_miss = false;
    while readings.len() < until {
        let length = bytes.u32()? as usize;
        if length > end - readings.len() || length == 0 {
            return Err(Malformed);
        }
        let length = length.min(until - readings.len());
        let coded = bytes.bytes()?;
        if coded.is_empty() {
            readings.resize(readings.len() + length, Raw::from_bits(0));
        } else {
            let mut column = bits::Column::new(resolution, coded).map_err(|_| Malformed)?;
            may_miss |= column.may_miss();
            column.read_run(length, readings).map_err(|_| Malformed)?;
        }
    }
    if until == end {
        bytes.end()?;
    }
    Ok(may_miss)
}

/// A run of readings without values, all for the same reason.
#[derive(Debug, PartialEq, Eq)]
struct Hole {
    from: usize,
    length: usize,
    code: u8,
}

/// The code of a reading that has no value.
fn code(reading: Raw) -> Option<u8> {
    if reading == ENDED { Some(ENDED_CODE) } else { reading.reason().map(Reason::code) }
}

fn holes(readings: &[Raw]) -> Vec<Hole> {
    let mut holes: Vec<Hole> = Vec::new();
    for (at, code) in readings.iter().enumerate().filter_map(|(at, reading)| Some((at, code(*reading)?))) {
        match holes.last_mut() {
            Some(last) if last.from + last.length == at && last.code == code => last.length += 1,
            _ => holes.push(Hole { from: at, length: 1, code }),
        }
    }
    holes
}

fn put_holes(holes: &[Hole], out: &mut Vec<u8>) {
    put_varint(holes.len() as u64, out);
    let mut end = 0;
    for hole in holes {
        put_varint((hole.from - end) as u64, out);
        put_varint(hole.length as u64, out);
        out.push(hole.code);
        end = hole.from + hole.length;
    }
}

fn take_holes(bytes: &mut Bytes<'_>) -> Result<Vec<Hole>, Malformed> {
    let mut holes = Vec::new();
    let mut end = 0_usize;
    for _ in 0..bytes.count()? {
        let from = end.checked_add(bytes.u32()? as usize).ok_or(Malformed)?;
        let (length, code) = (bytes.u32()? as usize, bytes.u8()?);
        if code != ENDED_CODE && Reason::from_code(code).is_none() {
            return Err(Malformed);
        }
        if length == 0 {
            return Err(Malformed);
        }
        end = from.checked_add(length).ok_or(Malformed)?;
        holes.push(Hole { from, length, code });
    }
    Ok(holes)
}

/// The values with those before them where there are none: what changes least is coded best.
fn filled(readings: &[Raw]) -> Vec<Raw> {
    let mut last = readings.iter().copied().find(|reading| code(*reading).is_none()).unwrap_or(Raw::from_bits(0));
    let fill = |&reading: &Raw| {
        if code(reading).is_none() {
            last = reading;
        }
        last
    };
    readings.iter().map(fill).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reading() -> impl Strategy<Value = Raw> {
        prop_oneof![
            8 => any::<i64>().prop_map(Raw::integer),
            8 => (0..1000_i64).prop_map(Raw::integer),
            4 => (0..6_usize).prop_map(|at| Raw::missing(Reason::ALL[at])),
            1 => Just(ENDED),
        ]
    }

    fn readings() -> impl Strategy<Value = Vec<Raw>> {
        let runs = proptest::collection::vec((reading(), 1..40_usize), 0..40);
        let runs = runs.prop_map(|runs| runs.into_iter().flat_map(|(reading, count)| vec![reading; count]).collect());
        prop_oneof![proptest::collection::vec(reading(), 0..100), proptest::collection::vec(reading(), 500..600), runs]
    }

    fn check(resolution: Resolution, readings: &[Raw]) {
        let mut out = Vec::new();
        encode(resolution, readings, &mut out);
        let mut decoded = vec![Raw::integer(7)];
        let may_miss = decode(resolution, &out, readings.len(), &mut decoded);
        assert!(
            may_miss == Ok(true) || may_miss == Ok(false) && readings.iter().all(|reading| code(*reading).is_none())
        );
        assert_eq!(&decoded[1..], readings);
        check_samples(resolution, &out, readings);
        for end in (0..out.len()).step_by(1 + out.len() / 16) {
            // pco pads its end, and the last bits of a piece may be none: what is cut is noticed by checksums.
            let _ = decode(resolution, &out[..end], readings.len(), &mut decoded);
        }
    }

    /// Of whatever places samples are wanted, they are those of the readings there.
    fn check_samples(resolution: Resolution, bytes: &[u8], readings: &[Raw]) {
        let times: Vec<i64> = (0..readings.len() as i64).collect();
        let ends = [0, 1, 32, 255, 256, 257, readings.len() / 2, readings.len()];
        for end in ends.into_iter().filter(|&end| end <= readings.len()) {
            let runs = [0, end / 2, end.saturating_sub(1), end].map(|start| Places::Run(start..end));
            for places in runs.into_iter().chain([Places::Single((0..end as u32).step_by(7).collect())]) {
                let (mut scratch, mut samples) = (Scratch::default(), Columns::default());
                decode_samples(resolution, bytes, (&times, &places), &mut scratch, &mut samples).unwrap();
                let wanted: Vec<usize> = match &places {
                    Places::Run(run) => run.clone().collect(),
                    Places::Single(places) => places.iter().map(|&place| place as usize).collect(),
                };
                let bits = |at: &usize| (times[*at], coded(value(readings[*at], resolution)).to_bits());
                let found = samples.samples().times_ms().iter().zip(samples.samples().values());
                let found: Vec<(i64, u64)> = found.map(|(&time, value)| (time, value.to_bits())).collect();
                assert_eq!(found, wanted.iter().map(bits).collect::<Vec<_>>(), "{places:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn columns_come_back(readings in readings(), float: bool) {
            check(if float { Resolution::Float } else { Resolution::ONE }, &readings);
        }

        #[test]
        fn pieces_come_back(first in readings(), second in readings(), has_ended: bool) {
            let code = |readings: &[Raw]| {
                let readings: Vec<Raw> = readings.iter().copied().filter(|&reading| reading != ENDED).collect();
                let mut out = Vec::new();
                bits::encode(Resolution::ONE, &readings, &mut out);
                (readings, out)
            };
            let coded = [code(&first), code(&second)];
            let pieces: Vec<Piece<'_>> = coded.iter().filter(|(readings, _)| !readings.is_empty())
                .map(|(readings, bits)| Piece { readings: readings.len(), bits }).collect();
            let mut out = Vec::new();
            encode_pieces(&pieces, has_ended, &mut out);
            let mut expected: Vec<Raw> = coded.iter().flat_map(|(readings, _)| readings.clone()).collect();
            expected.extend(has_ended.then_some(ENDED));
            let mut decoded = Vec::new();
            prop_assert!(decode(Resolution::ONE, &out, expected.len(), &mut decoded).is_ok());
            check_samples(Resolution::ONE, &out, &expected);
            prop_assert_eq!(decoded, expected);
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>, count in 0..5000_usize, float: bool) {
            let resolution = if float { Resolution::Float } else { Resolution::ONE };
            let _ = decode(resolution, &bytes, count, &mut Vec::new());
            let times = vec![0; count];
            let places = Places::Run(count / 4..count / 2);
            let _ = decode_samples(resolution, &bytes, (&times, &places), &mut Scratch::default(), &mut Columns::default());
        }
    }

    #[test]
    fn what_never_changes_takes_two_bytes_and_what_is_missing_five() {
        let size = |readings: &[Raw]| {
            let mut out = Vec::new();
            encode(Resolution::ONE, readings, &mut out);
            out.len()
        };
        assert_eq!(size(&[Raw::integer(0); 3600]), 2);
        assert!(size(&[Raw::missing(Reason::Lost); 3600]) <= 7);
    }
}
