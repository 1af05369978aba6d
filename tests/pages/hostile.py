"""Small PDFs that take memory or time without end. Written by hand; see `write_pdf`."""

from __future__ import annotations

from tests.pages.test_pdf import CORNER, stream, write_pdf

__all__ = ["COUNTS_TOO_MANY", "FORM_IN_ITSELF", "TINY_PATTERN", "TINY_PATTERN_STEPS", "between_good_pages"]

_CATALOGUE = b"<</Type/Catalog/Pages 2 0 R>>"


def between_good_pages(contents: bytes, resources: bytes, more: list[bytes]) -> bytes:
    """Three pages: one with a black corner, the hostile one with the contents, and one with a black corner."""
    box = b"/MediaBox[0 0 200 100]"
    return write_pdf(
        [
            _CATALOGUE,
            b"<</Type/Pages/Kids[3 0 R 4 0 R 3 0 R]/Count 3>>",
            b"<</Type/Page/Parent 2 0 R%b/Contents 5 0 R>>" % box,
            b"<</Type/Page/Parent 2 0 R%b/Contents 6 0 R/Resources<<%b>>>>" % (box, resources),
            stream(CORNER),
            stream(contents),
            *more,
        ]
    )


# A pattern of steps of 0.0001 points: hundreds of thousands of drawings per point, without end and in little memory.
TINY_PATTERN = (
    b"<</Type/Pattern/PatternType 1/PaintType 1/TilingType 1/BBox[0 0 1 1]/XStep 0.0001/YStep 0.0001/Resources<<>>"
    b"/Length 12>>stream\n0 0 1 1 re f\nendstream"
)
TINY_PATTERN_STEPS = between_good_pages(b"/Pattern cs /P scn 0 0 200 100 re f", b"/Pattern<</P 7 0 R>>", [TINY_PATTERN])
# A form that draws itself twice: 5 GB and more.
FORM_IN_ITSELF = between_good_pages(
    b"/X Do",
    b"/XObject<</X 7 0 R>>",
    [
        b"<</Type/XObject/Subtype/Form/BBox[0 0 9 9]/Resources<</XObject<</X 7 0 R>>>>/Length 11>>stream\n/X Do /X Do\n"
        b"endstream"
    ],
)
# One page, counted as 100,000.
COUNTS_TOO_MANY = write_pdf(
    [
        _CATALOGUE,
        b"<</Type/Pages/Kids[3 0 R]/Count 100000>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Contents 4 0 R>>",
        stream(CORNER),
    ]
)
