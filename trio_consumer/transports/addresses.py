"""What may stand behind ``kafka://`` and ``confluent://``: some brokers, and nothing else.

The clients take nearly any text for an address and then do not find it, for as long
as they are allowed to look.
"""

from __future__ import annotations

import re

from .._errors import ConfigurationError

__all__ = ["check_brokers", "shown_url"]

_HOST = re.compile(r"[^\s\0-\x20\x7f:/\\?#@%\[\]\"'<>^`{|}]+")
_IPV6 = re.compile(r"\[[0-9A-Fa-f:.]+(%[\w.-]+)?\]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
LONGEST_HOST = 255


def shown_url(url: str) -> str:
    """A URL for an error message: short, and without what may be a secret."""
    scheme = _SCHEME.match(url)
    begin = "" if scheme is None else scheme[0]
    rest, query, _ = url[len(begin) :].partition("?")
    # Whatever stands before an @ may be a password, one with a ? in it too.
    for part in (rest, url):
        if "@" in part:
            rest = "***@" + part.rpartition("@")[2].partition("?")[0]
    text = f"{begin}{rest}{query and '?***'}"
    return repr(text if len(text) <= 200 else f"{text[:197]}...")


def check_brokers(brokers: str, scheme: str) -> None:
    """Check ``host:port`` pairs that are separated by commas.

    Args:
        brokers: The pairs; a port may be left out.
        scheme: What stands before them in a URL, for the message.

    Raises:
        ConfigurationError: One of them cannot be an address.
    """
    whole = shown_url(f"{scheme}://{brokers}")
    if "@" in brokers:
        raise ConfigurationError(
            f"{whole}: a name and a password do not belong into the address; give them as"
            " client_options, such as sasl_plain_username (kafka://) or sasl.username"
            " (confluent://)"
        )
    parts = [part.strip(" ") for part in brokers.split(",")]
    if not any(parts):
        raise ConfigurationError(f"{whole} names no address: write {scheme}://host:9092")
    for part in filter(None, parts):
        address = _IPV6.match(part) or _HOST.match(part)
        host = "" if address is None else address[0]
        rest = part[len(host) :]
        if (
            not host
            or len(host) > LONGEST_HOST
            or not _encodable(host)
            or rest[:1] not in ("", ":")
        ):
            raise ConfigurationError(
                f"{whole}: {shown_url(part)} is no address of a broker: write host:port, or"
                " [::1]:port for IPv6"
            )
        port = rest[1:]
        if rest and not (port.isascii() and port.isdigit() and 0 < int(port[:9]) < 65536):
            raise ConfigurationError(
                f"{whole}: the port of {shown_url(part)} must be a number from 1 to 65535"
            )


def _encodable(host: str) -> bool:
    """Whether the name can be looked up, which fails with an error of the codec else."""
    if host.startswith("[") or host.isascii():
        labels = host.removesuffix(".").split(".")
        return host.startswith("[") or all(0 < len(label) < 64 for label in labels)
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return True
