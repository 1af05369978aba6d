"""Nodes into a store, with as little encoding as possible.

    node --the same content under its id, or the same page under another--> its stored vectors ---+
         --a picture--> embed_pages --------------------------------------------------------------+--> store.add
         --a text--> ColPaliEmbedding.get_text_multi_vectors -------------------------------------+

Entries are stored as they come: what was done before an error or an interruption is kept, and found again by the next
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.utils import get_tqdm_iterable
from numpy.typing import NDArray

from colpali_integrations.errors import ColPaliError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.nodes import Content, content_of, entry_content, entry_of
from colpali_integrations.llama_index.sources import image_label, image_sources
from colpali_integrations.models.prompt import check_query
from colpali_integrations.stores import Entry, MultiVectorStore

__all__ = ["add_nodes"]

_Record: TypeAlias = "tuple[Entry, NDArray[Any]]"
# Position among the nodes given, and the node.
_Placed: TypeAlias = "tuple[int, BaseNode, Content | None]"

# Nodes that are looked up in the store together.
_TOGETHER = 256


def add_nodes(
    nodes: Sequence[BaseNode], *, store: MultiVectorStore, embedding: ColPaliEmbedding, show_progress: bool = False
) -> list[str]:
    """Store nodes, in place of those with the same ids. The nodes are left as they are.

    Args:
        nodes: those with a picture are encoded as images, others as texts; of several with one id the last one counts.
        store: where to.
        embedding: what encodes.
        show_progress: a progress bar over the pages that are encoded.

    Returns:
        The ids in the order of `nodes`.

    Raises:
        InputError: a picture that cannot be read, or a node with neither picture nor text; `index` and `item` name it.
        EncodingError: the model cannot encode it.
        StoreError: a node that JSON cannot hold, or the store cannot be written.
    """
    wanted: dict[str, _Placed] = {}
    for index, node in enumerate(nodes):
        try:
            content = content_of(node)
            if content is not None and not content.is_page:
                check_query(node.get_content(MetadataMode.EMBED))
        except ColPaliError as error:
            raise error.at(index, image_label(node)) from error.__cause__
        entry_of(node, content).to_payload()  # what cannot be stored is refused before anything is encoded
        wanted[node.node_id] = (index, node, content)
    remaining = iter(wanted.values())
    while group := list(islice(remaining, _TOGETHER)):
        store.add(_records(group, store, embedding, show_progress))
    return [node.node_id for node in nodes]


def _records(
    group: Sequence[_Placed], store: MultiVectorStore, embedding: ColPaliEmbedding, show_progress: bool
) -> Iterator[_Record]:
    texts: list[_Placed] = []
    pages: dict[str, list[_Placed]] = {}
    for placed, known in _looked_up(group, store):
        _, node, content = placed
        if known is not None:
            entry = entry_of(node, content, known.grid)
            if entry.to_payload() != known.to_payload():
                [vectors] = store.vectors([known.id])
                if vectors is not None:
                    yield entry, vectors
        elif content is None or content.is_page:
            pages.setdefault(node.node_id if content is None else content.key, []).append(placed)
        else:
            texts.append(placed)
    yield from _texts(texts, embedding)
    yield from _pages(list(pages.values()), embedding, show_progress)


def _looked_up(group: Sequence[_Placed], store: MultiVectorStore) -> Iterator[tuple[_Placed, Entry | None]]:
    """Each node with the entry that has its vectors already."""
    present = store.get([node.node_id for _, node, _ in group])
    same = [
        entry if entry is not None and content is not None and entry_content(entry) == content else None
        for entry, (_, _, content) in zip(present, group, strict=True)
    ]
    hashes = {
        content.hash
        for entry, (_, _, content) in zip(same, group, strict=True)
        if entry is None and content is not None and content.is_page
    }
    elsewhere: Mapping[str, Entry] = {}
    if hashes:
        found = store.scroll({"content_hash": {"$in": sorted(hashes)}})
        elsewhere = {entry_content(entry).key: entry for entry in found}
    for placed, entry in zip(group, same, strict=True):
        content = placed[2]
        yield placed, entry if entry is not None or content is None else elsewhere.get(content.key)


def _texts(texts: Sequence[_Placed], embedding: ColPaliEmbedding) -> Iterator[_Record]:
    vectors = embedding.get_text_multi_vectors([node.get_content(MetadataMode.EMBED) for _, node, _ in texts])
    for (_, node, content), array in zip(texts, vectors, strict=True):
        yield entry_of(node, content), array


def _pages(pages: Sequence[list[_Placed]], embedding: ColPaliEmbedding, show_progress: bool) -> Iterator[_Record]:
    if not pages:
        return
    watched = get_tqdm_iterable([same[0][1] for same in pages], show_progress, "Encoding pages")
    encoded = embedding.model.embed_pages(
        image_sources(watched), batch_size=embedding.embed_batch_size, parallel=embedding.num_workers
    )
    done = 0
    try:
        for same, found in zip(pages, encoded, strict=True):
            grid: PageGrid = found.grid
            for _, node, content in same:
                yield entry_of(node, content, grid), found.vectors
            done += 1
    except ColPaliError as error:
        # Its place among what was encoded is not its place among the nodes.
        index, node, _ = pages[done if error.index is None else min(error.index, len(pages) - 1)][0]
        error.index = error.item = None
        raise error.at(index, image_label(node)) from error.__cause__
