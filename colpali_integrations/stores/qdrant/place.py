"""The place of a client's server, for messages."""

from __future__ import annotations

from typing import Any

from colpali_integrations._options import shown
from colpali_integrations._text import encodable
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.pages._urls import shown_url

__all__ = ["check_name", "is_local", "place_of", "shown_place"]

# Names of collections become names of folders on the server.
_LONGEST_NAME, _NOT_IN_NAMES = 255, '<>:"/\\|?*\0\x1f'


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


def check_name(name: object, *, new: bool = False) -> None:
    """Refuse a name that no collection can have, in the same words over REST and gRPC, and without a server.

    Args:
        name: of the collection.
        new: whether it is to be made. Servers keep collections of earlier versions, which had other names.

    Raises:
        ConfigurationError: no collection can have it.

    Example:
        >>> check_name("manuals/2024", new=True)
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: collection_name='manuals/2024' has a '/', and names of ...
    """
    if not isinstance(name, str) or name in ("", ".", "..") or len(name) > _LONGEST_NAME or encodable(name) != name:
        raise ConfigurationError(
            f"collection_name must be a text of 1 to {_LONGEST_NAME} characters of valid Unicode, got {shown(name)}"
        )
    if new and (wrong := next((one for one in name if one in _NOT_IN_NAMES), None)):
        raise ConfigurationError(
            f"collection_name={name!r} has a {wrong!r}, and names of collections have none of "
            f"{' '.join(_NOT_IN_NAMES[:-2])}; choose another name"
        )
