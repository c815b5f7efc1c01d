//! Which addresses and ports may be reached on behalf of others.
//!
//! Whoever names a webhook or a proxy makes the gateway connect to it, from where the gateway stands: next to databases,
//! consoles and metadata services that trust whoever can reach them. So only what is on the public Internet may be reached,
//! on the ports that web servers have, and whatever else the operator allows by its network.
//!
//! - IPv4 is refused by a list of networks, because nearly all of it is public; IPv6 by what is not on a list, because little of it is.
//! - An IPv6 address with an IPv4 address inside is refused as such, whatever is inside: such forms are how one writes the
//!   same place differently. The one exception is NAT64's well-known prefix, which DNS makes on machines that have IPv6 only;
//!   it is judged by what is inside. (NAT64 with a prefix of its own has no place inside that could be known.)
//! - Metadata services hand out the machine's own credentials. A wide network that the operator allows does not open them;
//!   one that consists of nothing else does.
//!
//! Nothing here does IO, and a refusal says nothing about who is there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::NetError;
use crate::address::{Address, Host};

/// What may be reached besides the web servers of the public Internet. The default is nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardConfig {
    /// Networks in which every address may be reached, on every port.
    pub allow: Vec<IpNet>,
    /// More ports on which public addresses may be reached.
    pub ports: Vec<u16>,
}

/// Why something may not be reached. What is said is the same for every place that is not public.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The address is none of the public Internet, or the name leads to no other.
    #[error("the address is not public")]
    Address,
    /// The port is none on which web servers are.
    #[error("the port is not allowed")]
    Port,
    /// The way out leads to this machine only, and the address is another's.
    #[error("the address is not a loopback address of this machine")]
    NotLoopback,
}

impl Refusal {
    /// The word for it, which never changes.
    pub fn code(self) -> &'static str {
        match self {
            Self::Address => "refused_address",
            Self::Port => "refused_port",
            Self::NotLoopback => "refused_not_loopback",
        }
    }
}

/// Tells which addresses and ports may be reached.
#[derive(Debug, Clone)]
pub struct Guard {
    config: GuardConfig,
}

/// The ports that web servers have.
const PORTS: [u16; 4] = [80, 443, 8080, 8443];

/// What is not public of IPv4, by the registry of special addresses.
const NOT_PUBLIC_V4: [Ipv4Net; 16] = [
    v4([0, 0, 0, 0], 8),        // this machine
    v4([10, 0, 0, 0], 8),       // private
    v4([100, 64, 0, 0], 10),    // between a provider and its customers
    v4([127, 0, 0, 0], 8),      // loopback
    v4([169, 254, 0, 0], 16),   // link-local, and where most metadata services are
    v4([172, 16, 0, 0], 12),    // private
    v4([192, 0, 0, 0], 24),     // protocols
    v4([192, 0, 2, 0], 24),     // documentation
    v4([192, 88, 99, 0], 24),   // relays of 6to4
    v4([192, 168, 0, 0], 16),   // private
    v4([198, 18, 0, 0], 15),    // benchmarks
    v4([198, 51, 100, 0], 24),  // documentation
    v4([203, 0, 113, 0], 24),   // documentation
    v4([224, 0, 0, 0], 4),      // multicast
    v4([240, 0, 0, 0], 4),      // reserved, with the broadcast at its end
    v4([168, 63, 129, 16], 32), // looks public, and is the host below every machine of Azure
];

/// The one part of IPv6 from which public addresses are given.
const GIVEN_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What is not public of that part.
const NOT_PUBLIC_V6: [Ipv6Net; 5] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23), // protocols, Teredo and ORCHID among them
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), // documentation
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16), // 6to4, which has an IPv4 address inside
    v6([0x3ffe, 0, 0, 0, 0, 0, 0, 0], 16), // given back
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20), // documentation
];

/// NAT64's well-known prefix.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0, 0, 0, 0, 0], 96);

/// Services that hand out a machine's own credentials and secrets, or that a cloud puts into every network.
const METADATA_V4: [Ipv4Addr; 10] = [
    Ipv4Addr::new(169, 254, 169, 254), // nearly every cloud
    Ipv4Addr::new(169, 254, 169, 253), // AWS, names
    Ipv4Addr::new(169, 254, 170, 2),   // AWS, containers
    Ipv4Addr::new(169, 254, 170, 23),  // AWS, pods
    Ipv4Addr::new(169, 254, 0, 23),    // Tencent
    Ipv4Addr::new(169, 254, 42, 42),   // Scaleway
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba
    Ipv4Addr::new(100, 88, 222, 5),    // Alibaba, classic
    Ipv4Addr::new(168, 63, 129, 16),   // Azure
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle
];
const METADATA_V6: [Ipv6Addr; 6] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),   // AWS
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x253),   // AWS, names
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),    // AWS, pods
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),    // Google
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),     // Scaleway
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe), // OpenStack
];

// === impl Guard ===

impl Guard {
    /// A guard that lets through what `config` says besides the public Internet.
    pub fn new(config: GuardConfig) -> Self {
        Self { config }
    }

    /// Tells whether `port` of `ip` may be reached.
    ///
    /// # Errors
    /// If not.
    pub fn judge(&self, ip: IpAddr, port: u16) -> Result<(), Refusal> {
        let mut allowed = self.config.allow.iter().filter(|network| network.contains(&ip));
        if is_metadata(ip) {
            let is_named = allowed.any(|network| network.prefix_len() == network.max_prefix_len());
            return if is_named { Ok(()) } else { Err(Refusal::Address) };
        }
        if allowed.next().is_some() {
            return Ok(());
        }
        if !is_public(ip) {
            return Err(Refusal::Address);
        }
        if self.is_web_port(port) { Ok(()) } else { Err(Refusal::Port) }
    }

    /// Tells whether `host` might be reached on `port`, as far as that can be told without asking where a name leads.
    pub(crate) fn check(&self, host: &Host, port: u16) -> Result<(), Refusal> {
        match host {
            Host::Ip(ip) => self.judge(*ip, port),
            // This name never leads anywhere else, so that nobody has to be asked.
            Host::Name(_) if host.is_localhost() => self
                .judge(Ipv4Addr::LOCALHOST.into(), port)
                .or_else(|refusal| self.judge(Ipv6Addr::LOCALHOST.into(), port).map_err(|_| refusal)),
            // The name may lead into a network in which every port is allowed.
            Host::Name(_) if !self.config.allow.is_empty() || self.is_web_port(port) => Ok(()),
            Host::Name(_) => Err(Refusal::Port),
        }
    }

    /// Tells whether `url` may be configured: whether it is in order, and leads nowhere that is refused without asking
    /// where its name leads. Whatever passes is judged again with every connection.
    ///
    /// # Errors
    /// If it may not.
    pub fn check_url(&self, url: &str) -> Result<(), NetError> {
        let address = Address::parse(url)?;
        self.check(&address.server.host, address.server.port).map_err(NetError::Refused)
    }

    fn is_web_port(&self, port: u16) -> bool {
        PORTS.contains(&port) || self.config.ports.contains(&port)
    }
}

/// Tells whether `ip` is an address of this machine that no other machine can have.
/// An IPv6 address with a loopback address of IPv4 inside is refused, as every such form is.
pub(crate) fn judge_loopback(ip: IpAddr) -> Result<(), Refusal> {
    if ip.is_loopback() { Ok(()) } else { Err(Refusal::NotLoopback) }
}

/// Whether `ip` is an address of a machine on the public Internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) if NAT64.contains(&ip) => last_four(ip).is_some_and(is_public_v4),
        IpAddr::V6(ip) => {
            GIVEN_V6.contains(&ip) && !NOT_PUBLIC_V6.iter().any(|network| network.contains(&ip)) && !is_isatap(ip)
        }
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    !NOT_PUBLIC_V4.iter().any(|network| network.contains(&ip))
}

/// Whether the second half of `ip` says that a router inside is to take the packet to an IPv4 address.
/// No server of the public Internet has such an address, so that what is inside does not matter.
fn is_isatap(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    (parts[4] == 0 || parts[4] == 0x0200) && parts[5] == 0x5efe
}

/// Whether `ip` is a metadata service, in any of the ways of writing it.
fn is_metadata(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => METADATA_V4.contains(&ip),
        IpAddr::V6(ip) => {
            METADATA_V6.contains(&ip) || inside(ip).into_iter().flatten().any(|ip| METADATA_V4.contains(&ip))
        }
    }
}

/// The IPv4 addresses that may be meant by `ip`: at its end in most forms, behind the prefix in 6to4.
fn inside(ip: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let bytes = ip.octets();
    let sixtofour = bytes.starts_with(&[0x20, 0x02]).then(|| Ipv4Addr::new(bytes[2], bytes[3], bytes[4], bytes[5]));
    [last_four(ip), sixtofour]
}

fn last_four(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    ip.octets().last_chunk::<4>().copied().map(Ipv4Addr::from)
}

const fn v4([a, b, c, d]: [u8; 4], length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6([a, b, c, d, e, f, g, h]: [u16; 8], length: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), length)
}

#[cfg(test)]
mod test {
    use super::*;

    fn guard(allow: &[&str], ports: &[u16]) -> Guard {
        let allow = allow.iter().map(|network| network.parse().unwrap()).collect();
        Guard::new(GuardConfig { allow, ports: ports.to_vec() })
    }

    #[track_caller]
    fn check(guard: &Guard, ip: &str, port: u16, expected: Result<(), Refusal>) {
        assert_eq!(guard.judge(ip.parse().unwrap(), port), expected, "{ip} on port {port}");
    }

    #[test]
    fn networks_end_where_they_end() {
        let guard = guard(&[], &[]);
        for (inside, outside) in [
            ("0.255.255.255", "1.0.0.0"),
            ("10.0.0.0", "9.255.255.255"),
            ("10.255.255.255", "11.0.0.0"),
            ("100.64.0.0", "100.63.255.255"),
            ("100.127.255.255", "100.128.0.0"),
            ("127.255.255.255", "128.0.0.0"),
            ("169.254.0.0", "169.253.255.255"),
            ("169.254.255.255", "169.255.0.0"),
            ("172.16.0.0", "172.15.255.255"),
            ("172.31.255.255", "172.32.0.0"),
            ("192.0.0.255", "192.0.1.0"),
            ("192.0.2.0", "192.0.3.0"),
            ("192.88.99.255", "192.88.100.0"),
            ("192.168.0.0", "192.167.255.255"),
            ("192.168.255.255", "192.169.0.0"),
            ("198.18.0.0", "198.17.255.255"),
            ("198.19.255.255", "198.20.0.0"),
            ("198.51.100.255", "198.51.101.0"),
            ("203.0.113.0", "203.0.112.255"),
            ("224.0.0.0", "223.255.255.255"),
            ("255.255.255.255", "8.8.8.8"),
            ("168.63.129.16", "168.63.129.17"),
            ("::", "2606:4700::1111"),
            ("::1", "2001:4860:4860::8888"),
            ("2001:1ff:ffff::1", "2001:200::1"),
            ("2001:db8:ffff::1", "2001:db9::1"),
            ("2002:0808:0808::1", "2003::1"),
            ("3fff:fff::1", "3fff:1000::1"),
            ("1fff::1", "2a00::1"),
            ("4000::1", "3ffd::1"),
            ("2a00::5efe:8.8.8.8", "2a00::5eff:8.8.8.8"),
            ("2a00::200:5efe:8.8.8.8", "2a00::201:5efe:8.8.8.8"),
            ("64:ff9b::10.0.0.1", "64:ff9b::8.8.8.8"),
            ("64:ff9b::168.63.129.16", "64:ff9b::168.63.129.17"),
        ] {
            check(&guard, inside, 443, Err(Refusal::Address));
            check(&guard, outside, 443, Ok(()));
        }
    }

    #[test]
    fn what_is_allowed_is_allowed_on_every_port_and_nothing_else_is() {
        let guard = guard(&["10.1.0.0/16", "fd12::/16", "8.8.8.0/24"], &[9443]);
        for ip in ["10.1.255.255", "fd12::1", "8.8.8.8"] {
            check(&guard, ip, 22, Ok(()));
        }
        check(&guard, "10.2.0.0", 80, Err(Refusal::Address));
        check(&guard, "fd13::1", 80, Err(Refusal::Address));
        // An allowed network means the addresses that it is written with, and no other way of writing them.
        check(&guard, "::ffff:10.1.0.1", 80, Err(Refusal::Address));
        check(&guard, "64:ff9b::10.1.0.1", 80, Err(Refusal::Address));
        for port in [80, 443, 8080, 8443, 9443] {
            check(&guard, "8.8.4.4", port, Ok(()));
        }
        for port in [1, 22, 25, 81, 6379, 9444, 65535] {
            check(&guard, "8.8.4.4", port, Err(Refusal::Port));
        }
    }

    #[test]
    fn metadata_services_are_opened_one_at_a_time() {
        let everything = ["0.0.0.0/0", "::/0"];
        let wide = guard(&everything, &[]);
        let named = guard(&["169.254.169.254/32", "fd00:ec2::254/128", "0.0.0.0/0"], &[]);
        check(&wide, "169.254.1.1", 80, Ok(()));
        for ip in METADATA_V4 {
            for form in [format!("{ip}"), format!("::ffff:{ip}"), format!("64:ff9b::{ip}"), format!("::{ip}")] {
                check(&wide, &form, 80, Err(Refusal::Address));
            }
        }
        check(&wide, "2002:a9fe:a9fe::1", 80, Err(Refusal::Address));
        for ip in METADATA_V6 {
            check(&wide, &ip.to_string(), 80, Err(Refusal::Address));
        }
        check(&named, "169.254.169.254", 80, Ok(()));
        check(&named, "fd00:ec2::254", 80, Ok(()));
        check(&named, "169.254.170.2", 80, Err(Refusal::Address));
    }

    #[test]
    fn loopback_is_what_is_written_as_loopback() {
        for (ip, is_loopback) in [
            ("127.0.0.1", true),
            ("127.0.0.0", true),
            ("127.255.255.255", true),
            ("::1", true),
            ("126.255.255.255", false),
            ("128.0.0.0", false),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("169.254.0.1", false),
            ("192.0.2.1", false),
            ("8.8.8.8", false),
            ("::", false),
            ("::2", false),
            ("::127.0.0.1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:0:127.0.0.1", false),
            ("64:ff9b::127.0.0.1", false),
            ("fe80::1", false),
            ("2606:4700::1111", false),
        ] {
            let expected = if is_loopback { Ok(()) } else { Err(Refusal::NotLoopback) };
            assert_eq!(judge_loopback(ip.parse().unwrap()), expected, "{ip}");
        }
    }

    #[test]
    fn a_url_is_judged_as_far_as_it_can_be_without_asking() {
        let (strict, lenient) = (guard(&[], &[]), guard(&["127.0.0.0/8"], &[]));
        let code = |guard: &Guard, url| guard.check_url(url).map_or_else(|error| error.code(), |()| "ok");
        for (url, by_strict, by_lenient) in [
            ("https://hooks.example/x?y", "ok", "ok"),
            ("https://hooks.example:8443/", "ok", "ok"),
            ("https://hooks.example:22/", "refused_port", "ok"),
            ("http://8.8.8.8/", "ok", "ok"),
            ("http://8.8.8.8:22/", "refused_port", "refused_port"),
            ("http://127.0.0.1:22/", "refused_address", "ok"),
            ("http://[::1]/", "refused_address", "refused_address"),
            ("http://LocalHost:22/", "refused_address", "ok"),
            ("http://a.localhost/", "refused_address", "ok"),
            ("http://10.0.0.1/", "refused_address", "refused_address"),
            ("ftp://8.8.8.8/", "invalid_url", "invalid_url"),
        ] {
            assert_eq!((code(&strict, url), code(&lenient, url)), (by_strict, by_lenient), "{url}");
        }
    }
}
