"""A model for the package mteb, which this package does not install: `mteb.evaluate(MtebModel(), tasks=...)`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from colpali_integrations.errors import InputError
from colpali_integrations.evaluation.results import DECIMALS
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.maxsim import max_sim

__all__ = ["MtebModel"]

_TOGETHER = 32  # questions that are scored at a time


class MtebModel:
    """A model in the form of mteb's `SearchProtocol`: it encodes the pages of a task, and ranks them by exact MaxSim.

    It scores all pages in float32, as `evaluate(mode="exact", datatype="float32")` does. Pages are encoded from their
    pictures, and where a corpus has none from `title` and `text`; all vectors of a task are in memory, 4 bytes per
    number.

    Args:
        model: a `ColPali`, or the name or folder of a model.
        **options: of `ColPali.from_pretrained`, for a name or folder.

    Raises:
        ColPaliError: as `ColPali.from_pretrained`.

    Example:
        >>> model = MtebModel("coltiny")
        >>> corpus = [{"id": "a", "text": "Low tide at six"}, {"id": "b", "text": "Rates of tax"}]
        >>> model.index(corpus)
        >>> found = model.search([{"id": "q", "text": "When is the tide low?"}], top_k=2)
        >>> max(found["q"], key=found["q"].get)
        'a'
    """

    def __init__(self, model: ColPali | str | os.PathLike[str] = "coltiny", **options: Any) -> None:
        self.model = model if isinstance(model, ColPali) else ColPali.from_pretrained(model, **options)
        self._ids: list[str] = []
        self._vectors: list[Float32] = []

    def index(self, corpus: Iterable[Mapping[str, Any]], **task: Any) -> None:
        """Encode the pages of a task, in place of those of the last one.

        Args:
            corpus: rows with `id`, and `image` or `text`.
            **task: mteb's further arguments, which are ignored.

        Raises:
            InputError: a row has neither a picture nor a text.
        """
        self._ids, self._vectors = [], []
        texts: list[tuple[int, str]] = []

        def pictures() -> Iterator[Any]:
            for row in corpus:
                self._ids.append(str(row["id"]))
                if row.get("image") is not None:
                    places.append(len(self._ids) - 1)
                    yield row["image"]
                else:
                    texts.append((len(self._ids) - 1, _text(row)))

        places: list[int] = []
        found = dict(enumerate(self.model.embed_images(pictures())))
        vectors = {places[number]: one for number, one in found.items()}
        encoded = self.model.embed_texts([text for _, text in texts]) if texts else iter(())
        vectors.update((place, one) for (place, _), one in zip(texts, encoded, strict=True))
        self._vectors = [vectors[place] for place in range(len(self._ids))]

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        top_k: int,
        top_ranked: Mapping[str, Iterable[str]] | None = None,
        **task: Any,
    ) -> dict[str, dict[str, float]]:
        """Rank the pages per question.

        Args:
            queries: rows with `id` and `text`.
            top_k: number of pages per question; of equal scores, those of the higher ids.
            top_ranked: only these pages, by the id of the question, in tasks that rerank.
            **task: mteb's further arguments, which are ignored.

        Returns:
            Scores, rounded to five decimals as in `evaluate`, by the id of the page, by the id of the question.
        """
        rows = list(queries)
        asked = list(self.model.embed_queries([_text(row) for row in rows]))
        found = {}
        for first in range(0, len(rows), _TOGETHER):
            some = slice(first, first + _TOGETHER)
            for row, scores in zip(rows[some], max_sim(asked[some], list(self._vectors)), strict=True):
                id_ = str(row["id"])
                among = None if top_ranked is None else set(top_ranked.get(id_, ()))
                pairs = zip(self._ids, (round(score, DECIMALS) for score in scores.tolist()), strict=True)
                kept = [(page, score) for page, score in pairs if among is None or page in among]
                found[id_] = dict(sorted(kept, key=lambda one: (one[1], one[0]), reverse=True)[:top_k])
        return found

    @property
    def mteb_model_meta(self) -> Any:
        """The description of the model as mteb's `ModelMeta`."""
        from mteb.models import ModelMeta

        description = self.model.description
        name = description.name.rstrip("/\\")
        return ModelMeta.create_empty().model_copy(
            update={
                "name": name if name.count("/") == 1 else f"colpali-integrations/{os.path.basename(name)}",  # noqa: PTH119
                "revision": description.revision or description.fingerprint.space,
                "embed_dim": description.dim,
                "n_parameters": description.parameters,
                "framework": ["ONNX"],
                "similarity_fn_name": "MaxSim",
                "modalities": ["text", "image"],
                "model_type": ["late-interaction"],
            }
        )


def _text(row: Mapping[str, Any]) -> str:
    text = "\n".join(str(row[name]) for name in ("title", "text") if row.get(name))
    if not text.strip():
        raise InputError(
            f"the row {row.get('id')!r} has neither a picture nor a text; mteb's rows have id, image or text"
        )
    return text
