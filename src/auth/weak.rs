//! Public keys that are well formed and yet protect nothing. It must not know where they were
//! written.

/// The `y` of every point whose order divides eight (little-endian, without the sign bit of `x`),
/// as RFC 8032 §5.1.3 and more lenient readers take it: 0 and 1 may also be written with the
/// field's prime added. Signatures by such a key can be made without a private one.
const SMALL_ORDER: [[u8; 32]; 7] = [
    ends_with_zeros(0),
    ends_with_zeros(1),
    [
        0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef, 0x98,
        0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88, 0x6d, 0x53,
        0xfc, 0x05,
    ],
    [
        0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10, 0x67,
        0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77, 0x92, 0xac,
        0x03, 0x7a,
    ],
    near_the_prime(0xec),
    near_the_prime(0xed),
    near_the_prime(0xee),
];

/// Primes modulo which ROCA moduli are powers of [`ROCA_GENERATOR`].
const ROCA_PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97,
    101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];
/// The generator that the flawed library builds its primes from.
const ROCA_GENERATOR: u32 = 65_537;

const fn ends_with_zeros(first: u8) -> [u8; 32] {
    let mut y = [0; 32];
    y[0] = first;
    y
}

const fn near_the_prime(first: u8) -> [u8; 32] {
    let mut y = [0xff; 32];
    y[0] = first;
    y[31] = 0x7f;
    y
}

/// Whether an encoded Ed25519 point (RFC 8032 §5.1.2) has an order of at most eight.
pub(super) fn is_of_small_order(point: &[u8]) -> bool {
    let Ok(mut y) = <[u8; 32]>::try_from(point) else { return false };
    y[31] &= 0x7f;
    SMALL_ORDER.contains(&y)
}

/// Whether a modulus (big-endian) is one of those that CVE-2017-15361 makes: modulo each of these
/// primes it is a power of the generator. Of other moduli, one in two hundred
/// million is so too.
pub(super) fn has_roca_fingerprint(modulus: &[u8]) -> bool {
    ROCA_PRIMES.iter().all(|prime| {
        let rest = modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime);
        let mut power = 1;
        (0..*prime).any(|_| {
            power = power * (ROCA_GENERATOR % prime) % prime;
            power == rest
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_of_small_order_are_known_with_either_sign() {
        for y in SMALL_ORDER {
            let mut negative = y;
            negative[31] |= 0x80;
            assert!(is_of_small_order(&y) && is_of_small_order(&negative), "{y:02x?}");
        }
        // The base point (RFC 8032 §5.1), and its neighbours in number.
        let mut base = [0x66; 32];
        base[0] = 0x58;
        assert!(!is_of_small_order(&base));
        assert!(!is_of_small_order(&ends_with_zeros(2)));
        assert!(!is_of_small_order(&near_the_prime(0xeb)));
        assert!(!is_of_small_order(&[]));
    }

    /// The generator's power with this exponent, big-endian.
    fn power(exponent: usize) -> Vec<u8> {
        let mut product = vec![1_u8];
        for _ in 0..exponent {
            // Times 2^16, plus once.
            let mut sum = [&[0, 0], product.as_slice()].concat();
            let mut carry = 0;
            for (at, digit) in sum.iter_mut().enumerate() {
                let more = product.get(at).map_or(0, |byte| u16::from(*byte));
                let total = u16::from(*digit) + more + carry;
                (*digit, carry) = (total as u8, total >> 8);
            }
            if carry > 0 {
                sum.push(carry as u8);
            }
            product = sum;
        }
        product.reverse();
        product
    }

    #[test]
    fn a_modulus_that_is_a_power_modulo_all_primes_has_the_fingerprint() {
        assert_eq!(power(2), [0x01, 0x00, 0x02, 0x00, 0x01]);
        for exponent in [1, 121, 128, 257] {
            let mut modulus = power(exponent);
            assert!(has_roca_fingerprint(&modulus), "{exponent}");
            *modulus.last_mut().unwrap() ^= 2;
            assert!(!has_roca_fingerprint(&modulus), "{exponent}");
        }
    }
}
