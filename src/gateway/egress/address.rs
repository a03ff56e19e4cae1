//! Which addresses belong to the internet at large, and not to this machine or its neighbours.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use super::Refusal;

/// Azure's metadata and agent service, the one of its kind that has a public address; the others
/// (169.254.169.254, 100.100.100.200, 192.0.0.192, `fd00:ec2::254`) are in private nets.
const AZURE_HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

/// The IPv4 nets that are not globally reachable (IANA's special-purpose registry), multicast,
/// reserved and the retired 6to4 relays.
const CLOSED_V4: &[(Ipv4Addr, u32)] = &[
    (Ipv4Addr::UNSPECIFIED, 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    (AZURE_HOST, 32),
];

/// The nets inside `2000::/3` that are not plain internet: IETF protocols (Teredo, ORCHID,
/// benchmarking and more), documentation, 6to4, which carries any IPv4 address.
const CLOSED_V6: &[(Ipv6Addr, u32)] = &[
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// What IPv6 gives out for global unicast. Everything outside is closed, whatever it may become:
/// loopback, unspecified, link- and site-local, `fc00::/7`, multicast, mapped and compatible IPv4,
/// discard (`100::/64`), `64:ff9b:1::/48`, `5f00::/16` and all that is not assigned.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// NAT64: how a network without IPv4 reaches the IPv4 address in the last 32 bits.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

fn within_v4(address: Ipv4Addr, (net, bits): (Ipv4Addr, u32)) -> bool {
    (address.to_bits() ^ net.to_bits()).leading_zeros() >= bits
}

fn within_v6(address: Ipv6Addr, (net, bits): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ net.to_bits()).leading_zeros() >= bits
}

pub fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !CLOSED_V4.iter().any(|net| within_v4(address, *net)),
        IpAddr::V6(address) if within_v6(address, NAT64) => {
            let [.., a, b, c, d] = address.octets();
            is_global(Ipv4Addr::new(a, b, c, d).into())
        }
        IpAddr::V6(address) => {
            within_v6(address, GLOBAL_V6) && !CLOSED_V6.iter().any(|net| within_v6(address, *net))
        }
    }
}

/// Whether a connection to `address` would end on this machine. Only an address of our own can be
/// bound, so we try; that asks the kernel's own tables, as they are now, and sends nothing. A port
/// forwarded by a router back into its own network cannot be seen from here.
fn is_own(address: IpAddr) -> bool {
    match UdpSocket::bind((address, 0)) {
        Ok(_) => true,
        // Without IPv6 in this kernel there is no such address, and no connection to it either.
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) =>
        {
            false
        }
        Err(error) => error.kind() != io::ErrorKind::AddrNotAvailable,
    }
}

/// The IPv6 nets that we are in. Unlike with IPv4, every device of a home or office has a global
/// address there, and is a neighbour all the same.
fn neighbourhoods() -> io::Result<Vec<(Ipv6Addr, u32)>> {
    match std::fs::read_to_string("/proc/net/if_inet6") {
        Ok(table) => Ok(table.lines().filter_map(neighbourhood).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// `20010db8000000000000000000000001 02 40 00 80 eth0`: address, interface, prefix length, …
fn neighbourhood(line: &str) -> Option<(Ipv6Addr, u32)> {
    let mut fields = line.split_ascii_whitespace();
    let address = u128::from_str_radix(fields.next()?, 16).ok()?;
    let bits = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
    // A net of less than 48 bits is a tunnel's view of the world, not a neighbourhood.
    (48..=128).contains(&bits).then(|| (Ipv6Addr::from_bits(address), bits))
}

/// Refuses an address that no sandbox may be connected to.
pub fn judge(address: IpAddr) -> Result<(), Refusal> {
    if !is_global(address) {
        return Err(Refusal::PrivateAddress);
    }
    if is_own(address) {
        return Err(Refusal::OwnAddress);
    }
    if let IpAddr::V6(address) = address {
        let nets = neighbourhoods().map_err(|_| Refusal::PrivateAddress)?;
        if nets.into_iter().any(|net| within_v6(address, net)) {
            return Err(Refusal::PrivateAddress);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global(text: &str) -> bool {
        is_global(text.parse().expect(text))
    }

    #[test]
    fn closed_nets_are_closed_from_their_first_address_to_their_last() {
        for closed in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.192",
            "192.0.0.255",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.1",
            "203.0.113.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::2",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::127.0.0.1",
            "64:ff9b::10.1.2.3",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::8.8.8.8",
            "64:ff9b:0:0:0:1::",
            "100::1",
            "100:0:0:1::1",
            "2001::1",
            "2001:0:7f00:1::",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff:ffff::",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "feff::1",
            "ff02::1",
            "ffff::1",
            "1fff::1",
        ] {
            assert!(!global(closed), "{closed}");
            assert_eq!(judge(closed.parse().expect("an address")), Err(Refusal::PrivateAddress));
        }
    }

    #[test]
    fn what_lies_beside_them_is_open() {
        for open in [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.0",
            "192.0.3.0",
            "192.88.98.255",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "198.51.99.255",
            "203.0.112.255",
            "203.0.114.0",
            "223.255.255.255",
            "168.63.129.15",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2001:db7::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700::1111",
            "3ffe::1",
            "3fff:1000::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(global(open), "{open}");
        }
    }

    #[test]
    fn what_can_be_bound_is_our_own() {
        for own in ["127.0.0.1", "127.9.9.9"] {
            assert!(is_own(own.parse().expect("an address")), "{own}");
        }
        // Global addresses that are surely not of this machine.
        for strange in ["8.8.8.8", "2001:4860:4860::8888"] {
            assert!(!is_own(strange.parse().expect("an address")), "{strange}");
            assert_eq!(judge(strange.parse().expect("an address")), Ok(()));
        }
    }

    #[test]
    fn the_table_of_our_nets_is_read_as_the_kernel_writes_it() {
        let line = "20014860000100020000000000000042 02 40 00 80     eth0";
        let net = neighbourhood(line).expect("a net");
        assert!(within_v6("2001:4860:1:2::1".parse().expect("an address"), net));
        assert!(!within_v6("2001:4860:1:3::1".parse().expect("an address"), net));
        for other in ["", "x", "20014860 02", "20014860000100020000000000000042 02 10 00 80 tun0"] {
            assert_eq!(neighbourhood(other), None, "{other}");
        }
    }
}
