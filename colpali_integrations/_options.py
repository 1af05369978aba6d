"""Errors about keyword arguments that do not exist, shared by models, stores and adapters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from colpali_integrations.errors import ConfigurationError

__all__ = ["unknown_option"]

_NO_GUESSES: Mapping[str, str] = {}


def unknown_option(
    where: str, given: Iterable[str], known: Iterable[str], guesses: Mapping[str, str] = _NO_GUESSES
) -> ConfigurationError:
    """Make the error about the first option in `given` that is not in `known`.

    Args:
        where: the function or class that was called.
        given: the names passed to it, or only the unknown ones; at least one is unknown.
        known: the names that it has.
        guesses: for names known from other libraries, the option to use instead.

    Example:
        >>> print(unknown_option("open", ["threds"], ["path", "threads"]))
        open has no option 'threds'; did you mean 'threads'?
        >>> print(unknown_option("open", ["device"], ["path"], {"device": "use providers=[...]"}))
        open has no option 'device'; use providers=[...]
    """
    import difflib

    options = sorted(known)
    name = next(name for name in given if name not in options)
    near = difflib.get_close_matches(name, options, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(options)}"
    return ConfigurationError(f"{where} has no option {name!r}; {guesses.get(name, advice)}")
