//! A web server with one page, and a client for it and for the router's own endpoint.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::exchange::{bounded, connect};
use crate::server::SILENCE;
use crate::{Namespace, Result, Server};

/// The longest body that the client takes, in bytes.
const LONGEST_BODY: usize = 16 << 20;

/// A web server's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The body, at most 16 MiB.
    pub body: Vec<u8>,
}

impl HttpResponse {
    /// The body as text; what is no UTF-8 is replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Server {
    /// A web server that answers every request with this body.
    pub fn http(namespace: &Namespace, at: impl ToSocketAddrs, body: impl Into<Vec<u8>>) -> Result<Self> {
        let body = Bytes::from(body.into());
        Self::tcp(namespace, "http", at, move |stream| {
            let body = body.clone();
            let answer = hyper::service::service_fn(move |_: Request<Incoming>| {
                let response = Response::new(Full::new(body.clone()));
                async { Ok::<_, Infallible>(response) }
            });
            async move {
                hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(SILENCE)
                    .serve_connection(TokioIo::new(stream), answer)
                    .await
                    .map_err(io::Error::other)
            }
        })
    }
}

/// Fetches `http://TARGET/PATH` by one HTTP/1.1 request on a connection of its own.
pub fn http_get(
    namespace: &Namespace,
    target: SocketAddr,
    path: &str,
    limit: Duration,
) -> Result<HttpResponse> {
    bounded(namespace, &format!("fetching http://{target}{path}"), limit, async {
        let stream = connect(None, target).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        let request = Request::get(path)
            .header("host", target.to_string())
            .header("connection", "close")
            .body(Full::<Bytes>::default())
            .map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        let status = response.status().as_u16();
        let body =
            Limited::new(response.into_body(), LONGEST_BODY).collect().await.map_err(io::Error::other)?;
        driver.abort();
        Ok(HttpResponse { status, body: body.to_bytes().to_vec() })
    })
}
