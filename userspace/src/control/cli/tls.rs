//! TLS to a handler. One connection, and no second one: what ended the first, often an alert about our certificate, which in
//! TLS 1.3 comes after our side of the handshake is over, would be forgotten with it.
#![forbid(unsafe_code)]

use std::future::{Future, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::Uri;
use tower::Service;

/// What is believed, and what is shown.
///
/// # Errors
/// The option whose file is wrong, and why.
pub(super) fn config(ca: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for der in certificates("--tls-ca", ca)? {
        roots.add(der).map_err(|error| format!("--tls-ca: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("--tls-key: {error}"))?;
            builder
                .with_client_auth_cert(certificates("--tls-cert", certificate)?, key)
                .map_err(|error| format!("--tls-cert, --tls-key: {error}"))?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

fn certificates(option: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("{option}: {error}"))?;
    if all.is_empty() { Err(format!("{option}: there is no certificate in it")) } else { Ok(all) }
}

/// How long a server that lets us in may take to say so.
const FIRST_WORD: Duration = Duration::from_secs(2);

/// Connects once.
pub(super) struct Once {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    is_used: bool,
    ended: Ended,
}

/// What a connection ended with.
type Ended = Arc<Mutex<Option<String>>>;

impl Once {
    pub(super) fn new(config: ClientConfig, name: ServerName<'static>) -> Self {
        Self { config: Arc::new(config), name, is_used: false, ended: Ended::default() }
    }
}

impl Service<Uri> for Once {
    type Response = TokioIo<Heard>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Heard>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        if std::mem::replace(&mut self.is_used, true) {
            let why = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
            return Box::pin(ready(Err(io::Error::other(why.unwrap_or_else(|| "it was closed".to_owned())))));
        }
        let (config, name, ended) = (Arc::clone(&self.config), self.name.clone(), Arc::clone(&self.ended));
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
            let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            let mut stream = TlsConnector::from(config).connect(name, stream).await?;
            // In TLS 1.3 a server judges our certificate after our side of the handshake is over. An HTTP/2 server that lets us
            // in speaks first, so what is heard now is that, or why not.
            let mut first = vec![0; 1024];
            let heard = timeout(FIRST_WORD, stream.read(&mut first)).await;
            let length = match heard {
                Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(result) => result?,
                Err(_) => 0,
            };
            first.truncate(length);
            Ok(TokioIo::new(Heard { first: first.into(), stream, ended }))
        })
    }
}

/// A connection that keeps what it ended with.
pub(super) struct Heard {
    /// What was read of it already.
    first: Bytes,
    stream: TlsStream<TcpStream>,
    ended: Ended,
}

impl AsyncRead for Heard {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.first.is_empty() {
            let length = self.first.len().min(buffer.remaining());
            buffer.put_slice(&self.first.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let result = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let Poll::Ready(Err(error)) = &result {
            self.ended.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.to_string());
        }
        result
    }
}

impl AsyncWrite for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
