"""What the handlers share: the model, the store, the queues and the metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

from colpali_integrations.errors import ColPaliError, StoreError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.pages.access import PageAccess, root_folders
from colpali_integrations.server.connections import Connections
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.jobs import Jobs
from colpali_integrations.server.metrics import Metrics
from colpali_integrations.server.questions import Questions
from colpali_integrations.server.queues import Queue
from colpali_integrations.server.sessions import Sessions
from colpali_integrations.server.settings import ServerSettings
from colpali_integrations.server.uploads import Uploads
from colpali_integrations.stores import Hits, MultiVectorStore, SearchOptions
from colpali_integrations.stores.current import CurrentStore
from colpali_integrations.stores.rerank import CandidateScorer

__all__ = ["Service", "is_writable"]

# One thread searches at a time, and the other writes answers meanwhile.
_QUESTION_THREADS, _MOST_TOGETHER = 2, 32
_REMEMBERED = 64  # questions, for heatmaps


def is_writable(store: MultiVectorStore) -> bool:
    """Whether a store was opened for changes, and its server takes them."""
    try:
        store.require_writable()
    except StoreError:
        return False
    return True


class Service:
    """One model, one store, and the work of all requests.

    Args:
        model: encodes questions, pages and texts.
        store: that is searched and added to.
        settings: of the server.
        uploads: the folder of uploads; it is closed with the service.

    Attributes:
        connections: that are open.
        current: the store, which may be replaced by another process.
        searches: the questions that wait; those with equal options are answered together.
        questions: the queue of searches.
        encoding: the queue of embeddings and reranking, which take all cores for long.
        pictures: the queue of drawings.
        documents: the queue of changes to the store, and of uploads.
        answers: the queue of the chat model.
        jobs: stores the uploads.
        scorer: scores the documents of a request; it remembers the last ones.
        sessions: of browsers that are signed in to the search page.
        question: the vectors of a question and their words; it remembers the last ones.
    """

    def __init__(self, model: ColPali, store: MultiVectorStore, settings: ServerSettings, uploads: Uploads) -> None:
        self.model, self.current, self.settings = model, CurrentStore(store), settings
        self.connections = Connections(settings.max_connections)
        few = max(1, settings.max_waiting // 4)
        self.questions = Queue("questions", _QUESTION_THREADS, settings.max_waiting)
        self.encoding = Queue("encoding", 2, few)
        self.pictures = Queue("pictures", 2, few)
        self.documents = Queue("documents", 2, few)
        self.answers = Queue("answers", 4, few)
        self.queues = (self.questions, self.encoding, self.pictures, self.documents, self.answers)
        self.jobs = Jobs(model, self.current, uploads)
        self.metrics = Metrics(self.queues, uploads.counts)
        self.scorer = CandidateScorer(lambda: model)
        self.sessions = Sessions()
        # A reader who looks at one word of a question after the other asks for the same vectors each time.
        self.question = lru_cache(_REMEMBERED)(lambda text: (model.embed_query(text), model.query_tokens(text)))
        self.searches = Questions(self._answers, _MOST_TOGETHER)

    @property
    def name(self) -> str:
        """The model's name, as requests give it."""
        return self.model.description.name

    def require_model(self, name: object) -> None:
        """Refuse another model than the one that is served.

        Raises:
            RequestError: `name` is another one; None is this one.
        """
        if name is not None and name != self.name:
            raise RequestError(404, f"this server has the model {self.name!r}, not {name!r}", "model_not_found")

    @property
    def is_writable(self) -> bool:
        """Whether the store was opened for changes."""
        return is_writable(self.current.store)

    def require_writable(self) -> None:
        """Refuse an upload or a deletion that the store would refuse for good.

        Raises:
            RequestError: the store is open for reading alone.
        """
        if not self.is_writable:
            raise RequestError(
                409,
                "the index of this server is open for reading: nothing is added, changed or deleted. If another "
                'program has made its collection, add "writable": true to the file of --store; if its API key may only '
                "read, take one that may write. Then start the server again",
                "read_only_index",
            )

    def search(self, text: str, options: Mapping[str, Any]) -> Hits:
        """Answer a question, with those that wait and have equal options.

        Args:
            text: the question.
            options: of `SearchOptions`, as JSON has them.
        """
        return self.searches.answer(self.searches.ask(text, options))

    @property
    def access(self) -> PageAccess:
        """How the files of pages are opened: those in the server's folders, those indexed, and uploads."""
        folders = root_folders([*self.settings.roots, *self.settings.recorded_roots(), self.jobs.uploads.folder])
        return PageAccess(limits=self.model.image_limits, folders=folders)

    def start(self) -> None:
        """Load what a question needs, so that the first one does not wait for it."""
        self.model.embed_query("warm up")
        self.jobs.start()

    def close(self) -> None:
        """End the work: what runs is finished, what waits is refused, and jobs go on at the next start."""
        for queue in self.queues:
            with suppress(ColPaliError):
                queue.close()
        self.jobs.close()
        self.jobs.uploads.close()
        self.current.close()

    def _answers(self, texts: Sequence[str], options: SearchOptions) -> list[Hits]:
        self.metrics.together.observe(len(texts))
        return self.current.use(lambda store: store.search_batch(texts, options))
