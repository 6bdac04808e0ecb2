//! How spans are sent: OTLP over HTTP, in protobuf. A build without the feature `otlp` has nobody
//! who could, and refuses the configuration that would ask for it.

#[cfg(feature = "otlp")]
mod collector;
#[cfg(feature = "otlp")]
mod encoded;

#[cfg(feature = "otlp")]
pub(super) use self::encoded::Client;
#[cfg(not(feature = "otlp"))]
pub(super) use self::without::Client;

#[cfg(not(feature = "otlp"))]
mod without {
    use crate::config::Traces;
    use crate::observe::Span;

    /// Nobody.
    #[derive(Debug)]
    pub(in crate::telemetry) struct Client;

    impl Client {
        /// There is none.
        pub(in crate::telemetry) fn new(_: &Traces) -> Result<Self, String> {
            Err("this build has no exporter of spans".to_owned())
        }

        /// See [`Self::new`].
        pub(in crate::telemetry) async fn export(&self, _: Vec<Span>) -> Result<(), String> {
            Err("this build has no exporter of spans".to_owned())
        }
    }
}
