"""Which addresses a download may connect to: public hosts of the internet, and nothing else.

One rule: this list decides, and `ipaddress` may only refuse more. Its `is_global` differs between Python
versions and takes multicast, 6to4 and NAT64 for public (CVE-2024-4032, measured on 3.11.7).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

# The special-purpose registries of IANA. Besides: the host agent of Azure, which has a public number.
_REFUSED_4 = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32"),
        *("169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24"),
        *("192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
        *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
)
# Outside of it lie the mapped, compatible, translated (NAT64), unique local, link and site local addresses
# and multicast: what reaches an IPv4 address through IPv6 is refused, whichever it is.
_UNICAST_6 = IPv6Network("2000::/3")
_REFUSED_6 = tuple(
    IPv6Network(network)
    for network in (
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
        "3ffe::/16",
    )
)


def is_public(address: str) -> bool:
    """Tell whether this is the address of a public host; what is no plain IP address is not."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if not found.is_global:
        return False
    if isinstance(found, IPv6Address):
        if found.scope_id is not None or found not in _UNICAST_6:
            return False
        return not any(found in network for network in _REFUSED_6)
    return not any(found in network for network in _REFUSED_4)
