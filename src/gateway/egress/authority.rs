//! The certificates with which the proxy answers for the hosts of credentials.
//!
//! Each run has an authority of its own. Its key is in this process's memory only and is gone once
//! the certificates are signed, which is before the sandbox starts; they are good for a few days
//! and for those hosts. So nothing that could be stolen is worth trusting, and only the sandbox of
//! that run has a reason to trust it.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::config::Name;

/// Longer than any run. A clock that is a little behind must not matter.
const DAYS_BEFORE: i64 = 1;
const DAYS_AFTER: i64 = 7;

/// An authority for `names` only.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new<'a>(names: impl Iterator<Item = &'a Name>) -> Result<Self, rcgen::Error> {
        let mut params = params("sandbox-mcp, for one run");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let permitted_subtrees =
            names.map(|name| GeneralSubtree::DnsName(name.to_string())).collect();
        params.name_constraints =
            Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// What a server needs to be `name`. HTTP/1.1 only: that is what the proxy reads.
    pub fn server(&self, name: &Name) -> Result<Arc<ServerConfig>, String> {
        let (certificate, key) = self.leaf(name).map_err(|error| error.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder.with_no_client_auth().with_single_cert(vec![certificate], key)
            })
            .map_err(|error| error.to_string())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn leaf(
        &self,
        name: &Name,
    ) -> Result<(rustls::pki_types::CertificateDer<'static>, PrivateKeyDer<'static>), rcgen::Error>
    {
        let mut params = params("sandbox-mcp");
        params.subject_alt_names = CertificateParams::new([name.to_string()])?.subject_alt_names;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.0)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok((certificate.der().clone(), key))
    }
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let day = |days: i64| {
        let then = Timestamp::now() + SignedDuration::from_hours(24 * days);
        let date: Date = then.to_zoned(TimeZone::UTC).date();
        let number = |number: i8| u8::try_from(number).unwrap_or(1);
        rcgen::date_time_ymd(date.year().into(), number(date.month()), number(date.day()))
    };
    params.not_before = day(-DAYS_BEFORE);
    params.not_after = day(DAYS_AFTER);
    params
}
