//! Writing an `idle` verdict down.

use crate::api::types::Receipt;
use crate::fnv;

/// FNV-1a-64 of the receipt's JSON without its hash, as 16 hexadecimal digits. Shows accidental
/// change; it is no signature.
///
/// # Errors
/// If the receipt cannot be written as JSON.
pub fn hash(receipt: &Receipt) -> Result<String, serde_json::Error> {
    let mut plain = receipt.clone();
    plain.hash.clear();
    let text = serde_json::to_vec(&plain)?;
    Ok(format!("{:016x}", fnv::hash([text.as_slice()])))
}
