"""A model on another machine: a server of this package encodes, and everything else is as with a model in the process.

    ColPali --prepare--> PNG or text --(POST /v1/encode)--> float32, little endian --> multi-vectors

Pages are decoded here and sent as PNG, which loses nothing, so that the vectors are those of the server's process. Its
description comes with its fingerprint. So a store records the name and the revision of the model and never a URL, and
opens with the same model in the process as well.
"""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np
from PIL import Image

from colpali_integrations._options import checked_whole
from colpali_integrations._version import __version__
from colpali_integrations.errors import (
    ColPaliError,
    ConfigurationError,
    EncodingError,
    InputError,
    ModelLoadError,
    ModelNotFoundError,
)
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models.connection import Connection
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import Prepared
from colpali_integrations.models.fingerprint import Fingerprint
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.runtime.arrays import Feed, Float32, Outputs
from colpali_integrations.runtime.batching import Coalescer

__all__ = ["RemoteFamily", "RemoteSessions", "Served", "open_remote"]

Kind: TypeAlias = Literal["queries", "texts", "pages"]
Result = TypeVar("Result")

# Options of the machine that decodes the images; the others are of the machine that has the model.
_OPTIONS = ("allow_urls", "allow_private_urls", "url_timeout", "url_max_bytes", "max_pixels", "image_formats")
_KEY_OPTION = "api_key_file"
_FRAME = 4096  # bytes of a request beside its pages
_KNOWN_TOKENS = 4096  # questions whose tokens are kept


class Served(NamedTuple):
    """The model of a server.

    Attributes:
        description: by its exact revision.
        reads_print: whether it can tell pages of which it recognises little.
        max_bytes: of a request.
        max_pages: of a request.
        max_texts: of a request.
    """

    description: ModelDescription
    reads_print: bool
    max_bytes: int
    max_pages: int
    max_texts: int

    @classmethod
    def by(cls, connection: Connection) -> Served:
        """Ask a server for its model.

        Raises:
            ModelNotFoundError: the server cannot be reached, or is none of this package.
            ModelLoadError: this version makes other vectors of the model than the server's.
            ConfigurationError: the server refuses the API key, or needs one.
        """
        answer = connection.get("/v1/encoder", ModelNotFoundError)
        try:
            fingerprint = Fingerprint.from_dict(answer["fingerprint"])
            limits = (checked_whole(answer["limits"][name], name) for name in ("bytes", "pages", "texts"))
            served = cls(ModelDescription.from_dict(answer["description"]), bool(answer["reads_print"]), *limits)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError, ConfigurationError) as error:
            raise ModelLoadError(
                f"{connection.url} describes its model in another way ({error}); {_both_versions(answer)}"
            ) from error
        if served.description.fingerprint != fingerprint:
            raise ModelLoadError(
                f"{connection.url} has {served.description.name!r}, of which it makes other vectors than this machine "
                f"would; {_both_versions(answer)}"
            )
        return served


def open_remote(url: str, options: ModelOptions) -> tuple[Connection, Served]:
    """Connect to a server, and ask for its model.

    Args:
        url: of the server.
        options: of `ColPali.from_pretrained`.

    Raises:
        ConfigurationError: the URL is not valid, an option is none of a model on a server, or the API key is refused.
        ModelNotFoundError: as `Served.by`.
        ModelLoadError: as `Served.by`.
    """
    taken = (*_OPTIONS, _KEY_OPTION)
    given = [one.name for one in fields(options) if getattr(options, one.name) != one.default]
    connection = Connection(url, options.api_key_file)
    if others := [name for name in given if name not in taken]:
        raise ConfigurationError(
            f"{', '.join(others)}: {connection.url} decides how its model is opened; a model on a server has the "
            f"options {', '.join(taken)}"
        )
    return connection, Served.by(connection)


class RemoteFamily:
    """The codecs of a model on a server, in the place of its `Family`: they send batches instead of decoding outputs.

    Args:
        connection: to the server.
        served: its model.
    """

    def __init__(self, connection: Connection, served: Served) -> None:
        server = _Server(connection, served)
        self._server = server
        self.queries, self.texts = _Texts(server, "queries"), _Texts(server, "texts")
        self.pages = (_ReadPages if served.reads_print else _Pages)(server, "pages")

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of tokens (= query vectors) of a query, after truncation."""
        tokens = self._server.tokens(text)
        return tokens.total if include_special else tokens.of_text

    def query_tokens(self, text: str) -> list[str | None]:
        """The piece of the user's text that each query vector stands for; None for tokens of the prompt."""
        return list(self._server.tokens(text).pieces)


class RemoteSessions:
    """The place of a model's `ModelSessions`: the sessions are the server's.

    Args:
        connection: to the server.
        served: the model that the server had when it was opened.

    Attributes:
        coalescer: merges concurrent calls into one request.
        on_cpu: whether a request has one page by default. Its answer then comes soon, also from a CPU.
        splits: whether a text query skips the vision tower, which costs this machine nothing.
    """

    on_cpu = True
    splits = True

    def __init__(self, connection: Connection, served: Served) -> None:
        self._connection, self._served = connection, served
        self.coalescer: Coalescer[Any, Any] = Coalescer()

    def load(self) -> None:
        """Check that the server runs and still has the same model.

        Raises:
            ModelNotFoundError: as `Served.by`.
            ModelLoadError: as `Served.by`, or it has another model.
        """
        now, before = Served.by(self._connection).description, self._served.description
        if now.fingerprint != before.fingerprint:
            raise ModelLoadError(f"{self._connection.url} had {before.name!r} and has another model now; open it again")

    def queries(self, feed: Feed, runs: Any = None) -> Outputs:
        """Nothing: the codec sends the batch."""
        return {}

    def pages(self, feed: Feed, runs: Any = None, *, at_once: int = 1) -> Outputs:
        """Nothing: the codec sends the batch."""
        return {}

    def close(self) -> None:
        """Close the connections; the next use opens new ones."""
        self._connection.close()


class _Tokens(NamedTuple):
    """The tokens of a question.

    Attributes:
        pieces: as `ColPali.query_tokens` returns them.
        total: number of all tokens.
        of_text: number without those of the prompt.
    """

    pieces: list[str | None]
    total: int
    of_text: int


class _Server:
    """The requests of the codecs, and the tokens of the last questions, which come with their vectors."""

    def __init__(self, connection: Connection, served: Served) -> None:
        self._connection, self.served = connection, served
        self._fingerprint = served.description.fingerprint.key
        self._lock = threading.Lock()
        self._tokens: dict[str, _Tokens] = {}

    def encode(self, kind: Kind, items: Sequence[str], **options: bool) -> list[dict[str, Any]]:
        """The server's answers for texts or pages, one per item, in as many requests as its limits demand.

        Raises:
            EncodingError: the server cannot be reached, refuses, or has another model by now.
        """
        most = self.served.max_pages if kind == "pages" else self.served.max_texts
        size = sum(map(len, items)) if kind == "pages" else 0
        if len(items) > 1 and (len(items) > most or size > self.served.max_bytes - _FRAME):
            half = len(items) // 2
            return [*self.encode(kind, items[:half], **options), *self.encode(kind, items[half:], **options)]
        body = {kind: list(items), "fingerprint": self._fingerprint, **options}
        answers = self._post("/v1/encode", body, len(items))
        if kind == "queries":
            self._keep(items, answers)
        return answers

    def tokens(self, text: str) -> _Tokens:
        """The tokens of a question."""
        with self._lock:
            known = self._tokens.get(text)
        if known is not None:
            return known
        [answer] = answers = self._post("/v1/tokens", {"texts": [text], "fingerprint": self._fingerprint}, 1)
        self._keep([text], answers)
        return self._read(_tokens_of, answer)

    def array(self, answer: Mapping[str, Any], dim: int | None, n_axes: int) -> Float32:
        """The vectors of an answer."""

        def read(answer: Mapping[str, Any]) -> Float32:
            shape, data = answer["shape"], base64.b64decode(answer["vectors"], validate=True)
            if len(shape) != n_axes or shape[-1] != dim or not shape[0] > 0:
                raise ValueError(f"vectors of shape {shape}")
            vectors: Float32 = np.frombuffer(data, "<f4").reshape(shape).astype(np.float32)
            return vectors

        return self._read(read, answer)

    def grid(self, answer: Mapping[str, Any], n_vectors: int) -> _RemoteGrid:
        """The grid of a page's answer, which has so many vectors."""

        def read(answer: Mapping[str, Any]) -> _RemoteGrid:
            grid = PageGrid.from_json(answer["grid"])
            if grid.n_stored != n_vectors:
                raise ValueError(f"a grid of {grid.n_stored} positions came with {n_vectors} vectors")
            return _RemoteGrid(**vars(grid), reads_little=bool(answer["reads_little"]))

        return self._read(read, answer)

    def _post(self, path: str, body: Mapping[str, Any], n_items: int) -> list[dict[str, Any]]:
        answers = self._connection.post(path, body, EncodingError).get("data")
        if not isinstance(answers, list) or len(answers) != n_items:
            raise self._not_understood(f"expected {n_items} answers")
        return answers

    def _keep(self, texts: Sequence[str], answers: Sequence[Mapping[str, Any]]) -> None:
        found = {text: self._read(_tokens_of, answer) for text, answer in zip(texts, answers, strict=True)}
        with self._lock:
            self._tokens |= found
            for text in list(self._tokens)[: max(0, len(self._tokens) - _KNOWN_TOKENS)]:
                del self._tokens[text]

    def _read(self, read: Callable[[Any], Result], answer: Any) -> Result:
        try:
            return read(answer)
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise self._not_understood(str(error)) from error

    def _not_understood(self, reason: str) -> ColPaliError:
        return EncodingError(
            f"the answer of {self._connection.url} is not as expected ({reason}); install one version of this package "
            "on both machines"
        )


@dataclass(frozen=True, eq=False)
class _RemoteGrid(PageGrid):
    """The grid of a page that a server has encoded, with what it says of the page's print."""

    reads_little: bool = False


class _Codec:
    """A direction. All items have one key, because the server sorts them by its own."""

    def __init__(self, server: _Server, kind: Kind) -> None:
        self._server, self._kind = server, kind

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """Nothing: the batch is sent as it was prepared."""
        return {}

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """The multi-vectors of a batch, by the server."""
        answers = self._server.encode(self._kind, [one.extra for one in batch])
        return [self._server.array(answer, self._server.served.description.dim, 2) for answer in answers]

    def dense(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """The vectors of the trained dense head, by the server."""
        answers = self._server.encode(self._kind, [one.extra for one in batch], dense=True)
        return [self._server.array(answer, self._server.served.description.dense_dim, 1) for answer in answers]


class _Texts(_Codec):
    """The direction of queries, or of texts that are searched."""

    def prepare(self, item: str) -> Prepared:
        """Nothing to do."""
        return Prepared(self._kind, {}, item)


class _Pages(_Codec):
    """The direction of pages."""

    def prepare(self, item: Image.Image) -> Prepared:
        """Write the page as PNG.

        Raises:
            EncodingError: it is too large for a request.
        """
        buffer = io.BytesIO()
        # Level 1 takes 0.7 times as long as the default, for as many bytes; a profile of colours would not be used.
        item.save(buffer, format="PNG", compress_level=1, icc_profile=None)
        uri = f"data:image/png;base64,{base64.b64encode(buffer.getbuffer()).decode()}"
        most = self._server.served.max_bytes - _FRAME
        if len(uri) > most:
            raise EncodingError(
                f"a page of {item.width} x {item.height} pixels has {len(uri):,} bytes as PNG, and a request at most "
                f"{most:,}; make it smaller, or encode it with the model in this process"
            )
        return Prepared(self._kind, {}, uri)

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each page with its grid."""
        server = self._server
        answers = server.encode("pages", [one.extra for one in batch], grid=True)
        vectors = (server.array(answer, server.served.description.dim, 2) for answer in answers)
        return [PageEmbedding(one, server.grid(answer, len(one))) for one, answer in zip(vectors, answers, strict=True)]


class _ReadPages(_Pages):
    """The direction of pages of a model that can tell pages of which it recognises little."""

    def reads_little(self, page: PageEmbedding) -> bool:
        """Whether the page has print of which the model recognised little, as the server said with its vectors.

        Raises:
            InputError: the page is not one of this model's `embed_pages`.
        """
        if not isinstance(page.grid, _RemoteGrid):
            raise InputError("reads_little needs a page as embed_pages gives it; the server says it with the vectors")
        return page.grid.reads_little


def _tokens_of(answer: Mapping[str, Any]) -> _Tokens:
    return _Tokens(list(answer["tokens"]), int(answer["token_count"]), int(answer["text_token_count"]))


def _both_versions(answer: Mapping[str, Any]) -> str:
    return (
        f"install one version of this package on both machines (the server has {answer.get('version')}, this one has "
        f"{__version__})"
    )
