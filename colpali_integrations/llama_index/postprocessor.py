"""`ColPaliRerank`: nodes that another retriever found, ranked by late interaction."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, model_validator
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, Node, NodeWithScore, QueryBundle
from llama_index_instrumentation import get_dispatcher

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.sources import image_label, image_sources
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.rerank import Candidate, CandidateScorer

__all__ = ["ColPaliRerank"]

dispatcher = get_dispatcher(__name__)


class ColPaliRerank(BaseNodePostprocessor):
    """Ranks nodes by MaxSim with the question, whoever found them.

    Nodes that are in `store` are scored by their stored vectors: no page is encoded. Others are encoded once, as
    images if they have a picture and as texts otherwise, and kept for the next question. The score is the relevance,
    in [0, 1].

    Attributes:
        top_n: how many nodes are kept.
        keep_retrieval_score: put the score that a node came with into `metadata["retrieval_score"]`.
        embedding: what encodes; None for the store's, or ColTiny without one.
        path: the folder of the store.
        cache_size: how many encoded nodes are kept.
        on_error: what becomes of a node that cannot be read: "raise" an error that names it, or "skip" it: it is
            ranked last, and the log says why.

    Args:
        store: a `ColPaliVectorStore`, a `MultiVectorStore` or the folder of one; None to encode everything.

    Raises:
        StoreError: no store in that folder.
        ValidationError: an unknown argument, or a value that cannot be.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> found = [NodeWithScore(node=TextNode(text=text)) for text in ("tax return", "low tide in the harbour")]
        >>> [best] = ColPaliRerank(top_n=1).postprocess_nodes(found, query_str="harbour")
        >>> best.text
        'low tide in the harbour'
    """

    model_config = ConfigDict(extra="forbid")

    top_n: int = Field(default=5, gt=0, description="How many nodes are kept.")
    keep_retrieval_score: bool = Field(default=False, description="Put the earlier score into the metadata.")
    embedding: ColPaliEmbedding | None = Field(default=None, description="What encodes.")
    path: str | None = Field(default=None, description="The folder of the store.")
    cache_size: int = Field(default=256, ge=0, description="How many encoded nodes are kept.")
    on_error: Literal["raise", "skip"] = Field(default="raise", description="What becomes of unreadable nodes.")

    _store: MultiVectorStore | None = PrivateAttr(default=None)
    _scorer: CandidateScorer = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("class_name") == cls.class_name():
            return {key: value for key, value in data.items() if key != "class_name"}
        return data

    def __init__(
        self, store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str] | None = None, **fields: Any
    ) -> None:
        if isinstance(store, (str, os.PathLike)):
            fields, store = {**fields, "path": os.fspath(store)}, None
        if isinstance(store, ColPaliVectorStore):
            # By its path a copy in another process finds it again.
            fields = {"embedding": store.embedding, "path": store.path, **fields}
            store = store.client
        super().__init__(**fields)
        self._store = store if store is not None or self.path is None else MultiVectorStore.open(self.path)
        if self.embedding is None:
            name = "coltiny" if self._store is None else self._store.model.name
            self.embedding = ColPaliEmbedding(model_name=name)
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
        name = self._embedding.model_name
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

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        lane: Literal["queries", "pages"] = "pages" if self._store is None else "queries"
        return await offload(lambda: self._postprocess_nodes(nodes, query_bundle), lane)

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
    def _embedding(self) -> ColPaliEmbedding:
        if self.embedding is None:
            raise ConfigurationError("embedding was set to None")
        return self.embedding

    def _model(self) -> Any:
        return self._embedding.model

    def _scored(self, found: NodeWithScore, score: float) -> NodeWithScore:
        if not self.keep_retrieval_score:
            return NodeWithScore(node=found.node, score=score)
        metadata = {**found.node.metadata, "retrieval_score": found.score}
        return NodeWithScore(node=found.node.model_copy(update={"metadata": metadata}), score=score)


def _candidate(node: BaseNode) -> Candidate:
    """The node without a look at its picture, which the store may make needless."""
    text = node.get_content(MetadataMode.EMBED)
    place = _image_place(node)
    picture = None if place is None else lambda: next(iter(image_sources([node])))
    # A node's hash covers its text and its picture, or where that is; a file may change in its place.
    return Candidate(node.node_id, f"{node.hash} {_stamp(place or '')}", text, picture, image_label(node))


def _image_place(node: BaseNode) -> str | None:
    """Where the picture is, "" for one inside the node, None without one."""
    embedded: Any
    places: tuple[Any, ...]
    if isinstance(node, ImageNode):
        embedded, places = node.image, (node.image_path, node.image_url)
    elif isinstance(node, Node) and node.image_resource is not None:
        embedded, places = node.image_resource.data, (node.image_resource.path, node.image_resource.url)
    else:
        return None
    return "" if embedded else next((str(place) for place in places if place), None)


def _stamp(place: str) -> str:
    try:
        found = Path(place.partition("#page=")[0]).stat() if place else None
    except (OSError, ValueError):
        found = None
    return "" if found is None else f"{found.st_mtime_ns} {found.st_size}"
