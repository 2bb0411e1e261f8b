//! Who may connect, as whom, until when: seen by somebody who tries everything else.

use std::{fs, path::Path, sync::Arc, time::Duration};

use belfry_common::{
    client::{self, ConnectError, connect as member_connect},
    clock,
    identity::{Authority, Identity, JoinToken, Profile, Role, client_config, join_config},
    model::Epoch,
    quic::CloseCode,
    wire::{ALPN, frame::Kind, message::Backlog},
};
use belfry_tests::{
    agent::Agent,
    collector::{Collector, ask},
    fake_collector::FakeCollector,
    hostile::{self, Answer, Live, Stream, connect},
    oracle::Stored,
    samples::{Samples, batch_of},
    wait::{SOON, eventually, timed},
};
use quinn::ConnectionError;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384, SanType};
use rustls::{
    ClientConfig, NamedGroup, RootCertStore,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
    crypto::ring,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use serde_json::json;

const EPOCH: Epoch = Epoch(0xE3);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// TLS as a client that trusts the collector and shows this certificate, or none.
fn tls(authority: &CertificateDer<'static>, shown: Option<(CertificateDer<'static>, &KeyPair)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shown {
        Some((certificate, key)) => {
            let key: PrivateKeyDer<'_> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            config.with_client_auth_cert(vec![certificate], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config
}

/// Says hello and expects the connection to have been refused by TLS.
async fn refused_by_tls(collector: &Collector, tls: ClientConfig, what: &str) {
    let error = match connect(collector.address(), tls).await {
        Err(error) => error,
        Ok(connection) => {
            if let Ok(mut stream) = Stream::open(&connection).await {
                // Refused before it is read: whether it could be sent says nothing.
                drop(stream.message(Kind::Hello, &hostile::hello(EPOCH)).await);
                assert!(stream.answer().await.is_err(), "{what}: an answer");
            }
            hostile::refusal(&connection, SOON).await
        }
    };
    let ConnectionError::ConnectionClosed(close) = &error else { panic!("{what}: {error:?}") };
    // TLS alerts travel as 0x100 and their number (RFC 9001, section 4.8).
    let alert = u64::from(close.error_code) & 0xFF;
    assert!((42..=51).contains(&alert) || alert == 116, "{what}: {error}");
}

fn csr(params: &CertificateParams, key: &KeyPair) -> Vec<u8> {
    params.serialize_request(key).unwrap().der().to_vec()
}

fn profile(name: &str, role: Role, id: u64, life: Duration) -> Profile {
    Profile { name: name.parse().unwrap(), role, id, life }
}

/// Rows 32 and 33: nobody without a certificate of this CA for this purpose and this time gets a byte of the application.
#[tokio::test]
async fn strangers_are_refused_by_tls() {
    let collector = Collector::start().await;
    let node = collector.join("node").await.subject.id;
    let now = clock::now();
    let authority = Authority::open(&collector.data_directory(), now).unwrap();
    let trusted = authority.certificate();
    let key = KeyPair::generate().unwrap();
    let request = csr(&CertificateParams::default(), &key);
    let certify = |authority: &Authority, at| {
        let profile = profile("node", Role::Admin, node, DAY);
        authority.certify(&request, &profile, at).unwrap().certificate
    };

    refused_by_tls(&collector, tls(trusted, None), "no certificate").await;

    let elsewhere = tempfile::tempdir().unwrap();
    let foreign = Authority::open(elsewhere.path(), now).unwrap();
    refused_by_tls(&collector, tls(trusted, Some((certify(&foreign, now), &key))), "foreign CA").await;

    let own = CertificateParams::default().self_signed(&key).unwrap().der().clone();
    refused_by_tls(&collector, tls(trusted, Some((own, &key))), "self-signed").await;

    let server = authority.certify_collector(&key, &[], DAY, now).unwrap().certificate;
    refused_by_tls(&collector, tls(trusted, Some((server, &key))), "server's certificate").await;

    let ca_key = fs::read_to_string(collector.data_directory().join("ca.key.pem")).unwrap();
    let ca_key = KeyPair::from_pem(&ca_key).unwrap();
    refused_by_tls(&collector, tls(trusted, Some((trusted.clone(), &ca_key))), "the CA itself").await;

    let expired = certify(&authority, now.plus_millis(-48 * 3_600_000));
    refused_by_tls(&collector, tls(trusted, Some((expired, &key))), "expired").await;

    let early = certify(&authority, now.plus_millis(48 * 3_600_000));
    refused_by_tls(&collector, tls(trusted, Some((early, &key))), "not yet valid").await;

    let valid = certify(&authority, now);
    let other_key = KeyPair::generate().unwrap();
    let mut stolen = valid.to_vec();
    let last = stolen.len() - 1;
    stolen[last] ^= 1;
    refused_by_tls(&collector, tls(trusted, Some((stolen.into(), &key))), "changed").await;
    assert!(
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_client_auth_cert(vec![valid.clone()], PrivatePkcs8KeyDer::from(other_key.serialize_der()).into())
            .is_err(),
        "a certificate is of no use without its key"
    );

    let unknown = JoinToken::generate(authority.key_sha256(), Role::Agent).unwrap();
    refused_by_tls(&collector, join_config(&unknown).unwrap(), "a token that was never made").await;
    // The same way in is open to who has the right.
    connect(collector.address(), tls(trusted, Some((valid, &key)))).await.unwrap();
}

/// Row 34 and 44: nothing can be resumed and nothing sent early, by a client that wants both.
#[tokio::test]
async fn no_session_is_resumed_and_nothing_is_accepted_early() {
    let collector = Collector::start().await;
    let identity = collector.join("node").await;
    let tickets = Arc::new(Tickets::default());
    let mut tls = client_config(&identity).unwrap();
    tls.resumption = Resumption::store(Arc::clone(&tickets) as Arc<dyn ClientSessionStore>);
    tls.enable_early_data = true;
    for _ in 0..2 {
        let connection = connect(collector.address(), tls.clone()).await.unwrap();
        // A welcome comes after the end of the handshake, and so after any ticket.
        Live::greet(connection, EPOCH).await.unwrap();
    }
    assert!(tickets.asked.load(std::sync::atomic::Ordering::Relaxed) > 0, "the client wanted to resume");
    assert_eq!(tickets.given.load(std::sync::atomic::Ordering::Relaxed), 0, "the collector gave a ticket");
    let config = belfry_common::quic::client_config(tls).unwrap();
    let endpoint = belfry_common::quic::client_endpoint(collector.address()).unwrap();
    let name = belfry_common::identity::COLLECTOR_NAME;
    let connecting = endpoint.connect_with(config, collector.address(), name).unwrap();
    assert!(connecting.into_0rtt().is_err(), "data could be sent before the handshake");
}

#[derive(Debug, Default)]
struct Tickets {
    asked: std::sync::atomic::AtomicUsize,
    given: std::sync::atomic::AtomicUsize,
}

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.given.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        None
    }
}

/// Rows 34, 35 and 36: a revoked node is cut off while it sends, and never comes back: not with a renewed certificate, not
/// with one that was encoded anew, not after a restart of the collector.
#[tokio::test]
async fn a_revoked_node_is_cut_off_and_stays_out() {
    let mut collector = Collector::start().await;
    let identity = collector.join("node").await;
    let renewed = {
        let connection = connect(collector.address(), client_config(&identity).unwrap()).await.unwrap();
        client::certify(&connection, Kind::Renew, "somebody-else").await.unwrap()
    };
    assert_eq!(renewed.subject.name, identity.subject.name, "a renewal keeps the name");
    assert_eq!((renewed.subject.id, renewed.subject.role), (identity.subject.id, Role::Agent));
    assert_ne!(renewed.subject.serial, identity.subject.serial);
    let encoded_anew = Identity { certificate: malleated(&identity.certificate), ..identity.clone() };
    let identities = [("first", identity), ("renewed", renewed), ("encoded anew", encoded_anew)];
    for (what, identity) in &identities {
        Live::open(collector.address(), identity, EPOCH).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    }

    let mut live = Live::open(collector.address(), &identities[0].1, EPOCH).await.unwrap();
    let samples = Samples::new(4, clock::now().plus_millis(-60_000), 100);
    live.store(1, &samples.batch(1)).await;
    collector.admin().ask(json!({"request": "revoke_node", "name": "node"})).await;
    let (took, (code, reason)) = timed(hostile::close_code(&live.connection, SOON)).await;
    assert_eq!(code, CloseCode::Revoked, "{reason}");
    assert!(took < Duration::from_secs(5), "cut off after {took:?}");

    for restarted in [false, true] {
        if restarted {
            collector.kill();
            collector.restart().await;
        }
        for (what, identity) in &identities {
            let connection = connect(collector.address(), client_config(identity).unwrap()).await.unwrap();
            let (code, _) = hostile::close_code(&connection, SOON).await;
            assert_eq!(code, CloseCode::Revoked, "{what}, restarted: {restarted}");
        }
    }
    collector.stop().await;
    assert_eq!(Stored::read(&collector.data_directory()).sequences(identities[0].1.subject.id, EPOCH), [1]);
}

/// The same certificate with the other valid form of its ECDSA signature: r, n - s instead of r, s.
fn malleated(certificate: &CertificateDer<'_>) -> CertificateDer<'static> {
    const ORDER: [u8; 32] = [
        0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xBC, 0xE6, 0xFA, 0xAD,
        0xA7, 0x17, 0x9E, 0x84, 0xF3, 0xB9, 0xCA, 0xC2, 0xFC, 0x63, 0x25, 0x51,
    ];
    let mut at = 0;
    let (_, whole) = der(certificate, &mut at);
    let mut inside = 0;
    let signed: Vec<(u8, &[u8])> = (0..2).map(|_| der(whole, &mut inside)).collect();
    let (_, bits) = der(whole, &mut inside);
    let (_, signature) = der(&bits[1..], &mut 0);
    let mut place = 0;
    let (_, r) = der(signature, &mut place);
    let (_, s) = der(signature, &mut place);
    let mut padded = [0; 32];
    let s = s.strip_prefix(&[0]).unwrap_or(s);
    padded[32 - s.len()..].copy_from_slice(s);
    let mut other = [0; 32];
    let mut borrow = 0_i16;
    for index in (0..32).rev() {
        let difference = i16::from(ORDER[index]) - i16::from(padded[index]) - borrow;
        borrow = i16::from(difference < 0);
        other[index] = difference.rem_euclid(256) as u8;
    }
    let digits = other.iter().position(|&byte| byte != 0).unwrap();
    let mut other = other[digits..].to_vec();
    if other[0] & 0x80 != 0 {
        other.insert(0, 0);
    }
    let signature = [encoded(2, r), encoded(2, &other)].concat();
    let bits = [vec![0], encoded(0x30, &signature)].concat();
    let mut parts: Vec<u8> = signed.iter().flat_map(|(tag, content)| encoded(*tag, content)).collect();
    parts.extend(encoded(3, &bits));
    let changed = encoded(0x30, &parts);
    assert_ne!(changed, certificate.to_vec());
    changed.into()
}

/// The tag and content of the DER value at `at`, which moves behind it.
fn der<'a>(bytes: &'a [u8], at: &mut usize) -> (u8, &'a [u8]) {
    let (tag, first) = (bytes[*at], usize::from(bytes[*at + 1]));
    let (length, head) = match first {
        0x81 => (usize::from(bytes[*at + 2]), 3),
        0x82 => (usize::from(bytes[*at + 2]) << 8 | usize::from(bytes[*at + 3]), 4),
        length => (length, 2),
    };
    let content = &bytes[*at + head..*at + head + length];
    *at += head + length;
    (tag, content)
}

fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let head = match length {
        0..0x80 => vec![tag, length as u8],
        0x80..0x100 => vec![tag, 0x81, length as u8],
        _ => vec![tag, 0x82, (length >> 8) as u8, length as u8],
    };
    [head, content.to_vec()].concat()
}

/// Rows 35 and 42: a certificate that ends on a live connection ends the connection; a real agent renews in time and goes on.
#[tokio::test]
async fn a_certificate_that_ends_closes_the_connection_and_renewal_prevents_it() {
    let life = Duration::from_secs(6);
    let mut collector = Collector::start_with("shipped_rules = false\n[identity]\ncertificate_life = \"6s\"").await;
    let mut agent = Agent::join(&collector, "real", collector.address()).await;
    agent.start();
    let identity = collector.join("hostile").await;
    let mut live = Live::open(collector.address(), &identity, EPOCH).await.unwrap();
    live.store(1, &batch_of(1, "v", 0..1, clock::now(), 1.0)).await;
    let (code, reason) = hostile::close_code(&live.connection, life + Duration::from_secs(5)).await;
    assert_eq!(code, CloseCode::Expired, "{reason}");
    assert!(Live::open(collector.address(), &identity, EPOCH).await.is_err(), "it came back");

    let first = agent.identity.subject.serial.clone();
    let state = agent.state_directory();
    let renewed = eventually("the agent has renewed twice", SOON, async || {
        let now = Identity::load(&state).ok()?.subject;
        (now.serial != first && now.not_before.millis_since(agent.identity.subject.not_after) > 0).then_some(now)
    })
    .await;
    agent.stop().await;
    collector.stop().await;
    let times = Stored::read(&collector.data_directory()).times(renewed.id, "load");
    let longest = times.windows(2).map(|pair| pair[1].millis_since(pair[0])).max().unwrap();
    assert!(longest < 3_000, "renewing left a hole of {longest} ms");
}

/// Row 37: what a node says about itself changes nothing: it is who its certificate says.
#[tokio::test]
async fn a_node_cannot_pass_for_another() {
    let mut collector = Collector::start().await;
    let honest = collector.join("honest").await;
    let liar = collector.join("liar").await;
    let mut first = Live::open(collector.address(), &honest, EPOCH).await.unwrap();
    let samples = Samples::new(5, clock::now().plus_millis(-60_000), 100);
    first.store(1, &samples.batch(1)).await;

    // The other's epoch and numbers are nobody's but the sender's own.
    let mut second = Live::open(collector.address(), &liar, EPOCH).await.unwrap();
    assert_eq!(second.welcome.durable, [], "what another node has is not told");
    second.store(1, &samples.batch(2)).await;
    // An epoch that was not greeted for is nobody's.
    let mut stream = Stream::open(&second.connection).await.unwrap();
    stream.message(Kind::Backlog, &Backlog { epoch: 99 }).await.unwrap();
    assert!(matches!(stream.answer().await.unwrap(), Answer::Failure(_, words) if words.contains("hello")));

    // Labels that belong to the collector are moved aside.
    let mut batch = batch_of(1, "claim", 0..1, clock::now(), 1.0);
    let metric = belfry_common::model::Metric::new(
        "claim",
        belfry_common::model::Kind::Gauge,
        belfry_common::model::Resolution::Float,
        &["instance", "job"],
        "",
    );
    let series = belfry_common::model::SeriesDefinition {
        metric: Arc::new(metric),
        label_values: Box::new(["honest".into(), "other".into()]),
    };
    let layout =
        belfry_common::model::Layout { series: Box::new([Arc::new(series)]), ..(*batch.ticks[0].layout).clone() };
    batch.ticks[0].layout = Arc::new(layout);
    second.store(2, &batch).await;
    let request = json!({"request": "tail", "selectors": ["claim"], "node": null, "since_ms": 60_000});
    let line = collector.admin().follow(&request).await.next(SOON).await.unwrap();
    let labels = json!({"instance": "liar", "job": "belfry", "exported_instance": "honest", "exported_job": "other"});
    assert_eq!(line["labels"], labels);

    collector.stop().await;
    let stored = Stored::read(&collector.data_directory());
    assert_eq!(stored.sequences(honest.subject.id, EPOCH), [1]);
    assert_eq!(stored.sequences(liar.subject.id, EPOCH), [1, 2]);
}

/// Row 38: a fake collector learns nothing from a token, and the newcomer is told.
#[tokio::test]
async fn a_fake_collector_is_refused_before_anything_is_said() {
    let collector = Collector::start().await;
    let token = collector.token().await;
    let elsewhere = tempfile::tempdir().unwrap();
    let fake = FakeCollector::start(elsewhere.path());
    let address = fake.address().to_string();
    let (accepted, joined) = tokio::join!(fake.accept_once(), client::join(&token, &address, "node"));
    assert!(accepted.is_err(), "the handshake succeeded");
    assert!(matches!(joined, Err(ConnectError::WrongAuthority { .. })), "{joined:?}");
    // The token is still good where it belongs.
    let identity = client::join(&token, &collector.address().to_string(), "node").await.unwrap();
    // So is a member's trust: a fake at the collector's address gets nothing from an agent either.
    let (accepted, connected) =
        tokio::join!(fake.accept_once(), member_connect(&address, client_config(&identity).unwrap()));
    assert!(accepted.is_err() && matches!(connected, Err(ConnectError::WrongAuthority { .. })), "{connected:?}");
}

/// Row 39: a token counts for its uses, its time and its names, until it is revoked; the collector keeps its hash only.
#[tokio::test]
async fn a_token_cannot_be_used_beyond_what_it_is_for() {
    let mut collector = Collector::start().await;
    let admin = collector.admin();
    let address = collector.address().to_string();
    let wish =
        |uses: u32, ttl_ms: u64, names: &str| json!({"role": "agent", "uses": uses, "ttl_ms": ttl_ms, "names": names});
    let refused = async |token: &JoinToken, name: &str, words: &str| {
        let error = client::join(token, &address, name).await.unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
    };

    let once = admin.token(wish(1, 3_600_000, "*")).await;
    let joins = (0..8).map(|number| {
        let (token, address) = (once.clone(), address.clone());
        async move { client::join(&token, &address, &format!("racer-{number}")).await }
    });
    let mut racers = tokio::task::JoinSet::new();
    for join in joins {
        racers.spawn(join);
    }
    let won = racers.join_all().await.iter().filter(|joined| joined.is_ok()).count();
    assert_eq!(won, 1, "one use is one use, also at the same moment");
    refused(&once, "late", "used").await;

    let scoped = admin.token(wish(5, 3_600_000, "gpu-*")).await;
    refused(&scoped, "web-1", "gpu-*").await;
    refused(&scoped, "../../x", "not valid").await;
    client::join(&scoped, &address, "gpu-1").await.unwrap();
    refused(&scoped, "gpu-1", "already enrolled").await;

    let revoked = admin.token(wish(5, 3_600_000, "*")).await;
    let tokens = admin.ask(json!({"request": "tokens"})).await;
    let unused = tokens.as_array().unwrap().iter().find(|token| token["uses_left"] == 5).unwrap();
    admin.ask(json!({"request": "revoke_token", "id": unused["id"]})).await;
    refused(&revoked, "node", "revoked").await;

    let brief = admin.token(wish(5, 1, "*")).await;
    refused(&brief, "node", "expired").await;

    collector.kill();
    for token in [&once, &scoped, &revoked, &brief] {
        assert!(!is_anywhere(&collector.data_directory(), token.reveal().as_bytes()), "a token is on disk");
    }
    collector.restart().await;
    let address = collector.address().to_string();
    for (token, words) in [(&once, "used"), (&revoked, "revoked"), (&brief, "expired")] {
        let error = client::join(token, &address, "again").await.unwrap_err().to_string();
        assert!(error.contains(words), "after a restart: {error}");
    }
}

fn is_anywhere(directory: &Path, needle: &[u8]) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_anywhere(&path, needle);
        }
        fs::read(&path).unwrap().windows(needle.len()).any(|window| window == needle)
    })
}

/// Row 40: a request that asks to be an authority, an administrator and somebody else gets what its token gives.
#[tokio::test]
async fn a_greedy_certificate_request_gets_what_the_token_gives() {
    let collector = Collector::start().await;
    let token = collector.token().await;
    let mut params = CertificateParams::new(vec!["collector.belfry".into()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "local-admin");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "admin");
    params.subject_alt_names.push(SanType::DnsName("victim".try_into().unwrap()));
    let key = KeyPair::generate().unwrap();
    let greedy = csr(&params, &key);

    let connect_with_token = async || connect(collector.address(), join_config(&token).unwrap()).await.unwrap();
    let mut forged = greedy.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap();
    for (request, words) in [
        (forged, "malformed or not signed"),
        (vec![0x30; 300], "malformed or not signed"),
        (csr(&CertificateParams::default(), &p384), "unsupported kind"),
    ] {
        let connection = connect_with_token().await;
        let error = hostile::certify(&connection, Kind::Join, "node", &request).await.unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    // What was refused has not used the token up.
    let connection = connect_with_token().await;
    let certified = hostile::certify(&connection, Kind::Join, "node", &greedy).await.unwrap();
    let certificate = CertificateDer::from(certified.certificate);
    let authorities = certified.authorities.into_iter().map(CertificateDer::from).collect();
    let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let identity = Identity::new(private, certificate.clone(), authorities).unwrap();
    assert_eq!((identity.subject.name.as_str(), identity.subject.role), ("node", Role::Agent));
    for wish in [&b"local-admin"[..], b"victim", b"collector.belfry"] {
        assert!(!certificate.windows(wish.len()).any(|window| window == wish), "{}", String::from_utf8_lossy(wish));
    }
    let is_ca = [0x55, 0x1D, 0x13];
    let constraints = certificate.windows(3).position(|window| window == is_ca);
    assert!(constraints.is_none(), "a leaf needs no basic constraints, and CA:true would be there");
    let denied = ask(&identity, collector.address(), &json!({"request": "tokens"})).await.unwrap_err().to_string();
    assert!(denied.contains("admin") && denied.contains("agent"), "{denied}");
}

/// Row 62: each role is held to what it may do, and an attempt is written down.
#[tokio::test]
async fn a_viewer_cannot_administrate_and_the_attempt_is_noted() {
    let collector = Collector::start().await;
    let viewer = collector.join_as("viewer", "eve").await;
    ask(&viewer, collector.address(), &json!({"request": "nodes"})).await.unwrap();
    let create = json!({"request": "create_token", "role": "admin", "ttl_ms": 1000, "uses": 1, "names": "*"});
    for request in [create, json!({"request": "revoke_node", "name": "x"}), json!({"request": "reload_rules"})] {
        let denied = ask(&viewer, collector.address(), &request).await.unwrap_err();
        assert!(denied.to_string().contains("has the role viewer"), "{denied}");
    }
    let refused = Live::open(collector.address(), &viewer, EPOCH).await.unwrap_err();
    assert!(refused.contains("only agents send batches"), "{refused}");
    let audit = collector.admin().ask(json!({"request": "audit", "count": 10})).await;
    let denied = audit.as_array().unwrap().iter().filter(|row| row["actor"] == "eve" && row["outcome"] == "denied");
    assert_eq!(denied.count(), 4, "{audit}");
}
