//! `[store.tls]` and `[store.sentinel.tls]`: whom the gateway believes to be Redis, or a sentinel,
//! and who it says it is.

use std::path::PathBuf;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::pem_file::PemFile;
use super::reader::Section;
use super::upstream_tls::server_name;
use super::value::text;
use crate::base::authorities;
use crate::base::client_tls::client_config;
use crate::base::file::FileFault;
use crate::base::pem;

/// TLS towards Redis. Its files are read anew while the gateway runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoreTls {
    /// The authorities that are believed; those of this machine where there is no file.
    pub ca_file: Option<PemFile>,
    /// What is shown to a server that asks for a certificate.
    pub client_cert: Option<PemFile>,
    /// Its key.
    pub client_key: Option<PemFile>,
    /// The name that servers must prove, in place of the host of their address.
    pub server_name: Option<ServerName<'static>>,
}

/// What is wrong with one of the files. Behind the key's name, and with nothing of its content.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("store.tls.{key} {what}")]
pub struct StoreTlsFlaw {
    /// The key that names the file.
    pub key: &'static str,
    /// What is wrong.
    pub what: String,
}

impl StoreTls {
    /// What speaks TLS with Redis, by the files as they were read.
    ///
    /// # Errors
    /// The first file that cannot be used.
    pub fn client(&self) -> Result<ClientConfig, StoreTlsFlaw> {
        let authorities = match &self.ca_file {
            Some(file) => pem::authorities(file.content.expose())
                .map_err(|what| StoreTlsFlaw { key: "ca_file", what })?,
            None => authorities::of_this_machine().map_err(|why| {
                let what =
                    format!("is missing, and this machine trusts no certificate authority ({why})");
                StoreTlsFlaw { key: "ca_file", what }
            })?,
        };
        let chain = self.client_cert.as_ref().map(|file| pem::chain(file.content.expose()));
        let chain = chain.transpose().map_err(|what| StoreTlsFlaw { key: "client_cert", what })?;
        let key = self.client_key.as_ref().map(|file| pem::private_key(file.content.expose()));
        let key = key.transpose().map_err(|what| StoreTlsFlaw { key: "client_key", what })?;
        let identity = chain.as_deref().zip(key.as_ref());
        client_config(&authorities, identity).map_err(|error| {
            let what = match error {
                rustls::Error::InconsistentKeys(_) => {
                    "is the key of another certificate than client_cert".to_owned()
                }
                error => format!("cannot be used with client_cert: {error}"),
            };
            StoreTlsFlaw { key: "client_key", what }
        })
    }

    /// The same with the files as they are now.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn reread(&self) -> Result<Self, (PathBuf, FileFault)> {
        let anew = |file: &Option<PemFile>| {
            let anew = |file: &PemFile| file.reread().map_err(|fault| (file.path.clone(), fault));
            file.as_ref().map(anew).transpose()
        };
        Ok(Self {
            ca_file: anew(&self.ca_file)?,
            client_cert: anew(&self.client_cert)?,
            client_key: anew(&self.client_key)?,
            server_name: self.server_name.clone(),
        })
    }

    /// Whether the same files are named, whatever they hold.
    fn names_the_same(&self, other: &Self) -> bool {
        let paths = |it: &Self| {
            [&it.ca_file, &it.client_cert, &it.client_key]
                .map(|file| file.as_ref().map(|file| file.path.clone()))
        };
        paths(self) == paths(other) && self.server_name == other.server_name
    }
}

/// Whether both are off, or name the same files.
pub(super) fn name_the_same(one: Option<&StoreTls>, another: Option<&StoreTls>) -> bool {
    match (one, another) {
        (Some(one), Some(another)) => one.names_the_same(another),
        (one, another) => one.is_none() && another.is_none(),
    }
}

/// Reads the table.
pub(super) fn read(tls: &mut Section<'_>) -> StoreTls {
    const IDENTITY: [&str; 2] = ["client_cert", "client_key"];
    let goes_without = tls.goes_without_pair(IDENTITY);
    let [client_cert, client_key] = IDENTITY
        .map(|key| if goes_without { tls.get(key, text).and(None) } else { tls.pem_file(key) });
    if client_key.is_some() {
        tls.warn_of_key("client_key");
    }
    let read = StoreTls {
        ca_file: tls.pem_file("ca_file"),
        client_cert,
        client_key,
        server_name: tls.get("server_name", server_name),
    };
    let mut is_whole = !tls.is_survey() && !goes_without;
    for (one, other) in [("client_cert", "client_key"), ("client_key", "client_cert")] {
        if tls.has(one) && !tls.has(other) {
            tls.problem(one, format!("is of no use without {other}"), format!("add {other}"));
            is_whole = false;
        }
    }
    // A file that cannot be read was reported, and what it names must not seem to be absent.
    let files = [
        ("ca_file", &read.ca_file),
        ("client_cert", &read.client_cert),
        ("client_key", &read.client_key),
    ];
    is_whole &= files.iter().all(|(key, file)| file.is_some() || !tls.has(key));
    if is_whole && let Err(flaw) = read.client() {
        let remedy = match flaw.key {
            "client_cert" => "name a file of CERTIFICATE blocks in PEM",
            "client_key" => {
                "name the file, in PEM, of the key that client_cert was made with, without a \
                 password; the certificate itself comes first in its file"
            }
            _ => {
                "name a file with the CERTIFICATE blocks, in PEM, of who signed Redis's certificate"
            }
        };
        tls.problem(flaw.key, flaw.what, remedy);
    }
    read
}
