//! The checksum of Ogg pages: CRC-32 with polynomial 0x04c11db7, not reflected, starting at 0 (RFC
//! 3533).
//!
//! Starting at 0 makes it linear: `crc(a ^ b) = crc(a) ^ crc(b)` for equal lengths. So a page's
//! checksum is that of the page with its variable fields zeroed, changed by what those fields alone
//! contribute. A register `r` that is fed `k` zero bytes becomes `r · x^(8k)` modulo the
//! polynomial, which [`zeros`] and [`multiply`] compute.

const POLYNOMIAL: u32 = 0x04c1_1db7;

/// `TABLES[k][b]` is the register after byte `b` and `k` zero bytes.
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut register = (byte as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            register = (register << 1) ^ (if register >> 31 == 1 { POLYNOMIAL } else { 0 });
            bit += 1;
        }
        tables[0][byte] = register;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before << 8) ^ tables[0][(before >> 24) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// The register after `bytes`, from `register`.
pub(super) fn update(mut register: u32, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    for &[a, b, c, d, e, f, g, h] in words {
        let [p, q, r, s] = (register ^ u32::from_be_bytes([a, b, c, d])).to_be_bytes();
        register = [p, q, r, s, e, f, g, h]
            .into_iter()
            .zip(TABLES.iter().rev())
            .fold(0, |sum, (byte, table)| sum ^ table[usize::from(byte)]);
    }
    for &byte in rest {
        register = (register << 8) ^ TABLES[0][usize::from((register >> 24) as u8 ^ byte)];
    }
    register
}

/// `a · b` modulo the polynomial; bit `i` stands for `x^i`.
pub(super) fn multiply(a: u32, b: u32) -> u32 {
    (0..32).rev().fold(0, |product: u32, bit| {
        let carry = (product >> 31).wrapping_neg() & POLYNOMIAL;
        (product << 1) ^ carry ^ ((b >> bit & 1).wrapping_neg() & a)
    })
}

/// `x^(8 · count)` modulo the polynomial: multiplying by it is what `count` zero bytes do to a
/// register.
pub(super) fn zeros(count: usize) -> u32 {
    let (mut result, mut square, mut left) = (1, 1 << 8, count);
    while left > 0 {
        if left & 1 == 1 {
            result = multiply(result, square);
        }
        square = multiply(square, square);
        left >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_the_known_crc() {
        // CRC-32/MPEG-2 of "123456789" is 0x0376e6e7; it differs from Ogg's only in starting at all
        // ones.
        assert_eq!(update(0xffff_ffff, b"123456789"), 0x0376_e6e7);
    }

    proptest! {
        #[test]
        fn zero_bytes_are_a_multiplication(register in any::<u32>(), count in 0usize..5000) {
            prop_assert_eq!(multiply(register, zeros(count)), update(register, &vec![0; count]));
        }
    }
}
