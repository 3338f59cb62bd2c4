//! Reads a cluster as client-go's reflectors do: three kinds, each listed whole from the watch cache and then watched, on a
//! connection each.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// By which the server tells the informer's requests from others.
pub const TOKEN: &str = "Bearer informer";
/// The same for those that list everything again and again.
pub const FLOOD: &str = "Bearer flood";
const PATHS: [&str; 3] = ["/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices", "/api/v1/namespaces"];
/// Pauses after a failure, as client-go has them.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(800), Duration::from_secs(30));

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

fn request(address: SocketAddr, path: &str, token: &str) -> anyhow::Result<Request<Empty<Bytes>>> {
    let request = Request::get(path).header("host", address.to_string()).header("accept", "application/json");
    Ok(request.header("authorization", token).body(Empty::new())?)
}

/// Lists one kind; the version of the list.
async fn list(address: SocketAddr, path: &str, token: &str) -> anyhow::Result<(SendRequest<Empty<Bytes>>, String)> {
    let mut sender = connect(address).await?;
    let answer = sender.send_request(request(address, &format!("{path}?resourceVersion=0"), token)?).await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    let body = answer.into_body().collect().await?.to_bytes();
    let list: serde_json::Value = serde_json::from_slice(&body)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a version")?.to_owned();
    Ok((sender, version))
}

/// Lists all kinds; how long that took. Each is watched from then on.
pub async fn ready(address: SocketAddr) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    let kinds = PATHS.map(|path| async move {
        let mut pause = BACKOFF.0;
        let (mut sender, version) = loop {
            if let Ok(listed) = list(address, path, TOKEN).await {
                break listed;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(1.0..=2.0))).await;
            pause = (pause * 2).min(BACKOFF.1);
        };
        let watch = format!("{path}?watch=true&allowWatchBookmarks=true&timeoutSeconds=400&resourceVersion={version}");
        let watch = request(address, &watch, TOKEN)?;
        tokio::spawn(async move {
            let mut body = sender.send_request(watch).await?.into_body();
            while body.frame().await.is_some() {}
            anyhow::Ok(())
        });
        anyhow::Ok(())
    });
    futures::future::try_join_all(kinds).await?;
    Ok(begun.elapsed())
}

/// Lists all endpoints again and again.
pub async fn flood(address: SocketAddr) {
    loop {
        if list(address, PATHS[1], FLOOD).await.is_err() {
            tokio::time::sleep(BACKOFF.0).await;
        }
    }
}
