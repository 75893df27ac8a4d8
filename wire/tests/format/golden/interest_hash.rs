//! The hash of what a node wants, as `docs/PROTOCOL.md` describes it.

/// CRC-64/WE, bit by bit.
fn crc_64_we(bytes: &[u8]) -> u64 {
    !bytes.iter().fold(u64::MAX, |crc, byte| {
        (0..8).fold(crc ^ u64::from(*byte) << 56, |crc, _| {
            let polynomial = if crc >> 63 == 1 { 0x42F0_E1EB_A9EA_3693 } else { 0 };
            crc << 1 ^ polynomial
        })
    })
}

pub(crate) fn interest_hash(filters: &[&str]) -> u64 {
    let mut sorted = filters.to_vec();
    sorted.sort_unstable();
    let lines: String = sorted.iter().map(|filter| format!("{filter}\n")).collect();
    crc_64_we(lines.as_bytes())
}

#[test]
fn the_check_value_is_that_of_crc_64_we() {
    assert_eq!(crc_64_we(b"123456789"), 0x62EC_59E3_F1A4_F00A);
    assert_eq!(interest_hash(&[]), 0);
}
