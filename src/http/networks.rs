//! Which networks an address belongs to, and which address a request comes from.

use std::net::{IpAddr, SocketAddr};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Networks, some of which may be exceptions from larger ones.
#[derive(Clone, Debug, Default)]
pub struct Networks(Vec<(IpNet, bool)>);

impl Networks {
    /// Networks that are meant (`true`), and that are not.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, bool)>) -> Self {
        Self(networks.into_iter().collect())
    }

    /// The smallest network that an address is in decides. One that is named both ways is not meant.
    pub(super) fn contain(&self, address: IpAddr) -> bool {
        let around = self.0.iter().filter(|(network, _)| network.contains(&address));
        around.max_by_key(|(network, meant)| (network.prefix_len(), !meant)).is_some_and(|(_, meant)| *meant)
    }
}

/// The client behind the proxies that are trusted: each adds whom it was asked by to the end of `X-Forwarded-For`, and what
/// stands before the first that is not trusted may be a lie. `None`: what stands there is no address.
pub(super) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &Networks) -> Option<IpAddr> {
    let mut client = peer.to_canonical();
    let lines = headers.get_all(FORWARDED_FOR).iter().rev();
    let mut hops = lines.flat_map(|line| line.to_str().unwrap_or("?").rsplit(','));
    while proxies.contain(client) {
        let Some(hop) = hops.next() else { break };
        client = address(hop.trim())?.to_canonical();
    }
    Some(client)
}

/// Some proxies name the port as well.
fn address(hop: &str) -> Option<IpAddr> {
    hop.parse().or_else(|_| hop.parse::<SocketAddr>().map(|hop| hop.ip())).ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn networks(text: &str) -> Networks {
        Networks::new(text.split_whitespace().map(|word| match word.strip_prefix('!') {
            Some(network) => (network.parse().unwrap(), false),
            None => (word.parse().unwrap(), true),
        }))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_smallest_network_around_an_address_decides_in_whatever_order_they_are_named() {
        for text in ["10.0.0.0/8 !10.1.0.0/16 10.1.2.0/24", "10.1.2.0/24 !10.1.0.0/16 10.0.0.0/8"] {
            let networks = networks(text);
            for (text, meant) in
                [("10.2.0.1", true), ("10.1.0.1", false), ("10.1.2.3", true), ("11.0.0.1", false), ("::1", false)]
            {
                assert_eq!(networks.contain(address(text)), meant, "{text}");
            }
        }
        assert!(!networks("").contain(address("127.0.0.1")));
        assert!(!networks("::/0 !::/0").contain(address("::1")));
    }

    #[test]
    fn only_a_trusted_proxy_says_whom_it_speaks_for_and_only_what_it_added_counts() {
        let proxies = networks("10.0.0.0/8 fd00::/8");
        let client = |peer: &str, lines: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
            }
            client(address(peer), &headers, &proxies).map(|address| address.to_string())
        };
        for (peer, lines, expected) in [
            ("192.0.2.1", &[][..], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.1"], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["203.0.113.9", "198.51.100.1,10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["not an address, 198.51.100.1"], "198.51.100.1"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["198.51.100.1:4242"], "198.51.100.1"),
            ("10.0.0.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            // Clients from within.
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.7"], "10.0.0.7"),
        ] {
            assert_eq!(client(peer, lines).as_deref(), Some(expected), "{peer} {lines:?}");
        }
        for lines in [&["unknown"][..], &["198.51.100.1, "], &["198.51.100.1:port"], &["198.51.100.1", "_hidden"]] {
            assert_eq!(client("10.0.0.1", lines), None, "{lines:?}");
        }
    }
}
