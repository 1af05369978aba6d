"""Sessions of the search page: a browser trades the API key for a cookie that scripts cannot read.

The cookie is a random token, and never the key. The server keeps hashes of tokens, in memory: a restart signs every
browser out.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from secrets import token_urlsafe

__all__ = ["COOKIE", "SECONDS", "Sessions"]

COOKIE = "colpali_session"
"""The name of the cookie."""
SECONDS = 12 * 3600
"""How long a session lasts: a working day."""
_MOST = 1000  # sessions; the oldest one ends


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
        self._until: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self) -> str:
        """Begin a session, and return its token: 43 characters that are safe in a cookie."""
        token = token_urlsafe(32)
        with self._lock:
            while len(self._until) >= _MOST:
                self._until.popitem(last=False)
            self._until[_hashed(token)] = self._clock() + SECONDS
        return token

    def has(self, token: str | None) -> bool:
        """Whether a token is that of a session which has not ended."""
        if not token:
            return False
        with self._lock:
            until = self._until.get(_hashed(token))
        return until is not None and self._clock() < until

    def end(self, token: str | None) -> None:
        """End the session of a token, if there is one."""
        with self._lock:
            self._until.pop(_hashed(token or ""), None)

    def __repr__(self) -> str:
        return f"Sessions({len(self._until)})"


def _hashed(token: str) -> bytes:
    # A comparison of hashes tells nothing of how much of a token was right.
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
