"""Heatmaps as matplotlib figures, for notebooks and papers. They need the extra `plot`; `drawing` does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from colpali_integrations.errors import MissingExtraError
from colpali_integrations.explain.drawing import heat_limits, heat_strength
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.pages.images import ImageSource, load_image

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_similarity_map"]


def plot_similarity_map(
    page_image: ImageSource,
    maps: SimilarityMaps,
    word: int | str | None = None,
    *,
    ax: Axes | None = None,
    limits: tuple[float, float] | None = None,
    cmap: str = "inferno",
    alpha: float = 0.6,
    colorbar: bool = True,
) -> Axes:
    """Plot a heatmap of a question's matches on a page.

    Args:
        page_image: anything that `load_image` takes.
        maps: the page's maps, from `similarity_maps`.
        word: a token of the question or its index; None for all of its words together.
        ax: the axes to plot on; None for a new figure of pyplot, which notebooks show and the caller closes.
        limits: the similarities at the ends of the colour map; by default the map's median and maximum. Values below
            the first are transparent.
        cmap: name of a matplotlib colour map.
        alpha: opacity of the strongest matches, from 0 to 1.
        colorbar: add a bar with the similarity of each colour.

    Returns:
        The axes; `ax.figure.savefig("map.png")` saves them.

    Raises:
        MissingExtraError: matplotlib is not installed.
        ImageError: the page cannot be read.
        InputError: the question does not have the word.

    Example:
        >>> from colpali_integrations import ColPali, pdf_pages
        >>> from colpali_integrations.explain import similarity_maps
        >>> model = ColPali.from_pretrained()
        >>> page = next(pdf_pages("report.pdf"))
        >>> [embedded] = model.embed_pages([page])
        >>> [query] = model.embed_queries("diverging palettes")
        >>> maps = similarity_maps(query, *embedded, tokens=model.query_tokens("diverging palettes"))
        >>> plot_similarity_map(page, maps, "palettes").figure.savefig("palettes.png")
    """
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "plot_similarity_map") from error
    page = load_image(page_image).convert("RGB")
    values = maps.on_page(word, size=page.size)
    low, high = limits or heat_limits([maps.of(word)])
    if ax is None:
        width = 6.4
        _, ax = matplotlib.pyplot.subplots(figsize=(width, width * page.height / page.width), layout="constrained")
    ax.imshow(np.asarray(page))
    shown: Any = ax.imshow(
        values, cmap=cmap, vmin=low, vmax=max(high, low + 1e-9), alpha=alpha * heat_strength(values, (low, high))
    )
    if colorbar:
        # Made from an image without the opacity of the overlay, which the bar would otherwise have too.
        scale = matplotlib.cm.ScalarMappable(norm=shown.norm, cmap=shown.cmap)
        bar = ax.figure.colorbar(scale, ax=ax, fraction=0.046, pad=0.02)
        bar.set_label("similarity")
    token = None if word is None else maps.tokens[word] if isinstance(word, int) else word
    ax.set_title("all words" if word is None else token or f"query vector {word}")
    ax.set_axis_off()
    return ax
