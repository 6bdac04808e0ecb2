//! Why a connection to Redis was not made.

use std::error::Error;
use std::io;
use std::sync::Arc;

use rustls::CertificateError;

use super::says::Condition;

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("no answer within connect_timeout")]
    Timeout,
    #[error("READONLY: the server is a replica")]
    Replica,
    #[error("another server answers there than the one that the Redis Cluster has there")]
    Stranger,
    /// The files of `[store.tls]` cannot be used.
    #[error("{0}")]
    Files(String),
    #[error(transparent)]
    Redis(#[from] redis::RedisError),
}

impl ConnectError {
    /// What is the matter, where that has a name.
    pub(super) fn condition(&self) -> Option<Condition> {
        let Self::Redis(error) = self else { return None };
        match error.code() {
            Some(code) => Condition::of_code(code),
            None => tls_error(error).map(of_tls),
        }
    }

    /// Whether something has answered, though not with what was asked for.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Redis(error) => error.code().is_some() || tls_error(error).is_some(),
            Self::Replica | Self::Stranger => true,
            Self::Timeout | Self::Files(_) => false,
        }
    }

    /// Whether Redis refused who the gateway is, or did not prove who it is itself.
    pub(super) fn is_refusal(&self) -> bool {
        let Self::Redis(error) = self else { return false };
        matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) || tls_error(error).is_some()
    }
}

/// What TLS found wrong. It lies in an [`io::Error`], and that is shared between all who waited.
fn tls_error(error: &redis::RedisError) -> Option<&rustls::Error> {
    let shared = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    shared.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref()
}

fn of_tls(error: &rustls::Error) -> Condition {
    use rustls::Error as E;
    match error {
        E::InvalidMessage(_) => Condition::NoTls,
        E::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => Condition::UnknownAuthority,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Condition::OtherName
            }
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Condition::OutOfDate,
            _ => Condition::BadCertificate,
        },
        E::AlertReceived(_) => Condition::RefusesClient,
        _ => Condition::BadCertificate,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_tls(error: rustls::Error) -> ConnectError {
        redis::RedisError::from(io::Error::new(io::ErrorKind::InvalidData, error)).into()
    }

    #[test]
    fn what_tls_found_wrong_has_a_name_and_is_a_refusal() {
        for (error, expected) in [
            (CertificateError::UnknownIssuer.into(), Condition::UnknownAuthority),
            (CertificateError::NotValidForName.into(), Condition::OtherName),
            (CertificateError::Expired.into(), Condition::OutOfDate),
            (CertificateError::BadSignature.into(), Condition::BadCertificate),
            (
                rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired),
                Condition::RefusesClient,
            ),
            (
                rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                Condition::NoTls,
            ),
        ] {
            let error = of_tls(error);
            assert_eq!(error.condition(), Some(expected), "{error}");
            assert!(error.is_refusal());
        }
        let lost = ConnectError::from(redis::RedisError::from(io::Error::other("lost")));
        assert!(lost.condition().is_none() && !lost.is_refusal());
        assert!(ConnectError::Timeout.condition().is_none());
    }
}
