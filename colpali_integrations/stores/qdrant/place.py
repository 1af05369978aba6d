"""The place of a client's server, for messages."""

from __future__ import annotations

from typing import Any

from colpali_integrations.pages._urls import shown_url

__all__ = ["is_local", "place_of", "shown_place"]


def is_local(client: Any) -> bool:
    """Whether this is qdrant-client's local mode, an imitation of a server for tests, which is not thread-safe."""
    options = client.init_options
    return options.get("location") == ":memory:" or options.get("path") is not None


def place_of(client: Any) -> str:
    """The address of a client's server, or those of its nodes, without the secrets of URLs."""
    options = client.init_options
    place = options.get("url") or options.get("location") or options.get("path")
    if place is None:
        place = f"{options.get('host') or 'localhost'}:{options.get('port')}"
    return shown_place(place)


def shown_place(place: Any) -> str:
    """An address or several, without the secrets of URLs.

    >>> shown_place(["http://user:secret@one:6333", "two:6333"])
    'http://one:6333, two:6333'
    """
    places = [place] if isinstance(place, str) else place
    return ", ".join(shown_url(one) if "://" in one else one for one in map(str, places))
