//! Nobody reaches what is inside by naming it, in whatever way.
//!
//! What is inside are listeners on the loopback addresses of this machine, which count who connects.
//! The public Internet is a server on another loopback address, the only one that the guard allows.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use tokio::net::TcpListener;

use super::names::Names;
use super::outbound::{AMPLE, code, request};
use super::server::{After, Server};
use crate::{GuardConfig, Outbound, OutboundConfig};

/// Where the public Internet is.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Addresses that are not to be reached, by what they are.
const INSIDE_V4: [&str; 32] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.100.100.200",
    "100.127.255.254",
    "127.0.0.1",
    "127.0.0.53",
    "127.255.255.255",
    "169.254.0.1",
    "169.254.169.254",
    "169.254.170.2",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "168.63.129.16",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "254.1.2.3",
    "255.255.255.254",
    "255.255.255.255",
];
const INSIDE_V6: [&str; 40] = [
    "::",
    "::1",
    "::2",
    "::7f00:1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::ffff:0:127.0.0.1",
    "::ffff:0:8.8.8.8",
    "64:ff9b::127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1::8.8.8.8",
    "100::1",
    "100:0:0:1::1",
    "1::1",
    "2001::1",
    "2001:0:7f00:1::1",
    "2001:1::1",
    "2001:2::1",
    "2001:3::1",
    "2001:4:112::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002:7f00:1::1",
    "2002:808:808::1",
    "3ffe::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "8000::1",
    "fc00::1",
    "fd00:ec2::254",
    "fd12:3456::1",
    "fe80::1",
    "fe80::5efe:7f00:1",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "2a00::5efe:10.0.0.1",
];
/// Ports that are no web server's.
const ODD_PORTS: [u16; 18] = [1, 21, 22, 23, 25, 53, 110, 111, 135, 139, 389, 445, 2375, 3306, 5432, 6379, 9200, 65535];

/// The listeners inside, the server outside, whoever answers for names, and the way out.
struct World {
    inside: Vec<Server>,
    outside: Server,
    names: Names,
    outbound: Outbound,
    port: u16,
}

impl World {
    async fn new() -> Self {
        // Everybody has the same port, which another test may have on one of the addresses.
        let (outside, inside) = loop {
            let outside = TcpListener::bind((OUTSIDE, 0)).await.unwrap();
            let port = outside.local_addr().unwrap().port();
            let mut inside = vec![TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await];
            // A machine without IPv6 has one way inside less.
            if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.is_ok() {
                inside.push(TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await);
            }
            if let Ok(inside) = inside.into_iter().collect::<Result<Vec<_>, _>>() {
                break (Server::on(outside), inside.into_iter().map(Server::on).collect());
            }
        };
        let port = outside.port();
        let names = Names::start().await;
        // The port is allowed everywhere, so that it is nobody's reason to be refused.
        let guard = GuardConfig { allow: vec![IpAddr::from(OUTSIDE).into()], ports: vec![port] };
        let config = OutboundConfig { guard: Some(guard), dns: vec![names.address], extra_roots: None };
        Self { inside, outside, names, outbound: Outbound::new(config).unwrap(), port }
    }

    /// The word for what becomes of a request to `url`: its status, or why it has none.
    async fn send(&self, url: &str) -> String {
        match self.outbound.send(request(url), AMPLE).await {
            Ok(response) => response.status.as_u16().to_string(),
            Err(error) => error.code().to_owned(),
        }
    }

    /// Nobody was inside.
    #[track_caller]
    fn check_inside(&self, cases: &str) {
        for server in &self.inside {
            assert_eq!(server.accepted(), 0, "{cases} came through to {}", server.url(""));
        }
    }
}

/// Every way of writing an IPv4 address that some program or other understands.
fn forms(text: &str) -> Vec<String> {
    let ip: Ipv4Addr = text.parse().unwrap();
    let [a, b, c, d] = ip.octets();
    let number = u32::from(ip);
    let (high, low) = (number >> 16, number & 0xffff);
    vec![
        text.to_owned(),
        format!("{text}."),
        format!("{number}"),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("{a:03}.{b:03}.{c:03}.{d:03}"),
        format!("{a}.{}", number & 0x00ff_ffff),
        format!("{a}.{b}.{low}"),
        format!("{a}.{b}.{c}.{d:#x}"),
        text.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        text.replace('.', "%2e"),
        text.replace('.', "。"),
        text.replace('1', "①").replace('0', "０"),
        format!("[{text}]"),
        format!("[::{text}]"),
        format!("[::ffff:{text}]"),
        format!("[::ffff:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:ffff:{high:x}:{low:x}]"),
        format!("[::ffff:0:{text}]"),
        format!("[64:ff9b::{text}]"),
        format!("[64:ff9b:1::{text}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:{high:x}:{low:x}::]"),
        format!("[2a00::5efe:{text}]"),
        format!("[2a00::200:5efe:{text}]"),
        format!("[fe80::{text}%25lo]"),
        format!("user:password@{text}"),
        format!("public.example@{text}"),
    ]
}

#[tokio::test]
async fn two_thousand_ways_of_writing_an_address_inside_lead_nowhere() {
    let world = World::new().await;
    let mut hosts: Vec<String> = INSIDE_V4.into_iter().flat_map(forms).collect();
    hosts.extend(INSIDE_V6.iter().map(|ip| format!("[{ip}]")));
    hosts.extend(["localhost", "LOCALHOST", "localhost.", "a.localhost", "[::1%25lo]", "[::1%lo]"].map(str::to_owned));
    let mut tried = 0;
    for host in hosts {
        for url in [format!("http://{host}:{}/", world.port), format!("https://{host}:{}/", world.port)] {
            let found = world.send(&url).await;
            assert!(["refused_address", "invalid_url"].contains(&found.as_str()), "{url}: {found}");
            // What can be told without asking anybody is told when the URL is configured.
            assert_eq!(world.outbound.check_url(&url).map_err(|error| error.code()), Err(found.as_str()), "{url}");
            tried += 1;
        }
    }
    world.check_inside("one of these ways");
    assert!(tried >= 2000, "there were only {tried} cases");
}

#[tokio::test]
async fn names_that_lead_inside_lead_nowhere() {
    let world = World::new().await;
    let mut tried = 0;
    for ip in INSIDE_V4.iter().chain(&INSIDE_V6) {
        let name = format!("n{tried}.example");
        let alias = format!("a{tried}.example");
        world.names.set(&name, &[&[ip]]);
        world.names.set_alias(&alias, &name);
        for host in [name, alias] {
            let url = format!("http://{host}:{}/", world.port);
            assert_eq!(world.send(&url).await, "refused_address", "{host} leads to {ip}");
            assert!(world.outbound.check_url(&url).is_ok(), "{url}");
        }
        tried += 1;
    }
    assert_eq!(world.send(&format!("http://nowhere.example:{}/", world.port)).await, "dns_failed");
    world.check_inside("one of these names");
    assert_eq!(tried, 72);
}

#[tokio::test]
async fn of_a_name_that_leads_inside_and_outside_only_the_outside_is_reached() {
    let world = World::new().await;
    let outside = OUTSIDE.to_string();
    let url = format!("http://mixed.example:{}/", world.port);
    let mixes: [&[&str]; 5] = [
        &["127.0.0.1", &outside],
        &[&outside, "127.0.0.1"],
        &["::1", &outside],
        &["10.0.0.1", "127.0.0.1", "::1", "::ffff:127.0.0.1", &outside],
        &["127.0.0.1", &outside, "127.0.0.1"],
    ];
    for (index, mix) in mixes.iter().enumerate() {
        world.names.set("mixed.example", &[mix]);
        assert_eq!(world.send(&url).await, "404", "{mix:?}");
        assert_eq!(world.outside.asked(), index + 1, "{mix:?}");
        world.outside.departure().await;
    }
    world.check_inside("a mixed name");

    // The outside does not listen here, and the inside is no substitute.
    let lone = Server::plain().await;
    let guard = GuardConfig { allow: vec![IpAddr::from(OUTSIDE).into()], ports: vec![lone.port()] };
    let config = OutboundConfig { guard: Some(guard), dns: vec![world.names.address], extra_roots: None };
    let url = format!("http://mixed.example:{}/", lone.port());
    assert_eq!(code(&Outbound::new(config).unwrap().send(request(&url), AMPLE).await), "connect_failed");
    assert_eq!(lone.accepted(), 0);
}

#[tokio::test]
async fn many_names_can_be_asked_for_at_once() {
    let world = World::new().await;
    let calls: Vec<_> = (0..500)
        .map(|index| {
            let name = format!("m{index}.example");
            world.names.set(&name, &[&["10.0.0.1"]]);
            let (outbound, url) = (world.outbound.clone(), format!("http://{name}:{}/", world.port));
            tokio::spawn(async move { code(&outbound.send(request(&url), AMPLE).await) })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), "refused_address");
    }
}

/// The attack is to answer the check with a public address and the connection, a moment later, with one inside.
#[tokio::test]
async fn a_name_that_turns_inside_after_the_check_is_connected_to_as_checked() {
    let world = World::new().await;
    let outside = OUTSIDE.to_string();
    for index in 0..50 {
        let name = format!("r{index}.example");
        world.names.set(&name, &[&[&outside], &["127.0.0.1", "::1"]]);
        let url = format!("http://{name}:{}/", world.port);
        assert_eq!(world.send(&url).await, "404");
        assert_eq!((world.outside.asked(), world.names.asked(&name)), (index + 1, 1), "{name}");
        world.outside.departure().await;
        assert_eq!(world.send(&url).await, "refused_address", "{name} was remembered");
    }
    world.check_inside("a name that turned inside");
}

#[tokio::test]
async fn a_kept_connection_stays_where_it_was_judged_and_its_successor_is_judged_anew() {
    let world = World::new().await;
    world.names.set("kept.example", &[&[&OUTSIDE.to_string()], &["127.0.0.1"]]);
    let url = format!("http://kept.example:{}/", world.port);
    world.outside.answer_and("200 OK", "", After::Next);
    for _ in 0..5 {
        assert_eq!(world.send(&url).await, "200");
    }
    world.outside.answer("200 OK", "");
    assert_eq!(world.send(&url).await, "200");
    assert_eq!((world.outside.asked(), world.outside.accepted(), world.names.asked("kept.example")), (6, 1, 1));
    world.outside.departure().await;
    assert_eq!(world.send(&url).await, "refused_address");
    world.check_inside("a successor");
}

#[tokio::test]
async fn redirects_to_the_inside_are_answers() {
    let world = World::new().await;
    world.names.set("inside.example", &[&["127.0.0.1"]]);
    let port = world.port;
    let targets = ["127.0.0.1", "[::1]", "localhost", "inside.example", "0", "2130706433", "[::ffff:127.0.0.1]"];
    for status in [300, 301, 302, 303, 305, 307, 308] {
        for target in targets {
            let location = format!("http://{target}:{port}/");
            let head = format!("HTTP/1.1 {status} Elsewhere\r\nlocation: {location}\r\nrefresh: 0; url={location}");
            world.outside.answer_raw(format!("{head}\r\ncontent-length: 0\r\n\r\n"), After::Next);
            let response = world.outbound.send(request(&world.outside.url("/")), AMPLE).await.unwrap();
            assert_eq!(
                (response.status.as_u16(), response.headers["location"].to_str().unwrap()),
                (status, &*location)
            );
        }
    }
    world.check_inside("a redirect");
    assert_eq!(world.outside.asked(), 49);
}

#[tokio::test]
async fn odd_ports_and_odd_urls_are_refused() {
    let world = World::new().await;
    world.names.set("public.example", &[&["8.8.8.8", "2a00::1"]]);
    for port in ODD_PORTS {
        for host in ["8.8.8.8", "[2a00::1]", "[64:ff9b::8.8.8.8]", "public.example"] {
            assert_eq!(world.send(&format!("http://{host}:{port}/")).await, "refused_port", "{host}:{port}");
        }
    }
    let port = world.port;
    for url in [
        format!("ftp://public.example:{port}/"),
        format!("gopher://127.0.0.1:{port}/"),
        format!("unix://127.0.0.1:{port}/"),
        format!("//127.0.0.1:{port}/"),
        format!("http:127.0.0.1:{port}/"),
        format!("http:/127.0.0.1:{port}/"),
        format!("http:///127.0.0.1:{port}/"),
        format!("http://public.example\\@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}#@public.example/"),
        format!("http://public.example#@127.0.0.1:{port}/"),
        format!("http://public.example:80@127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}\r\n/"),
        format!("http://127.0.0.1 :{port}/"),
        format!(" http://127.0.0.1:{port}/"),
        format!("http://127.0.0.1:{port}\0/"),
        format!("http://127.0.0.1:0{port}/"),
        format!("http://127.0.0.1:+{port}/"),
        format!("http://127.0.0.1:{}/", u32::from(port) + 65536),
        format!("http://127.0.0.1,public.example:{port}/"),
        format!("http://127.0.0.1_.public.example:{port}/"),
    ] {
        assert_eq!(world.send(&url).await, "invalid_url", "{url}");
    }
    world.check_inside("an odd URL");
}

#[tokio::test]
async fn proxies_are_judged_like_everything_else() {
    let world = World::new().await;
    world.names.set("inside.example", &[&["127.0.0.1"]]);
    world.names.set("outside.example", &[&[&OUTSIDE.to_string()], &["127.0.0.1"]]);
    let limit = Duration::from_secs(60);
    for (host, at_once, in_the_end) in [
        ("127.0.0.1", "refused_address", "refused_address"),
        ("::1", "refused_address", "refused_address"),
        ("[::1]", "refused_address", "refused_address"),
        ("localhost", "refused_address", "refused_address"),
        ("127.1", "invalid_url", "invalid_url"),
        ("user@127.0.0.1", "invalid_url", "invalid_url"),
        ("inside.example", "ok", "refused_address"),
        ("outside.example", "ok", "ok"),
        ("outside.example", "ok", "refused_address"),
    ] {
        let found = world.outbound.check_host(host, world.port).map_or_else(|error| error.code(), |()| "ok");
        assert_eq!(found, at_once, "{host}");
        let found = world.outbound.connect(host, world.port, limit).await.map_or_else(|error| error.code(), |_| "ok");
        assert_eq!(found, in_the_end, "{host}");
    }
    world.check_inside("a proxy");
}

#[tokio::test]
async fn what_the_operator_allows_is_reached() {
    let server = Server::plain().await;
    let reach = |allow: &[&str], host: &str| {
        let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
        let guard = GuardConfig { allow, ports: Vec::new() };
        let outbound = Outbound::new(OutboundConfig { guard: Some(guard), ..OutboundConfig::default() }).unwrap();
        let url = format!("http://{host}:{}/", server.port());
        async move { code(&outbound.send(request(&url), AMPLE).await) }
    };
    for (allow, host, expected) in [
        (&["127.0.0.0/8"][..], "127.0.0.1", "ok"),
        (&["127.0.0.1/32"], "127.0.0.1", "ok"),
        (&["127.0.0.2/31"], "127.0.0.1", "refused_address"),
        (&["10.0.0.0/8", "0.0.0.0/0"], "127.0.0.1", "ok"),
        (&["::/0"], "127.0.0.1", "refused_address"),
        (&["127.0.0.0/8"], "[::ffff:127.0.0.1]", "refused_address"),
        (&["127.0.0.0/8"], "127.1", "invalid_url"),
        (&["127.0.0.0/8"], "u:p@127.0.0.1", "invalid_url"),
        // The system's own resolver is asked here.
        (&["127.0.0.0/8"], "localhost", "ok"),
    ] {
        assert_eq!(reach(allow, host).await, expected, "{host} with {allow:?}");
    }
}
