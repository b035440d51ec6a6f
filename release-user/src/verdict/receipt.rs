//! Writing an `idle` verdict down.

use crate::api::types::Receipt;

/// FNV-1a-64 of the receipt's JSON without its hash, as 16 hexadecimal digits. Shows accidental
/// change; it is no signature.
///
/// # Errors
/// If the receipt cannot be written as JSON.
pub fn hash(receipt: &Receipt) -> Result<String, serde_json::Error> {
    let mut plain = receipt.clone();
    plain.hash.clear();
    let text = serde_json::to_vec(&plain)?;
    let sum = text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Ok(format!("{sum:016x}"))
}
