//! With the values of an MGET comes the lineage of the server that answered: epochs are read so,
//! and are nothing without it.

use bytes::Bytes;
use redis::{Arg, Pipeline, Value};

use super::reply::values;
use super::resp::SIGNED;
use crate::store::Reply;
use crate::store::lineage::Lineage;

/// Puts the lineage behind the values of each MGET, by which epochs are read: those that know what
/// they have asked for take it off again.
pub(super) fn sign(lineage: Lineage, pipeline: &Pipeline, replies: &mut [Value]) {
    for (command, reply) in pipeline.cmd_iter().zip(replies) {
        if let Value::Array(values) = reply
            && matches!(command.args_iter().next(), Some(Arg::Simple(b"MGET")))
        {
            sign_values(lineage, values);
        }
    }
}

pub(super) fn sign_values(lineage: Lineage, values: &mut Vec<Value>) {
    let bits = lineage.to_bits();
    // As they stand in memory: no number is meant.
    let half = |bits: u128| i64::from_le_bytes((bits as u64).to_le_bytes());
    values.extend([Value::Int(half(bits)), Value::Int(half(bits >> 64))]);
}

/// The values of an MGET without the lineage, and that, where it is known.
pub(super) fn unsigned(
    mut reply: Value,
    expected: usize,
) -> Reply<(Vec<Option<Bytes>>, Option<Lineage>)> {
    let mut lineage = None;
    if let Value::Array(parts) = &mut reply
        && let [.., Value::Int(low), Value::Int(high)] = parts.as_slice()
        && parts.len() == expected + SIGNED
    {
        let half = |half: i64| u128::from(u64::from_le_bytes(half.to_le_bytes()));
        lineage = Some(Lineage::from_bits(half(*high) << 64 | half(*low)));
        parts.truncate(expected);
    }
    Ok((values(reply, expected)?, lineage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_read_with_its_lineage() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let mut pipeline = redis::pipe();
        pipeline.cmd("GET").arg("k").cmd("MGET").arg("a").arg("b");
        let mut replies = vec![text("v"), Value::Array(vec![text("x"), Value::Nil])];
        let plain = unsigned(replies[1].clone(), 2).unwrap();
        assert_eq!(plain, (vec![Some("x".into()), None], None));
        let lineage = Lineage::of("id");
        sign(lineage, &pipeline, &mut replies);
        assert_eq!(replies[0], text("v"));
        let signed = unsigned(replies[1].clone(), 2).unwrap();
        assert_eq!(signed, (plain.0, Some(lineage)));
        assert!(unsigned(replies[1].clone(), 3).is_err());
    }
}
