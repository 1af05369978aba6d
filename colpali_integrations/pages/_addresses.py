"""Connections to public addresses alone: a URL from elsewhere must not reach the services of a private network.

The address that was checked is the one that is connected, so a name cannot be resolved to another one in between.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from contextlib import suppress

__all__ = ["PrivateAddressError", "connect", "is_public", "public_addresses"]

# Networks that are not global, and that some versions of Python take for global; and the metadata service of Azure,
# which has a public address.
_MORE = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",
            "192.88.99.0/24",
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "3fff::/20",
            "5f00::/16",
            "168.63.129.16/32",
        ),
    )
)
# The addresses of IPv4 as hosts without IPv4 see them (RFC 6052).
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class PrivateAddressError(ValueError):
    """A host has no public address."""


def is_public(address: str) -> bool:
    """Whether an address is of the public internet: not of this machine or a private network, multicast or reserved.

    >>> is_public("8.8.8.8"), is_public("10.0.0.1"), is_public("::ffff:127.0.0.1"), is_public("169.254.169.254")
    (True, False, False, False)
    """
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_site_local:
            return False
        ip = ipaddress.IPv4Address(int(ip) & 2**32 - 1) if ip in _NAT64 else ip.ipv4_mapped or ip.sixtofour or ip
    if any(ip in network for network in _MORE if network.version == ip.version):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


def public_addresses(host: str, port: int, *, allow_private: bool = False) -> list[str]:
    """Resolve a host, in any notation of an address, to its addresses.

    Args:
        host: a name or an address.
        port: to be connected.
        allow_private: return all addresses, public or not.

    Raises:
        PrivateAddressError: the host has other addresses only.
        OSError: the name cannot be resolved.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(address[0]) for _, _, _, _, address in found]
    public = [one for one in addresses if allow_private or is_public(one)]
    if not public:
        raise PrivateAddressError(f"{host} is at {addresses[0]}, which is not a public address")
    return public


def connect(host: str, port: int, *, deadline: float, allow_private: bool) -> socket.socket:
    """Connect to a host, at the first of its permitted addresses that answers.

    Args:
        host: a name or an address.
        port: of the service.
        deadline: on the clock of `time.monotonic`.
        allow_private: connect to any address.

    Raises:
        PrivateAddressError: the host has no permitted address.
        OSError: none answers.
    """
    failed = OSError(f"{host} has no address")
    for address in public_addresses(host, port, allow_private=allow_private):
        try:
            connection = socket.create_connection((address, port), max(0.001, deadline - time.monotonic()))
        except OSError as error:
            failed = error
            continue
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection
    raise failed
