"""Write the seeds of the targets whose inputs are files: `python -m tests.fuzz.make_seeds`.

Inputs that once were faults stand beside them, in files whose names begin with "fault".
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import onnx.external_data_helper
import onnx.parser
from PIL import Image

from tests.fuzz.engine import SEEDS
from tests.pages.hostile import COUNTS_TOO_MANY, between_good_pages
from tests.pages.test_pdf import stream, write_pdf

_FORMATS = {
    "PNG": ("L", "LA", "P", "RGBA", "1", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "GIF": ("P",),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "RGB", "CMYK", "I;16", "F"),
    "BMP": ("1", "RGB"),
    "PPM": ("1", "L", "RGB"),
    "JPEG2000": ("L", "RGB"),
    "TGA": ("RGB",),
    "ICO": ("RGBA",),
}
_TEXT = b"BT /F 12 Tf 20 50 Td (Low tide at six) Tj ET"


def pictures() -> Iterator[tuple[str, bytes]]:
    """A small picture of each format and mode."""
    gradient = Image.linear_gradient("L").resize((17, 13))
    for format_, modes in _FORMATS.items():
        for mode in modes:
            written = io.BytesIO()
            picture = gradient.convert("I;16" if mode == "I;16" else mode)
            picture.save(written, format_, **({"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"} if format_ == "JPEG" else {}))
            yield f"{format_}-{mode.replace(';', '_')}".lower(), written.getvalue()


def pdfs() -> Iterator[tuple[str, bytes]]:
    """Small PDFs with text, labels, a form, a picture, a shading and annotations."""
    font = b"/Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>"
    yield "text", between_good_pages(_TEXT, font, [])
    yield "counts", COUNTS_TOO_MANY
    picture = (
        b"<</Type/XObject/Subtype/Image/Width 2/Height 2/ColorSpace/DeviceRGB/BitsPerComponent 8/Length 12>>stream\n"
    )
    yield (
        "picture",
        between_good_pages(
            b"q 100 0 0 50 20 20 cm /X Do Q",
            b"/XObject<</X 7 0 R>>",
            [picture + b"stream\n" + bytes(range(12)) + b"\nendstream"],
        ),
    )
    shading = b"/Shading<</S<</ShadingType 2/ColorSpace/DeviceGray/Coords[0 0 200 0]/Function 7 0 R>>>>"
    yield "shading", between_good_pages(b"/S sh", shading, [b"<</FunctionType 2/Domain[0 1]/C0[0]/C1[1]/N 1>>"])
    field = b"<</Type/Annot/Subtype/Widget/FT/Tx/T(name)/V(Ebbe)/Rect[10 10 90 30]/DA(/F 12 Tf 0 g)>>"
    yield (
        "form",
        write_pdf(
            [
                b"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[5 0 R]>>/PageLabels<</Nums[0<</S/r/St 4>>]>>>>",
                b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
                b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]/Rotate 90/UserUnit 2/Contents 4 0 R/Annots[5 0 R]"
                b"/Resources<<" + font + b">>>>",
                stream(_TEXT),
                field,
            ]
        ),
    )


_GRAPH = """<ir_version: 8, opset_import: ["" : 17]>
merged (int64[batch, length] input_ids, float[batch, 2, 2] pixel_values) => (float[batch, length, 2] embeddings)
<float[2, 2] tower = {1, 0, 0, 1}, float[4, 2] words = {1, 0, 0, 1, 1, 1, 0, 0}, int64[1] one = {1}> {
    seen = MatMul(pixel_values, tower)
    page = ReduceMean <axes = [1], keepdims = 1> (seen)
    text = Gather(words, input_ids)
    embeddings = Add(text, page)
}"""


def graphs() -> Iterator[tuple[str, bytes]]:
    """A merged model, with its weights inside and in a file beside it."""
    model = onnx.parser.parse_model(_GRAPH)
    yield "inside", model.SerializeToString()
    [words] = [one for one in model.graph.initializer if one.name == "words"]
    words.raw_data = bytes(32)
    onnx.external_data_helper.set_external_data(words, "weights.bin", offset=0, length=32)
    for field in ("float_data", "raw_data"):
        words.ClearField(field)
    yield "beside", model.SerializeToString()


def main() -> None:
    for target, made in (("image", pictures()), ("pdf", pdfs()), ("onnx", graphs())):
        folder = SEEDS / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in made:
            (folder / name).write_bytes(data)


if __name__ == "__main__":
    main()
