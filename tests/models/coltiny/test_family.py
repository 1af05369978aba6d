"""The bundled model: it finds words on pages that were not in its training, in any batch, and accepts any input."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from PIL import Image, ImageDraw, ImageFont

import colpali_integrations
from colpali_integrations import ColPali, max_sim
from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.coltiny.family import ColTinyFamily
from colpali_integrations.models.coltiny.words import (
    FEATURE_COUNT,
    MAX_WORD_FEATURES,
    MAX_WORD_LENGTH,
    fold,
    query_words,
    word_features,
    words,
)
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import Codec
from colpali_integrations.models.registry import find_model
from colpali_integrations.runtime.arrays import Float32

FOLDER = Path(colpali_integrations.__file__).parent / "models" / "coltiny" / "weights"
TOPICS = {
    "harbour": "The harbour master counts every vessel before dawn and records the tide",
    "violin": "A violin has four strings tuned in perfect fifths and is played with a bow",
    "glacier": "The glacier retreats when summer melting exceeds the winter snowfall",
    "turbine": "Each turbine converts steam pressure into rotation of the generator shaft",
    "orchard": "An orchard of apple trees needs pruning while the branches are dormant",
    "Verfahren": "Das Verfahren wird im folgenden Abschnitt erklärt und an Beispielen gezeigt",
}


def page(text: str, *, size: int = 15, mode: str = "RGB", shape: tuple[int, int] = (816, 1152)) -> Image.Image:
    """A page of lines of ``text``, in a face (Pillow's own) that training never used."""
    image = Image.new(mode, shape, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size)
    line: list[str] = []
    y = 60
    for word in [*text.split(), ""]:
        if line and (not word or draw.textlength(" ".join([*line, word]), font=font) > shape[0] - 120):
            draw.text((60, y), " ".join(line), font=font, fill="black")
            line, y = [], y + round(size * 1.6)
        line.append(word)
    return image


class Model:
    """The family and its two sessions, as the engine drives them."""

    def __init__(self) -> None:
        self.family = ColTinyFamily(find_model("coltiny"), FOLDER)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._sessions = {
            path: ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            for path in (self.family.graphs.pages, self.family.graphs.queries)
        }

    def _run(self, path: Path, codec: Codec[object], items: Sequence[object]) -> list[Float32]:
        session = self._sessions[path]
        batch = [codec.prepare(item) for item in items]
        assert len({item.key for item in batch}) == 1
        names = [output.name for output in session.get_outputs()]
        return codec.vectors(dict(zip(names, session.run(names, codec.feed(batch)), strict=True)), batch)

    def pages(self, *images: Image.Image) -> list[Float32]:
        return self._run(self.family.graphs.pages, self.family.pages, images)  # type: ignore[arg-type]

    def queries(self, *texts: str) -> list[Float32]:
        return self._run(self.family.graphs.queries, self.family.queries, texts)  # type: ignore[arg-type]

    def scores(self, texts: Sequence[str], images: Sequence[Image.Image]) -> Float32:
        found = [self.pages(image)[0] for image in images]
        return np.array([[(q @ p.T).max(axis=1).sum() for p in found] for q in self.queries(*texts)], np.float32)


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.mark.parametrize("size", [12, 22])
def test_finds_the_page_that_says_the_word(model: Model, size: int) -> None:
    images = [page(text, size=size) for text in TOPICS.values()]
    scores = model.scores(list(TOPICS), images)
    assert scores.argmax(axis=1).tolist() == list(range(len(TOPICS)))
    rest = np.sort(scores, axis=1)
    # The right page must stand out, not win by a hair.
    assert (rest[:, -1] > 2 * rest[:, -2]).all(), rest


def test_finds_pages_by_a_sentence(model: Model) -> None:
    questions = {
        "harbour": "who counts the vessels before dawn?",
        "violin": "How are the four strings tuned?",
        "glacier": "when does melting exceed snowfall",
        "turbine": "converting steam pressure into rotation",
        "orchard": "pruning of dormant branches",
    }
    scores = model.scores(list(questions.values()), [page(TOPICS[name]) for name in questions])
    assert scores.argmax(axis=1).tolist() == list(range(len(questions)))


def test_reads_numbers_identifiers_and_white_on_dark(model: Model) -> None:
    lines = ["Invoice 4711 of March", "Shipment 2086 of April", "call fork_exec here"]
    images = [page(f"{line} and some other text around it", size=18) for line in lines]
    dark = [Image.eval(image.convert("L"), lambda grey: 255 - grey) for image in images]
    for shown in (images, dark):
        assert model.scores(["4711", "2086", "fork_exec"], shown).argmax(axis=1).tolist() == [0, 1, 2]


def test_reads_accents_and_decimals(model: Model) -> None:
    printed = ["Überblick", "naïve", "Zürich", "10.5", "1,000"]
    scores = model.scores(printed, [page(f"{word} and some other text around it", size=18) for word in printed])
    own = np.diag(scores)
    others = (scores - np.diag(own)).max(axis=1)
    assert (own > 2 * others).all(), scores
    assert own.min() > 0.1


def test_scores_stay_in_the_documented_range(model: Model) -> None:
    often = page("harbour " * 300)
    config = model.family.config
    bound = 1.1 * (config.k1 + 1) * (1 - config.hinge)
    scores = model.scores(["harbour", "nothing of the kind"], [often, page(TOPICS["violin"])])
    assert (scores >= 0).all()
    assert 0 < scores[0, 0] <= bound + 0.4
    assert (scores[1] <= bound * len(query_words("nothing of the kind")) + 0.4).all()


def test_every_page_ends_with_the_zero_vector_and_is_float32(model: Model) -> None:
    for vectors in model.pages(page(TOPICS["violin"]), page(TOPICS["glacier"])):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == find_model("coltiny").dim
        assert np.isfinite(vectors).all()
        assert not vectors[-1].any()
        lengths = np.linalg.norm(vectors[:-1, :-1], axis=1)
        assert lengths[:-1] == pytest.approx(vectors[:-2, -1], abs=1e-5)  # len * unit vector, and len
        assert lengths[-1] == pytest.approx(1)  # what the page is about


@pytest.mark.slow
def test_a_page_does_not_depend_on_its_batch(model: Model) -> None:
    texts = [*TOPICS.values()][:3]
    # Pages whose ink has one size share a run.
    images = [framed(page(text)) for text in texts]
    together = model.pages(*images)
    for image, vectors in zip(images, together, strict=True):
        # Not bit-equal: matrix products of other numbers of rows take other kernels.
        assert model.pages(image)[0] == pytest.approx(vectors, abs=1e-4)
    for one, other in zip(together, model.pages(*images[::-1])[::-1], strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def framed(image: Image.Image) -> Image.Image:
    """With a mark in two corners, so that the ink reaches from one to the other."""
    draw = ImageDraw.Draw(image)
    draw.rectangle((20, 20, 24, 24), fill="black")
    draw.rectangle((image.width - 24, image.height - 24, image.width - 20, image.height - 20), fill="black")
    return image


@pytest.mark.parametrize(("left", "top"), [(1, 0), (0, 7), (13, 131), (150, 40)])
def test_a_white_margin_changes_nothing(model: Model, left: int, top: int) -> None:
    """At the same size of print: an A4 page is brought to 1152 pixels, a small picture is enlarged twice."""
    whole = page(TOPICS["violin"], shape=(816, 1152))
    tall = Image.new("RGB", (816 + left, 1152), "white")
    tall.paste(whole, (left, 0))
    assert model.pages(tall)[0] == pytest.approx(model.pages(whole)[0], abs=1e-3)
    small = page(TOPICS["violin"], size=9, shape=(400, 300))
    margin = Image.new("RGB", (400 + left, 300 + top), "white")
    margin.paste(small, (left, top))
    assert model.pages(margin)[0] == pytest.approx(model.pages(small)[0], abs=1e-3)


def test_a_query_does_not_depend_on_its_batch(model: Model) -> None:
    texts = ["harbour", "winter snowfall of 1998", "a", "pneumonoultramicroscopicsilicovolcanoconiosis fork"]
    together = model.queries(*texts)
    for text, vectors in zip(texts, together, strict=True):
        # Not bit-equal: matrix products of one row and of many take different kernels.
        assert model.queries(text)[0] == pytest.approx(vectors, abs=1e-5)


def test_same_input_same_output(model: Model) -> None:
    image = page(TOPICS["turbine"])
    first, again = Model(), model
    assert np.array_equal(first.pages(image)[0], again.pages(image)[0])
    assert np.array_equal(first.queries("turbine shaft")[0], again.queries("turbine shaft")[0])


def test_a_blank_page_has_one_vector_and_scores_zero(model: Model) -> None:
    for blank in (Image.new("RGB", (816, 1152), "white"), Image.new("L", (500, 500), 0)):
        vectors = model.pages(blank)[0]
        assert len(vectors) >= 1
        assert np.isfinite(vectors).all()
    assert model.scores(["harbour"], [Image.new("RGB", (816, 1152), "white")]).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("shape", "mode"), [((1, 1), "L"), ((64, 32), "RGB"), ((10, 4000), "L"), ((4000, 10), "RGB"), ((333, 777), "RGB")]
)
def test_any_shape_of_page(model: Model, shape: tuple[int, int], mode: str) -> None:
    vectors = model.pages(Image.new(mode, shape, "white"))[0]
    assert vectors.shape[1] == model.family.config.dim
    assert np.isfinite(vectors).all()


def test_noise_stays_bounded(model: Model) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1152, 1152), np.uint8)
    vectors = model.pages(Image.fromarray(noise))[0]
    assert np.isfinite(vectors).all()
    assert len(vectors) <= 2049


@pytest.mark.parametrize(
    "text",
    [
        *(
            "???",
            "東京",
            "🙂",
            "Καλημέρα",
            "\x00",
            "\ud800",
            "-",
            "the of and",
            "a",
            "<image><pad>",
            "ß",
            "İ",
            "1.",
            ".",
        ),
        *("e\u0301", "\u202eabc", "9" * 5000, "word " * 2000, "\u1d2c\u02b0", "²", "½"),
    ],
)
def test_weird_queries_give_finite_vectors(model: Model, text: str) -> None:
    vectors = model.queries(text)[0]
    assert vectors.dtype == np.float32
    assert len(vectors) == model.family.token_count(text) >= 1
    assert np.isfinite(vectors).all()
    assert np.linalg.norm(vectors, axis=1).min() > 0


def test_words_of_a_query() -> None:
    assert query_words("How is the Größe of fork_exec() set?") == ["grosse", "fork", "exec", "set"]
    assert query_words("version 3.14, 1,000.5 and x") == ["version", "3.14", "1,000.5"]
    assert query_words("to be or not to be") == ["to", "be", "or", "not", "to", "be"]
    assert query_words("x y") == ["x", "y"]
    assert query_words("東京 fork") == ["fork"]
    assert query_words("東京 大阪") == ["東京", "大阪"]
    assert words("a" * 100) == ["a" * MAX_WORD_LENGTH]
    assert fold("Ærø Łódź CAFÉ ﬁle") == "aero lodz cafe file"


def test_features_are_in_range_bounded_and_tell_words_apart() -> None:
    samples = ["a", "fork", "frok", "3.14", "1,000", "東京都", "\ud800", "q" * MAX_WORD_LENGTH, "0" * MAX_WORD_LENGTH]
    for sample in samples:
        ids = word_features(sample)
        assert 0 < len(ids) <= MAX_WORD_FEATURES
        assert min(ids) >= 0
        assert max(ids) < FEATURE_COUNT
    for one, other in itertools.combinations(samples, 2):
        assert sorted(word_features(one)) != sorted(word_features(other))


def test_long_queries_are_cut_with_one_warning(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    short = replace(find_model("coltiny"), name="coltiny-short", max_query_tokens=3)
    family = ColTinyFamily(short, FOLDER)
    with caplog.at_level("WARNING"):
        assert len(family.queries.words("one two three four")) == 3
        assert family.token_count("five six seven eight nine", include_special=False) == 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_a_question_without_latin_letters_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    queries = ColTinyFamily(find_model("coltiny"), FOLDER).queries
    for text in ("1999", "Größe", "\u0434\u043e\u0433\u043e\u0432\u043e\u0440 pdf"):
        queries.prepare(text)
    assert not caplog.records
    for text in ("\u0434\u043e\u0433\u043e\u0432\u043e\u0440", "\u5951\u7d04"):
        queries.prepare(text)
    [record] = caplog.records
    assert record.getMessage().startswith("ColTiny reads Latin script, and the query '\u0434\u043e")


def test_a_layout_has_the_position_of_a_word(model: Model) -> None:
    image = Image.new("L", (816, 1152), 255)
    ImageDraw.Draw(image).text((500, 900), "harbour", font=ImageFont.load_default(20), fill=0)
    pages, path = model.family.pages, str(model.family.graphs.pages)
    prepared = pages.prepare(image)
    assert prepared.extra.page == (816, 1152)
    names = ("vectors", "salience", "cells")
    found = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(names, pages.feed([prepared]))
    layout = pages.layouts(dict(zip(names, found, strict=True)), [prepared])[0]
    assert layout.cells[-1].tolist() == [-1, -1]
    best = int((model.queries("harbour")[0] @ layout.vectors.T).argmax())
    row, column = layout.cells[best]
    assert 900 <= (row + 0.5) * 16 + prepared.extra.top <= 930
    assert 500 <= (column + 0.5) * 16 + prepared.extra.left <= 580


def test_the_files_stay_small_and_name_family_and_license() -> None:
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= 12 * 1024 * 1024
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["family"] == "coltiny"
    assert config["dim"] == find_model("coltiny").dim
    assert "licence" in (FOLDER / "MODEL_CARD.md").read_text(encoding="utf-8").lower()


def test_a_folder_that_is_no_coltiny_is_refused(tmp_path: Path) -> None:
    description = find_model("coltiny")
    with pytest.raises(ModelLoadError, match="not a ColTiny configuration"):
        ColTinyFamily(description, tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(ModelLoadError, match="not a ColTiny configuration"):
        ColTinyFamily(description, tmp_path)
    (tmp_path / "config.json").write_text((FOLDER / "config.json").read_text())
    wrong = ModelDescription(name="other", family="coltiny", dim=64, model_file="image.onnx")
    with pytest.raises(ModelLoadError, match="dim 128"):
        ColTinyFamily(wrong, tmp_path)


def test_a_text_ranks_as_a_page_that_prints_it() -> None:
    """Texts and pages share a store: the same words must count alike, whether printed or typed."""
    model = ColPali.from_pretrained("coltiny")
    lines = list(TOPICS.values())[:3]
    typed = list(model.embed_texts(lines))
    for vectors, line in zip(typed, lines, strict=True):
        assert vectors.dtype == np.float32
        assert vectors.shape[1] == model.dim
        assert not vectors[-1].any(), "the zero vector"
        assert len(vectors) in {len(set(query_words(line))) + 1, len(set(query_words(line))) + 2}, (
            "and what it is about"
        )
    printed = list(model.embed_images([page(line) for line in lines]))
    queries = list(model.embed_queries(["harbour vessel", "strings of a violin", "glacier melting"]))
    for scores, images in zip(max_sim(queries, typed), max_sim(queries, printed), strict=True):
        assert scores.argmax() == images.argmax()
        assert images.max() <= scores.max() * 1.05, "nothing is read better than it is typed"
        assert scores.max() < 3 * images.max()
    once, often = model.embed_texts(["tide", "tide " * 5])
    [query] = model.embed_queries("tide")
    assert max_sim(query, once) < max_sim(query, often)
    assert max_sim(query, once) <= model.description.best_match * np.linalg.norm(query, axis=1).sum()
