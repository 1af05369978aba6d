"""Reference outputs: ids, pixels and multi-vectors by the references' own processors and models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .cases import EMBEDDED, HOSTILE, LEADING_SPACE, PAGES, QUERIES, Prompt, draw
from .measures import directions, kept_rows


def as_text(tokenizer: Any, text: str) -> list[int]:
    """Tokenizes with special tokens taken for ordinary text.

    Args:
        tokenizer: Of the reference library.
        text: May spell special tokens.

    Returns:
        Ids without a template.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return ids


def query_ids(
    tokenizer: Any, prompts: tuple[Prompt, ...], reference: Callable[[Prompt, str], list[int]], *, template: bool
) -> dict[str, dict[str, list[int]]]:
    """Makes the ids of every query under every prompt.

    Plain queries are those of the reference's processor. Hostile ones are the same string with the query's own
    special tokens taken for text: prefix and query tokenized as one text (spaces merge across the seam), then
    the suffix. That this gives the processor's ids for every plain query is asserted.

    Args:
        tokenizer: Of the reference library.
        prompts: The family's prompts.
        reference: The processor: prompt and query to ids.
        template: Whether the tokenizer's own template applies (ModernBERT), else ``<bos>`` or nothing is put first.

    Returns:
        Prompt's name to query to ids.
    """
    out: dict[str, dict[str, list[int]]] = {}
    for prompt in prompts:
        suffix = tokenizer(prompt.suffix, add_special_tokens=False)["input_ids"]
        if template:
            head, _, tail = _template(tokenizer)
        else:
            head = [tokenizer.bos_token_id] if tokenizer.bos_token == "<bos>" else []
            tail = []

        def apart(
            query: str,
            head: list[int] = head,
            tail: list[int] = tail,
            suffix: list[int] = suffix,
            prompt: Prompt = prompt,
        ) -> list[int]:
            return [*head, *as_text(tokenizer, prompt.prefix + query), *suffix, *tail]

        ids: dict[str, list[int]] = {}
        for query in (*QUERIES, *LEADING_SPACE):
            ids[query] = reference(prompt, query)
            if ids[query] != apart(query):
                raise AssertionError(f"{prompt.name}: {query!r}: {ids[query]} != {apart(query)}")
        ids.update({query: apart(query) for query in HOSTILE})
        out[prompt.name] = ids
    return out


def _template(tokenizer: Any) -> tuple[list[int], list[int], list[int]]:
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(position for position in range(len(full)) if full[position : position + len(bare)] == bare)
    return full[:start], bare, full[start + len(bare) :]


def pixels(processor: Any) -> dict[str, tuple[np.ndarray, dict[str, Any]]]:
    """Runs a PIL-backend image processor over every page.

    Args:
        processor: Of the reference library.

    Returns:
        Page's name to pixels without the batch axis, float32, and what else the processor says of them.
    """
    out = {}
    for page in PAGES:
        made = processor.preprocess(draw(page).convert("RGB"), return_tensors="np")
        more = {key: int(made[key][0][0]) for key in ("rows", "cols") if key in made}
        out[page.name] = (np.ascontiguousarray(made["pixel_values"][0], dtype=np.float32), more)
    return out


def page_vectors(
    embed: Callable[[list[int], np.ndarray], np.ndarray], inputs: dict[str, tuple[list[int], np.ndarray]]
) -> dict[str, np.ndarray]:
    """Embeds pages and keeps what goes to the golden file.

    Args:
        embed: Ids and pixels of one page to (tokens, dim), by the torch class.
        inputs: Page's name to ids and pixels.

    Returns:
        Arrays by name: ``page/<name>/rows`` and ``page/<name>/projection``.
    """
    arrays: dict[str, np.ndarray] = {}
    for name in EMBEDDED:
        if name not in inputs:
            continue
        vectors = embed(*inputs[name])
        arrays[f"page/{name}/rows"] = vectors[kept_rows(len(vectors))]
        arrays[f"page/{name}/projection"] = vectors @ directions(vectors.shape[1])
    return arrays


def on_torch(function: Callable[..., torch.Tensor]) -> Callable[..., np.ndarray]:
    """Wraps a function on tensors as one on arrays, for one item without its batch axis.

    Args:
        function: On tensors with a batch axis.

    Returns:
        On lists and arrays without.
    """

    def call(*values: Any) -> np.ndarray:
        with torch.no_grad():
            out = function(*(torch.as_tensor(np.asarray(value))[None] for value in values))
        array: np.ndarray = out[0].float().numpy()
        return array

    return call
