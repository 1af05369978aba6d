"""Found nodes ranked by late interaction (`ColPaliRerank`), and with their pictures (`PageImagePostprocessor`)."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.llama_index._components import StrictComponent
from colpali_integrations.llama_index._images import (
    PageReference,
    content_key,
    has_image,
    image_label,
    image_sources,
    node_image,
)
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.rerank import Candidate, CandidateScorer

__all__ = ["ColPaliRerank", "PageImagePostprocessor"]

dispatcher = get_dispatcher(__name__)


class ColPaliRerank(StrictComponent, BaseNodePostprocessor):
    """Ranks nodes of any retriever by MaxSim with the question.

    A node whose content is in `store`, under its id or another, is scored by the stored vectors: no page is encoded.
    Others are encoded once, as images if they have a picture and as texts otherwise, and kept for the next question.
    The score is the relevance, in [0, 1].

    Attributes:
        top_n: number of nodes that are kept.
        keep_retrieval_score: put the score that a node came with into `metadata["retrieval_score"]`.
        embed_model: encodes questions and nodes; None for the store's, or ColTiny without one.
        path: the folder of the store.
        cache_size: number of encoded nodes that are kept.
        on_error: "raise" an error that names a node that cannot be read, or "skip" it: it is ranked last, with a log
            entry.

    Args:
        store: a `ColPaliVectorStore`, a `MultiVectorStore` or the folder of one; None to encode everything.

    Raises:
        StoreError: no store in that folder.
        ValidationError: an unknown argument, or an invalid value.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> found = [NodeWithScore(node=TextNode(text=text)) for text in ("tax return", "low tide in the harbour")]
        >>> [best] = ColPaliRerank(top_n=1).postprocess_nodes(found, query_str="harbour")
        >>> best.text
        'low tide in the harbour'
    """

    guesses: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(("embedding", "model"), "the encoder is embed_model="),
        **dict.fromkeys(("k", "top_k"), "the number of nodes is top_n="),
        **dict.fromkeys(("persist_dir", "persist_directory", "location"), "the folder is path="),
    }

    top_n: int = Field(default=5, gt=0, description="Number of nodes that are kept.")
    keep_retrieval_score: bool = Field(default=False, description="Put the earlier score into the metadata.")
    embed_model: ColPaliEmbedding | None = Field(default=None, description="Encodes questions and nodes.")
    path: str | None = Field(default=None, description="The folder of the store.")
    cache_size: int = Field(default=256, ge=0, description="Number of encoded nodes that are kept.")
    on_error: Literal["raise", "skip"] = Field(default="raise", description="What is done about unreadable nodes.")

    _store: MultiVectorStore | None = PrivateAttr(default=None)
    _scorer: CandidateScorer = PrivateAttr()

    def __init__(
        self, store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str] | None = None, **fields: Any
    ) -> None:
        if isinstance(store, (str, os.PathLike)):
            fields, store = {**fields, "path": os.fspath(store)}, None
        if isinstance(store, ColPaliVectorStore):
            # By its path a copy in another process finds it again.
            fields = {"embed_model": store.embed_model, "path": store.path, **fields}
            store = store.client
        super().__init__(**fields)
        self._store = store if store is not None or self.path is None else MultiVectorStore.open(self.path)
        if self.embed_model is None:
            name = "coltiny" if self._store is None else self._store.model.name
            self.embed_model = ColPaliEmbedding(model_name=name)
        self._scorer = CandidateScorer(self._model, self._store, cache_size=self.cache_size)

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "ColPaliRerank"

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
            candidates = [_candidate(one.node) for one in nodes]
            scores = self._scorer.scores(query_bundle.query_str, candidates, on_error=self.on_error)
            # Sorted by MaxSim: relevance is cut off at 1. Equal ones stay in the order in which they were found.
            order = sorted(range(len(nodes)), key=lambda index: -scores[index].max_sim)[: self.top_n]
            ranked = [self._scored(nodes[index], scores[index].relevance) for index in order]
            event.on_end(payload={EventPayload.NODES: ranked})
        dispatcher.event(ReRankEndEvent(nodes=ranked))
        return ranked

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ColPaliRerank:
        return self.model_copy()  # a copy shares the store and the cache

    def __getstate__(self) -> dict[str, Any]:
        if self._store is not None and self.path is None:
            raise ConfigurationError(
                "a ColPaliRerank with a store that has no path cannot be pickled: give it a folder"
            )
        return {"__dict__": {key: value for key, value in self.__dict__.items() if key != "callback_manager"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc]

    @property
    def _encoder(self) -> ColPaliEmbedding:
        if self.embed_model is None:
            raise ConfigurationError("embed_model was set to None")
        return self.embed_model

    def _model(self) -> Any:
        return self._encoder.model

    def _scored(self, found: NodeWithScore, score: float) -> NodeWithScore:
        if not self.keep_retrieval_score:
            return NodeWithScore(node=found.node, score=score)
        metadata = {**found.node.metadata, "retrieval_score": found.score}
        return NodeWithScore(node=found.node.model_copy(update={"metadata": metadata}), score=score)


def _candidate(node: BaseNode) -> Candidate:
    """The node without a look at its picture, which stored vectors may make needless."""
    try:
        key = content_key(node)
    except ColPaliError:
        key = f"unreadable:{node.node_id}"  # encoding it raises the error, or skips the node
    picture = (lambda: next(iter(image_sources([node])))) if has_image(node) else None
    return Candidate(node.node_id, key, node.get_content(MetadataMode.EMBED), picture, image_label(node))


class PageImagePostprocessor(StrictComponent, BaseNodePostprocessor):
    """Puts the picture into each page that a retriever found, for query engines that read images from nodes.

    An index holds references to pages; a multimodal query engine wants pictures. This draws those few that were found.
    Other nodes pass unchanged, and the nodes in the index stay as they are. What `ColPaliRetriever` and
    `ColPaliVectorStore` find draws itself and needs this only for another resolution.

    Attributes:
        dpi: draw PDF pages at this resolution instead of the reference's.

    Example:
        >>> from colpali_integrations.llama_index import PdfPageReader
        >>> [node] = PdfPageReader().load_data("report.pdf", pages=[1])
        >>> [found] = PageImagePostprocessor(dpi=50).postprocess_nodes([NodeWithScore(node=node, score=1.0)])
        >>> found.node.image[:8], node.image is None  # base64 of a PNG; the node in the index stays as it was
        ('iVBORw0K', True)
    """

    dpi: float | None = Field(default=None, gt=0, description="Resolution, instead of the reference's.")

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "PageImagePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return [self._with_image(node) for node in nodes]

    def _with_image(self, found: NodeWithScore) -> NodeWithScore:
        reference = node_image(found.node) if isinstance(found.node, ImageNode) else None
        if not isinstance(reference, PageReference):
            return found
        drawn, kind = reference.encode(dpi=self.dpi)
        # Without image_path: ImageNode.get_content_blocks refuses one that is not a file.
        update = {"image": base64.b64encode(drawn).decode("ascii"), "image_path": None, "image_mimetype": kind}
        return NodeWithScore(node=found.node.model_copy(update=update), score=found.score)
