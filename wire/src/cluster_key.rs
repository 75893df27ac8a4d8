//! The secret that the nodes of a cluster share: it signs beacons, and what the two ends of a link
//! challenge each other with. HMAC-SHA-256 (RFC 2104).

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::ids::NodeId;

/// Bytes of a signature.
pub const PROOF_BYTES: usize = 32;
/// Bytes of a challenge.
pub const CHALLENGE_BYTES: usize = 32;

/// Sets proofs of links apart from signatures of beacons.
const LINK: &[u8] = b"nexusd link";

/// A cluster's secret.
#[derive(Clone)]
pub struct ClusterKey(Hmac<Sha256>);

impl ClusterKey {
    /// The key made from a secret of any length.
    pub fn new(secret: &[u8]) -> Self {
        // An HMAC takes keys of every length.
        Self(Hmac::new_from_slice(secret).unwrap_or_else(|_| unreachable!()))
    }

    /// Signs `bytes`.
    pub fn sign(&self, bytes: &[u8]) -> [u8; PROOF_BYTES] {
        self.0.clone().chain_update(bytes).finalize().into_bytes().into()
    }

    /// Whether `proof` is the signature of `bytes`. Takes as long whichever byte is wrong.
    pub fn is_signed(&self, bytes: &[u8], proof: &[u8]) -> bool {
        self.0.clone().chain_update(bytes).verify_slice(proof).is_ok()
    }

    /// What `prover` answers to `verifier`, which gave it `challenge` at one end of a link.
    pub fn answer(&self, challenge: &[u8], prover: NodeId, verifier: NodeId) -> [u8; PROOF_BYTES] {
        self.sign(&answered(challenge, prover, verifier))
    }

    /// Whether `proof` is `prover`'s answer to a challenge of `verifier`.
    pub fn is_answer(
        &self,
        challenge: &[u8],
        prover: NodeId,
        verifier: NodeId,
        proof: &[u8],
    ) -> bool {
        challenge.len() == CHALLENGE_BYTES
            && self.is_signed(&answered(challenge, prover, verifier), proof)
    }
}

/// Both ends' ids stand in it, so that no answer serves anywhere else.
fn answered(challenge: &[u8], prover: NodeId, verifier: NodeId) -> Vec<u8> {
    [LINK, challenge, &prover.0.to_le_bytes(), &verifier.0.to_le_bytes()].concat()
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterKey(secret)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        // Test case 2 of the RFC.
        let proof = ClusterKey::new(b"Jefe").sign(b"what do ya want for nothing?");
        let hex: String = proof.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn an_answer_serves_its_prover_verifier_and_challenge_alone() {
        let key = ClusterKey::new(b"secret");
        let (one, other) = (NodeId(1), NodeId(2));
        let challenge = [7; CHALLENGE_BYTES];
        let proof = key.answer(&challenge, one, other);
        assert!(key.is_answer(&challenge, one, other, &proof));
        assert!(!key.is_answer(&challenge, other, one, &proof), "not sent back to its prover");
        assert!(!key.is_answer(&[8; CHALLENGE_BYTES], one, other, &proof));
        assert!(!key.is_answer(&challenge, one, other, &proof[..31]));
        assert!(!key.is_answer(&[], one, other, &key.answer(&[], one, other)), "no challenge");
        assert!(!ClusterKey::new(b"other").is_answer(&challenge, one, other, &proof));
    }
}
