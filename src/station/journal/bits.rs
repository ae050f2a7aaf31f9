//! Codes without the bits that they do not need.

/// Bits of a code below `card`.
pub(super) fn width(card: u32) -> u32 {
    card.max(2).next_power_of_two().trailing_zeros()
}

/// Packs codes of `width` bits each, the first one into the lowest bits.
pub(super) fn pack(codes: &[u32], width: u32, out: &mut Vec<u8>) {
    let (mut held, mut bits) = (0u64, 0);
    for &code in codes {
        held |= u64::from(code) << bits;
        bits += width;
        while bits >= 8 {
            out.push(held as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(held as u8);
    }
}

/// Bytes that so many codes take.
pub(super) fn packed(count: usize, width: u32) -> usize {
    (count * width as usize).div_ceil(8)
}

/// The first `count` codes of what [`pack`] made; `None` if there are not as many.
pub(super) fn unpack(bytes: &[u8], count: usize, width: u32) -> Option<Vec<u32>> {
    if width > 32 || bytes.len() < packed(count, width) {
        return None;
    }
    let (mut held, mut bits, mut next) = (0u64, 0, bytes.iter());
    let code = |_| {
        while bits < width {
            held |= u64::from(*next.next().unwrap_or(&0)) << bits;
            bits += 8;
        }
        let code = held & ((1 << width) - 1);
        held >>= width;
        bits -= width;
        code as u32
    };
    Some((0..count).map(code).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_packed_comes_out(card in 2u32..70_000, codes in prop::collection::vec(any::<u32>(), 0..300)) {
            let codes: Vec<u32> = codes.into_iter().map(|code| code % card).collect();
            let mut bytes = Vec::new();
            pack(&codes, width(card), &mut bytes);
            prop_assert_eq!(bytes.len(), packed(codes.len(), width(card)));
            prop_assert_eq!(unpack(&bytes, codes.len(), width(card)), Some(codes));
        }
    }
}
