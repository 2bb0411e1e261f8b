//! Who may ask over HTTP: on this machine everybody, from elsewhere who shows a token, over TLS.

use std::{
    fs,
    io::Read as _,
    net::{SocketAddr, TcpStream},
    path::Path,
};

use belfry_tests::{
    cli::{Cli, assert_fields, assert_time},
    collector::Collector,
    http::{ask_tls, get},
    wait::{SOON, eventually},
};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};

/// A collector that serves HTTP to everybody.
async fn open_to_all() -> Collector {
    let mut collector = Collector::prepare("shipped_rules = false");
    collector.serve_http_on(([0, 0, 0, 0], 0).into());
    collector.restart().await;
    collector
}

fn authority(collector: &Collector) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(collector.data_directory().join("ca.pem")).unwrap()
}

/// The status of what is at a path, and its body.
fn ask(collector: &Collector, path: &str, token: Option<&str>) -> (u16, String) {
    let token = token.map_or_else(String::new, |token| format!("Authorization: Bearer {token}\r\n"));
    let request = format!("GET {path} HTTP/1.0\r\n{token}\r\n");
    let (head, body) = ask_tls(collector.http_address(), &authority(collector), &request).unwrap();
    if head.starts_with("HTTP/1.0 401") {
        assert!(head.to_ascii_lowercase().contains("\r\nwww-authenticate: bearer"), "{head}");
    }
    (head.split_whitespace().nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap())
}

/// The words of a refusal.
fn refusal(collector: &Collector, token: Option<&str>) -> String {
    let (status, body) = ask(collector, "/api/v1/query?query=1", token);
    let answer: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &answer["status"], &answer["errorType"]), (401, &json!("error"), &json!("unauthorized")));
    answer["error"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn beyond_this_machine_only_a_token_opens() {
    let collector = open_to_all().await;
    let cli = Cli::admin(&collector);
    assert_eq!(get(collector.http_address(), "/metrics"), None, "there is no plain HTTP");
    assert_eq!(ask(&collector, "/-/healthy", None).0, 200);
    assert!(refusal(&collector, None).contains("belfry token create --http"));
    assert!(refusal(&collector, Some("belfry-http-none")).contains("not known"));

    let created = cli.json(&["token", "create", "--http", "grafana", "--ttl", "30d"]).await;
    assert_fields(&created, "id token name role expires_at url");
    assert_time(&created["expires_at"]);
    assert_eq!((&created["name"], &created["role"]), (&json!("grafana"), &json!("viewer")));
    assert!(created["url"].as_str().unwrap().starts_with("https://"), "{created}");
    let (id, token) = (created["id"].as_str().unwrap(), created["token"].as_str().unwrap());
    for path in ["/api/v1/query?query=1", "/federate?match[]=up", "/metrics"] {
        assert_eq!(ask(&collector, path, Some(token)).0, 200, "{path}");
        assert_eq!(ask(&collector, path, None).0, 401, "{path}");
    }
    let listed = cli.json(&["token", "list"]).await;
    assert_fields(&listed[0], "id role names uses_left uses_total expires_at created_at created_by state kind");
    assert_eq!((&listed[0]["kind"], &listed[0]["uses_left"]), (&json!("http"), &Value::Null));
    assert!(!cli.done(&["token", "list", "-o", "json"]).await.contains(token));

    assert_eq!(cli.done(&["token", "revoke", id]).await, format!("revoked: token {id}\n"));
    assert!(refusal(&collector, Some(token)).contains("revoked"));
    // Once each, however often it was shown.
    let rows = collector.admin().ask(json!({"request": "audit", "count": 100})).await;
    let rows = rows.as_array().unwrap().iter().filter(|row| row["action"] == "http");
    let mut outcomes: Vec<&str> = rows.map(|row| row["outcome"].as_str().unwrap()).collect();
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["denied", "ok"]);
}

#[tokio::test]
async fn a_token_outlives_a_restart_and_ends_when_its_time_is_over() {
    let mut collector = open_to_all().await;
    let cli = Cli::admin(&collector);
    let create = async |ttl: &str| {
        let created = cli.json(&["token", "create", "--http", "prometheus", "--ttl", ttl]).await;
        created["token"].as_str().unwrap().to_owned()
    };
    let (long, short) = (create("1h").await, create("1s").await);
    collector.stop().await;
    collector.restart().await;
    assert_eq!(ask(&collector, "/metrics", Some(&long)).0, 200);
    let expired = async || (ask(&collector, "/metrics", Some(&short)).0 == 401).then_some(());
    eventually("the token expires", SOON, expired).await;
    assert!(refusal(&collector, Some(&short)).contains("expired"));

    let error = cli.run(&["token", "create", "--http", "x", "--role", "agent"]).await.refused(2);
    assert!(error.contains("agents do not ask over HTTP"), "{error}");
    let error = cli.run(&["token", "create", "--http", "x", "--ttl", "400d"]).await.refused(2);
    assert!(error.contains("at most a year"), "{error}");
}

#[tokio::test]
async fn a_certificate_from_a_file_is_shown_and_renewed() {
    let mut collector = Collector::prepare("");
    let directory = collector.scratch().to_path_buf();
    let path = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    let config = format!(
        "shipped_rules = false\nhttp_certificate = {:?}\nhttp_key = {:?}",
        path("http.pem"),
        path("http.key.pem")
    );
    collector.configure(&config);
    let error = collector.refuse_to_start().await;
    assert!(error.contains("http.pem"), "{error}");
    let first = certificate(&directory);
    fs::rename(path("http.key.pem"), path("first.key.pem")).unwrap();
    certificate(&directory);
    fs::rename(path("first.key.pem"), path("http.key.pem")).unwrap();
    let error = collector.refuse_to_start().await;
    assert!(error.contains("is not that of certificate"), "{error}");

    drop(first);
    let first = certificate(&directory);
    collector.restart().await;
    let is_shown = |authority: &CertificateDer<'static>, address: SocketAddr| {
        ask_tls(address, authority, "GET /-/healthy HTTP/1.0\r\n\r\n").is_ok_and(|(head, _)| head.contains("200"))
    };
    let address = collector.http_address();
    assert!(is_shown(&first, address));
    assert_eq!(ask_with(&first, address), 401, "with TLS, this machine needs a token, too");
    let second = certificate(&directory);
    eventually("the new one is shown", SOON, async || is_shown(&second, address).then_some(())).await;
    assert!(!is_shown(&first, address));
    // What is no certificate leaves the last one in force.
    fs::write(path("http.pem"), "nothing").unwrap();
    eventually("it is refused", SOON, async || collector.process().log().contains("the old one stays").then_some(()))
        .await;
    assert!(is_shown(&second, address));
}

fn ask_with(authority: &CertificateDer<'static>, address: SocketAddr) -> u16 {
    let (head, _) = ask_tls(address, authority, "GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    head.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Puts a certificate for `localhost` and its key into a directory.
fn certificate(directory: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(directory.join("http.key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(directory.join("http.pem"), made.cert.pem()).unwrap();
    made.cert.der().clone()
}

#[tokio::test]
async fn an_address_that_holds_connections_is_bounded_and_let_go_of() {
    let collector = open_to_all().await;
    let address = collector.http_address();
    let held: Vec<TcpStream> = (0..128).map(|_| TcpStream::connect(address).unwrap()).collect();
    let mut beyond = TcpStream::connect(address).unwrap();
    beyond.set_read_timeout(Some(SOON)).unwrap();
    assert!(matches!(beyond.read(&mut [0; 1]), Ok(0) | Err(_)), "one too many is closed");
    // Who does not even begin a handshake is not waited for.
    let free = async || ask_tls(address, &authority(&collector), "GET /-/healthy HTTP/1.0\r\n\r\n").ok();
    eventually("there is room again", SOON, free).await;
    drop(held);
}
