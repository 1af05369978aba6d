"""URLs in messages and logs."""

from __future__ import annotations

import urllib.parse

__all__ = ["is_web_url", "last_part", "shown_url"]

_SHOWN = 200


def is_web_url(text: str) -> bool:
    """Whether a text is an http or https URL; the case of schemes does not matter (RFC 3986)."""
    return text[:8].lower().startswith(("http://", "https://"))


def shown_url(url: str) -> str:
    """A URL without its user, password, query and fragment, in which credentials and signatures stand.

    >>> shown_url("https://user:secret@example.org/page.png?signature=1f")
    'https://example.org/page.png?...'
    """
    scheme, _, rest = url.partition("://")
    # Not by urlsplit, which refuses some malformed URLs.
    ends = [at for at in map(rest.find, "?#") if at >= 0]
    location, more = (rest[: min(ends)], "?...") if ends else (rest, "")
    authority, slash, path = location.partition("/")
    shown = f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
    return (shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}...") + more


def last_part(url: str) -> str:
    """The last part of a URL's path, percent-decoded; the host where there is no path.

    >>> last_part("https://example.org/scans/page%201.png?signature=1f")
    'page 1.png'
    """
    location = shown_url(url).removesuffix("?...").partition("://")[2].rstrip("/")
    return urllib.parse.unquote(location.rpartition("/")[2])
