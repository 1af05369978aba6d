"""Errors about unknown keyword arguments, shared by models, stores and adapters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from colpali_integrations.errors import ConfigurationError

__all__ = ["unknown_option"]

_NO_GUESSES: Mapping[str, str] = {}


def unknown_option(
    where: str, names: Iterable[str], options: Iterable[str], guesses: Mapping[str, str] = _NO_GUESSES
) -> ConfigurationError:
    """Make the error about the first of `names` that is not in `options`.

    Args:
        where: the function or class of the call.
        names: the names in the call, or only the unknown ones; at least one is unknown.
        options: the names of the existing options.
        guesses: for names from other libraries, the option to use instead.

    Example:
        >>> print(unknown_option("open", ["threds"], ["path", "threads"]))
        open has no option 'threds'; did you mean 'threads'?
        >>> print(unknown_option("open", ["device"], ["path"], {"device": "use providers=[...]"}))
        open has no option 'device'; use providers=[...]
    """
    import difflib

    existing = sorted(options)
    name = next(name for name in names if name not in existing)
    near = difflib.get_close_matches(name, existing, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(existing)}"
    return ConfigurationError(f"{where} has no option {name!r}; {guesses.get(name, advice)}")
