"""What an address of each personal channel looks like, and which hosts are none of our own network."""

import ipaddress
import json
import re
from typing import Any, Final
from urllib.parse import urlsplit

CHAT_SCHEMES: Final = ("wecombot", "dingtalk", "feishu", "lark")
"""Bots that a person may name: services with hosts of their own, so nobody makes us send into our own network."""
ADDRESS_CHARACTERS_MAX: Final = 2000

_NUMBER: Final = re.compile(r"\+?[0-9]{5,20}")
_MAIL: Final = re.compile(r"[^\s@<>,;\"]{1,64}@[A-Za-z0-9.-]{1,190}\.[A-Za-z0-9-]{2,63}")
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Whether this IP address belongs to the internet: not private, loopback, link-local, shared or reserved."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is not None:
            return is_public(str(inner))
        if parsed in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)))
    return parsed.is_global and not parsed.is_multicast


def checked(channel: str, address: str, *, allow_private: bool = False) -> str:
    """The address as it is stored. Raises ValueError, which says what is wrong with it."""
    address = address.strip()
    if not address or len(address) > ADDRESS_CHARACTERS_MAX:
        raise ValueError("the address is empty or too long")
    if channel in {"sms", "voice"}:
        plain = re.sub(r"[\s().-]", "", address)
        if not _NUMBER.fullmatch(plain):
            raise ValueError("a telephone number has 5 to 20 digits, with + and the country in front")
        return plain
    if channel == "mail":
        if not _MAIL.fullmatch(address):
            raise ValueError("this is no mail address")
        return address
    if channel == "chat":
        check_chat(address)
        return address
    return _push(address, allow_private=allow_private)


def check_chat(address: str) -> None:
    """Raises ValueError for anything but a bot of `CHAT_SCHEMES`."""
    if address.partition("://")[0] not in CHAT_SCHEMES:
        raise ValueError(f"a chat address begins with {', '.join(f'{one}://' for one in CHAT_SCHEMES)}")


def shown(channel: str, address: str, *, to_owner: bool) -> str:
    """An address for people: a push service by its host, a bot without its secrets, others' numbers by their end."""
    if channel == "push":
        return urlsplit(str(json.loads(address)["endpoint"])).hostname or ""
    if channel == "chat":
        return f"{address.partition('://')[0]}://…{address[-4:]}"
    return address if to_owner else f"…{address[-4:]}"


def _push(address: str, *, allow_private: bool) -> str:
    try:
        found: Any = json.loads(address)
        endpoint = str(found["endpoint"])
        keys = {name: str(found["keys"][name]) for name in ("p256dh", "auth")}
    except (KeyError, TypeError, ValueError):
        raise ValueError("a push subscription has an endpoint, keys.p256dh and keys.auth") from None
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if not allow_private:
        if parts.scheme != "https" or not host:
            raise ValueError("the endpoint of a push subscription must begin with https://")
        if host == "localhost" or (_is_address(host) and not is_public(host)):
            raise ValueError(f"{host} is an address of a private network")
    return json.dumps({"endpoint": endpoint, "keys": keys}, sort_keys=True)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
