"""Postprocessors that rank nodes by late interaction and that put pictures into them."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from llama_index.core.bridge.pydantic import Field, PrivateAttr, model_validator
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.llama_index._components import FolderStrings, StrictComponent
from colpali_integrations.llama_index._pictures import (
    check_permitted,
    content_key,
    has_image,
    image_label,
    node_image,
    node_picture,
)
from colpali_integrations.llama_index._queries import put_hidden, take_hidden
from colpali_integrations.llama_index._references import PageReference
from colpali_integrations.llama_index._stores import StoreComponent
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding, stored_embedding
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.pages.access import PageAccess, root_folders
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.hits import DOUBTFUL
from colpali_integrations.stores.rerank import Candidate, CandidateScorer

__all__ = ["ColPaliRerank", "PageImagePostprocessor"]

dispatcher = get_dispatcher(__name__)


class ColPaliRerank(StoreComponent, BaseNodePostprocessor):
    """Ranks nodes of any retriever by MaxSim with the question.

    A node whose content is in `store`, under its id or another, is scored by the stored vectors, without encoding.
    Other nodes are encoded, as images if they have a picture and as texts otherwise, and cached for the next question.
    The score is the relevance, in [0, 1]. Where no node seems to answer the question, each has `metadata["doubtful"]`,
    as those of `ColPaliRetriever`.

    Attributes:
        top_n: number of nodes to return.
        keep_retrieval_score: put the retriever's score into `metadata["retrieval_score"]`.
        embed_model: encodes questions and nodes; None for the store's, or ColTiny without a store.
        path: the folder of the store.
        password: for pages of encrypted PDFs that are not in the store; not part of `to_dict()`.
        roots: encode only files in these folders, links followed; None for all files.
        cache_size: number of encoded nodes in the cache.
        on_error: "raise" an error that names a node that cannot be read, or "skip" the node: it is ranked last, with a
            log entry.

    Args:
        store: a `ColPaliVectorStore`, a `MultiVectorStore` or the folder of one; None to encode everything.

    Raises:
        StoreError: the folder holds no store.
        ValidationError: an argument is unknown or has an invalid value.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> nodes = [NodeWithScore(node=TextNode(text=text)) for text in ("tax return", "low tide in the harbour")]
        >>> [best] = ColPaliRerank(top_n=1).postprocess_nodes(nodes, query_str="harbour")
        >>> best.text
        'low tide in the harbour'
    """

    guesses: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("embedding", "model"), "the encoder is embed_model="),
        **dict.fromkeys(("k", "top_k"), "the number of nodes is top_n="),
        **dict.fromkeys(("persist_dir", "persist_directory", "location"), "the folder is path="),
    }

    top_n: int = Field(default=5, gt=0, description="Number of nodes to return.")
    keep_retrieval_score: bool = Field(default=False, description="Put the retriever's score into the metadata.")
    cache_size: int = Field(default=256, ge=0, description="Number of encoded nodes in the cache.")
    on_error: Literal["raise", "skip"] = Field(default="raise", description="Raise or skip unreadable nodes.")
    password: str | None = Field(default=None, exclude=True, repr=False, description="For encrypted PDFs.")
    roots: FolderStrings = Field(default=None, description="Folders whose files may be opened.")

    _scorer: CandidateScorer = PrivateAttr()

    def __init__(
        self, store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str] | None = None, **fields: Any
    ) -> None:
        if isinstance(store, ColPaliVectorStore):
            super().__init__(store.client, **{"embed_model": store.embed_model, **fields})
            self.path = store.path  # from which a copy in another process opens the store
        else:
            super().__init__(store, **fields)
        if self._store is None and self.path is not None:
            self._store = MultiVectorStore.open(self.path)
        if self.embed_model is None:
            self.embed_model = ColPaliEmbedding() if self._store is None else stored_embedding(self._store)
        self._scorer = CandidateScorer(lambda: self._encoder.model, self._store, cache_size=self.cache_size)

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise ConfigurationError("ColPaliRerank needs the question: pass query_str or query_bundle")
        if not nodes:
            return []
        name = self._encoder.model_name
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name))
        payload: dict[Any, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: name,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            access = PageAccess(self.password, self._encoder.options.image_limits, root_folders(self.roots))
            candidates = [_candidate(one.node, access) for one in nodes]
            scores = self._scorer.scores(query_bundle.query_str, candidates, on_error=self.on_error)
            # Sorted by MaxSim, because relevance is cut off at 1. Equal nodes stay in the retriever's order.
            order = sorted(range(len(nodes)), key=lambda index: -scores[index].max_sim)[: self.top_n]
            doubtful = self._scorer.doubtful(scores)
            ranked = [self._scored(nodes[index], scores[index].relevance, doubtful=doubtful) for index in order]
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    def _scored(self, result: NodeWithScore, score: float, *, doubtful: bool) -> NodeWithScore:
        was_doubtful = result.node.metadata.get(DOUBTFUL) is True
        if not self.keep_retrieval_score and doubtful is was_doubtful:
            return NodeWithScore(node=result.node, score=score)
        node = result.node.model_copy(
            update={
                "metadata": dict(result.node.metadata),
                "excluded_llm_metadata_keys": list(result.node.excluded_llm_metadata_keys),
                "excluded_embed_metadata_keys": list(result.node.excluded_embed_metadata_keys),
            }
        )
        take_hidden(node, DOUBTFUL)  # the reranker's word is the last one
        if self.keep_retrieval_score:
            node.metadata["retrieval_score"] = result.score
        if doubtful:
            put_hidden(node, DOUBTFUL, True)
        return NodeWithScore(node=node, score=score)


def _candidate(node: BaseNode, access: PageAccess) -> Candidate:
    """Translate a node without reading its picture, which stored vectors may make needless."""
    try:
        key = content_key(node, access)
    except ColPaliError:
        key = f"unreadable:{node.node_id}"  # encoding it raises the error, or skips the node
    picture = (lambda: node_picture(node, access)) if has_image(node) else None
    return Candidate(node.node_id, key, node.get_content(MetadataMode.EMBED), picture, image_label(node))


class PageImagePostprocessor(StrictComponent, BaseNodePostprocessor):
    """Puts its picture into each page, for query engines that read images from nodes.

    An index holds references to pages, and a multimodal query engine needs pictures. This postprocessor draws the pages
    that a retriever returned. Other nodes pass unchanged, and so do the nodes in the index. Nodes of `ColPaliRetriever`
    and `ColPaliVectorStore` draw themselves, and need it only for another resolution.

    Attributes:
        dpi: draw PDF pages at this resolution instead of the reference's.
        password: for encrypted PDFs; not part of `to_dict()`.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `pages.page_image`; a node that names a file elsewhere is an error, whether it is drawn or not.

    Example:
        >>> from colpali_integrations.llama_index import PdfPageReader
        >>> [node] = PdfPageReader().load_data("report.pdf", pages=[1])
        >>> [drawn] = PageImagePostprocessor(dpi=50).postprocess_nodes([NodeWithScore(node=node, score=1.0)])
        >>> drawn.node.image[:8], node.image is None  # base64 of a PNG; the node in the index is unchanged
        ('iVBORw0K', True)
    """

    dpi: float | None = Field(default=None, gt=0, description="Resolution, instead of the reference's.")
    password: str | None = Field(default=None, exclude=True, repr=False, description="For encrypted PDFs.")
    max_pixels: int = Field(default=MAX_PIXELS, gt=0, description="The most pixels of an image.")
    image_formats: list[str] = Field(default_factory=list, description="Further formats of images.")
    roots: FolderStrings = Field(default=None, description="Folders whose files may be opened.")

    @model_validator(mode="after")
    def _check_image_formats(self) -> PageImagePostprocessor:
        """Refuse an unknown format now, not at the first node."""
        self._access()
        return self

    def _access(self) -> PageAccess:
        return PageAccess.of(
            password=self.password, max_pixels=self.max_pixels, image_formats=self.image_formats, roots=self.roots
        )

    @keep_pdfs_open()
    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        access = self._access()
        return [self._with_image(node, access) for node in nodes]

    def _with_image(self, result: NodeWithScore, access: PageAccess) -> NodeWithScore:
        is_picture = isinstance(result.node, ImageNode)
        reference = node_image(result.node) if is_picture or access.folders is not None else None
        check_permitted(reference, access)  # a query engine opens the files of other nodes by itself
        if not (is_picture and isinstance(reference, PageReference)):
            return result
        content, kind = reference.encode(access, dpi=self.dpi)
        # Without image_path: ImageNode.get_content_blocks refuses one that is not a file.
        update = {"image": base64.b64encode(content).decode("ascii"), "image_path": None, "image_mimetype": kind}
        return NodeWithScore(node=result.node.model_copy(update=update), score=result.score)
