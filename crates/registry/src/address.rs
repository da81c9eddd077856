//! Which addresses the operator contacts on behalf of tenants, who choose registries, token services and sources.
//!
//! Pure: names are resolved elsewhere, and the address that was judged here is the one that is dialled.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

pub use ipnet::IpNet;

/// What is refused beside the addresses that are never meant for others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Everything but `deny` may be contacted.
    pub allow_private: bool,
    /// Ranges that are never contacted.
    pub deny: Vec<IpNet>,
    /// Addresses of the API server.
    pub api_server: BTreeSet<IpAddr>,
}

/// Why an address is not contacted. The texts name no address: who reads them may not know what a name resolves to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refused {
    /// `0.0.0.0/8` and `::`, which reach the machine itself.
    #[error("an unspecified address, which is not contacted")]
    Unspecified,
    /// `127.0.0.0/8` and `::1`.
    #[error("a loopback address, which is not contacted")]
    Loopback,
    /// `169.254.0.0/16` and `fe80::/10`: where clouds keep their nodes' credentials.
    #[error("a link-local address, which is not contacted")]
    LinkLocal,
    /// A cloud's metadata service outside the link-local ranges.
    #[error("an address of a metadata service, which is not contacted")]
    Metadata,
    /// `224.0.0.0/4`, `ff00::/8` and the broadcast address.
    #[error("a multicast address, which is not contacted")]
    Multicast,
    /// The API server, which might take the operator's place in the network for a right.
    #[error("an address of the API server, which is not contacted")]
    ApiServer,
    /// A range of `--deny-cidr`.
    #[error("an address of a denied range, which is not contacted")]
    Denied,
}

/// Metadata services that are not link-local: of Alibaba Cloud, Azure, and of AWS and Google Cloud over IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    // EKS Pod Identity; over IPv4 it is link-local.
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Whether the address may be contacted. Private ranges may: registries live there.
pub fn may_contact(ip: IpAddr, policy: &Policy) -> Result<(), Refused> {
    for ip in [Some(ip), inner_v4(ip).map(IpAddr::V4)].into_iter().flatten() {
        if policy.deny.iter().any(|range| range.contains(&ip)) {
            return Err(Refused::Denied);
        }
        if !policy.allow_private {
            may_be_a_tenants_choice(ip, policy)?;
        }
    }
    Ok(())
}

fn may_be_a_tenants_choice(ip: IpAddr, policy: &Policy) -> Result<(), Refused> {
    let (unspecified, link_local, broadcast) = match ip {
        IpAddr::V4(v4) => (v4.octets()[0] == 0, v4.is_link_local(), v4.is_broadcast()),
        IpAddr::V6(v6) => (v6.is_unspecified(), v6.is_unicast_link_local(), false),
    };
    let refused = [
        (policy.api_server.contains(&ip), Refused::ApiServer),
        (unspecified, Refused::Unspecified),
        (ip.is_loopback(), Refused::Loopback),
        (link_local, Refused::LinkLocal),
        (METADATA.contains(&ip), Refused::Metadata),
        (ip.is_multicast() || broadcast, Refused::Multicast),
    ];
    match refused.into_iter().find(|(is, _)| *is) {
        Some((_, why)) => Err(why),
        None => Ok(()),
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped (`::ffff:0:0/96`), translated (`64:ff9b::/96`, RFC 6052; in a
/// network of its own `64:ff9b:1::/48`, RFC 8215, by its last 32 bits; `::ffff:0:0:0/96`, RFC 2765), tunnelled (`2002::/16`, RFC 3056) or, as it was once written, compatible (`::/96`).
fn inner_v4(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = ip else { return None };
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x2002, high, low, ..] => Some(of(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn policy() -> Policy {
        Policy {
            allow_private: false,
            deny: vec!["10.9.0.0/16".parse().unwrap(), "fd09::/32".parse().unwrap()],
            api_server: ["10.96.0.1", "192.168.7.1", "fd00::1"]
                .map(|ip| ip.parse().unwrap())
                .into(),
        }
    }

    #[test]
    fn what_is_meant_for_nobody_else_is_refused() {
        use Refused::{ApiServer, Denied, LinkLocal, Loopback, Metadata, Multicast, Unspecified};
        let table = [
            ("93.184.216.34", Ok(())),
            ("2606:2800:220:1::1", Ok(())),
            // Private ranges: registries live there.
            ("10.77.0.2", Ok(())),
            ("172.16.0.1", Ok(())),
            ("192.168.7.2", Ok(())),
            ("100.64.0.1", Ok(())),
            ("fd00::2", Ok(())),
            ("::ffff:10.77.0.2", Ok(())),
            ("0.0.0.0", Err(Unspecified)),
            ("0.1.2.3", Err(Unspecified)),
            ("::", Err(Unspecified)),
            ("::ffff:0.0.0.0", Err(Unspecified)),
            ("127.0.0.1", Err(Loopback)),
            ("127.255.255.254", Err(Loopback)),
            ("::1", Err(Loopback)),
            ("::ffff:127.0.0.1", Err(Loopback)),
            ("::127.0.0.1", Err(Loopback)),
            ("64:ff9b::7f00:1", Err(Loopback)),
            ("64:ff9b:1::7f00:1", Err(Loopback)),
            ("64:ff9b:1:2:3:4:a9fe:a9fe", Err(LinkLocal)),
            ("64:ff9b:1::a4d:2", Ok(())),
            ("::ffff:0:127.0.0.1", Err(Loopback)),
            ("::ffff:0:169.254.169.254", Err(LinkLocal)),
            ("2002:7f00:1::", Err(Loopback)),
            ("169.254.169.254", Err(LinkLocal)),
            ("::ffff:169.254.169.254", Err(LinkLocal)),
            ("fe80::1", Err(LinkLocal)),
            ("febf::1", Err(LinkLocal)),
            ("168.63.129.16", Err(Metadata)),
            ("fd00:ec2::254", Err(Metadata)),
            ("fd00:ec2::23", Err(Metadata)),
            ("224.0.0.1", Err(Multicast)),
            ("239.255.255.255", Err(Multicast)),
            ("255.255.255.255", Err(Multicast)),
            ("ff02::1", Err(Multicast)),
            ("::ffff:224.0.0.1", Err(Multicast)),
            ("10.96.0.1", Err(ApiServer)),
            ("::ffff:10.96.0.1", Err(ApiServer)),
            ("192.168.7.1", Err(ApiServer)),
            ("fd00::1", Err(ApiServer)),
            ("10.9.1.2", Err(Denied)),
            ("::ffff:10.9.1.2", Err(Denied)),
            ("fd09::5", Err(Denied)),
        ];
        for (ip, expected) in table {
            assert_eq!(may_contact(ip.parse().unwrap(), &policy()), expected, "{ip}");
        }
    }

    #[test]
    fn denied_ranges_alone_stand_against_a_permission() {
        let policy = Policy {
            allow_private: true,
            ..policy()
        };
        for ip in ["127.0.0.1", "169.254.169.254", "10.96.0.1", "::1", "10.77.0.2"] {
            assert_eq!(may_contact(ip.parse().unwrap(), &policy), Ok(()), "{ip}");
        }
        for ip in ["10.9.0.1", "::ffff:10.9.0.1", "64:ff9b::a09:1"] {
            assert_eq!(
                may_contact(ip.parse().unwrap(), &policy),
                Err(Refused::Denied),
                "{ip}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_spelling_of_an_address_is_judged_otherwise(ip in any::<Ipv4Addr>()) {
            let plain = may_contact(IpAddr::V4(ip), &policy());
            prop_assert_eq!(may_contact(IpAddr::V6(ip.to_ipv6_mapped()), &policy()), plain);
        }
    }
}
