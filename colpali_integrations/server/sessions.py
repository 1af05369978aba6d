"""Sessions of the search page: a browser trades the API key for a cookie that scripts cannot read.

The cookie is a random token, and never the key. The server keeps hashes of tokens, in memory: a restart signs every
browser out.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from secrets import token_urlsafe
from typing import Any

__all__ = ["SECONDS", "Sessions", "cookie_name"]

SECONDS = 12 * 3600
"""How long a session lasts: a working day."""
_MOST = 1000  # sessions; the oldest one ends


def cookie_name(scope: Mapping[str, Any]) -> str:
    """The name of the cookie, with the port of the server: browsers send cookies to all ports of a host.

    So the cookies of two servers on one host do not replace each other.

    Args:
        scope: of a request, as ASGI has it.

    Example:
        >>> cookie_name({"server": ("127.0.0.1", 8765)})
        'colpali_session_8765'
    """
    _, port = scope.get("server") or ("", None)
    return f"colpali_session_{port or 0}"


class Sessions:
    """The browsers that are signed in. Threads may share it.

    Args:
        clock: seconds, which never go back.

    Example:
        >>> sessions = Sessions()
        >>> token = sessions.begin()
        >>> sessions.has(token), sessions.has("another")
        (True, False)
        >>> sessions.end(token)
        >>> sessions.has(token)
        False
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._until: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()  # with whether it may change things
        self._lock = threading.Lock()

    def begin(self, *, may_change: bool = True) -> str:
        """Begin a session, and return its token: 43 characters that are safe in a cookie.

        Args:
            may_change: whether its reader may add and delete; otherwise only search and read.
        """
        token = token_urlsafe(32)
        with self._lock:
            while len(self._until) >= _MOST:
                self._until.popitem(last=False)
            self._until[_hashed(token)] = self._clock() + SECONDS, may_change
        return token

    def has(self, token: str | None) -> bool:
        """Whether a token is that of a session which has not ended."""
        return self.may_change(token) is not None

    def may_change(self, token: str | None) -> bool | None:
        """Whether the reader of a session may add and delete; None for a token of none."""
        if not token:
            return None
        with self._lock:
            until, may_change = self._until.get(_hashed(token), (0.0, False))
        return may_change if self._clock() < until else None

    def end(self, token: str | None) -> None:
        """End the session of a token, if there is one."""
        with self._lock:
            self._until.pop(_hashed(token or ""), None)

    def __repr__(self) -> str:
        return f"Sessions({len(self._until)})"


def _hashed(token: str) -> bytes:
    # A comparison of hashes tells nothing of how much of a token was right.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
