"""A model's files are found in every cache of huggingface_hub and fetched once; missing ones are named in the error."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from colpali_integrations import ColPali
from colpali_integrations.errors import ColPaliError, ModelLoadError, ModelNotFoundError
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.hub import bundled_folder, cache_state, read_json, resolve_files
from colpali_integrations.models.registry import find_model
from tests.models.hub_server import COMMIT, Hub, serve

FIXTURE = Path(__file__).parents[1] / "parity" / "fixtures" / "paligemma"
NAME = "Qdrant/colpali-v1.3-fp16"
FILES = tuple(name for name in find_model(NAME).files if (FIXTURE / name).is_file())
# What the Hub keeps in large-file storage, and a cache in its shared store.
LARGE = ("model.onnx", "model.onnx_data", "tokenizer.json")
PAGE = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def expected() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of the model when it is loaded from its own folder."""
    return embed(ColPali.from_pretrained(NAME, local_dir=FIXTURE))


@pytest.fixture
def local(tmp_path: Path) -> Path:
    """The model's files in a folder of their own, to be damaged."""
    folder = tmp_path / "local"
    folder.mkdir()
    for name in FILES:
        shutil.copy(FIXTURE / name, folder / name)
    return folder


def embed(model: ColPali) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    with model:
        return next(model.embed_queries(["a question"])), next(model.embed_images([PAGE]))


def assert_same(found: Iterable[NDArray[np.float32]], expected: Iterable[NDArray[np.float32]]) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def make_cache(
    cache: Path, *, shared: bool, names: Iterable[str] = FILES, revision: str = "main", listing: bool = False
) -> Path:
    """Lay out a cache as huggingface_hub does, and return the snapshot.

    classic:         models--o--n/snapshots/<commit>/<file> -> ../../blobs/<etag>
    shared (1.32+):  that blob -> <cache>/blobs/<2 hex digits>/<hash>, for files in large-file storage
    listing:         what the repository holds, which 1.32+ keeps in trees/<commit>.json
    """
    repository = cache / f"models--{NAME.replace('/', '--')}"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / revision).write_text(COMMIT)
    for name in names:
        content = (FIXTURE / name).read_bytes()
        etag, hash_ = hashlib.sha1(content).hexdigest(), hashlib.sha256(content).hexdigest()
        blob = repository / "blobs" / etag
        if shared and name in LARGE:
            stored = cache / "blobs" / hash_[:2] / hash_
            stored.parent.mkdir(parents=True, exist_ok=True)
            stored.write_bytes(content)
            stored.with_name(f"{hash_}.refs").write_text(f"{blob.relative_to(cache).as_posix()}\n")
            blob.symlink_to(os.path.relpath(stored, blob.parent))
        else:
            blob.write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    if shared:
        (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    if listing:
        files = {name: {"size": (FIXTURE / name).stat().st_size, "blob_id": "0" * 40} for name in FILES}
        (repository / "trees").mkdir()
        (repository / "trees" / f"{COMMIT}.json").write_text(json.dumps({"format_version": 1, "files": files}))
    return snapshot


# Caches


@pytest.mark.parametrize("shared", [False, True], ids=["classic", "shared store"])
@pytest.mark.parametrize("listing", [False, True], ids=["", "listed"])
def test_cached_models_load(
    shared: bool, listing: bool, tmp_path: Path, expected: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    """The graph and its external data lie in different folders of blobs, and onnxruntime refuses links out of one."""
    snapshot = make_cache(tmp_path, shared=shared, listing=listing)
    if shared:
        graph, weights = (snapshot / "model.onnx").resolve(), (snapshot / "model.onnx_data").resolve()
        assert graph.parent.parent == weights.parent.parent == tmp_path.resolve() / "blobs"
        assert graph.parent != weights.parent
    model = ColPali.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)
    assert model.splits_graph
    assert_same(embed(model), expected)


def test_the_shared_store_is_the_one_of_the_installed_library(tmp_path: Path) -> None:
    store = pytest.importorskip("huggingface_hub.utils._shared_blobs", reason="huggingface_hub < 1.32")
    make_cache(tmp_path, shared=True)
    assert store.is_shared_blobs_dir(tmp_path / "blobs")
    blobs = [
        blob for blob in (tmp_path / f"models--{NAME.replace('/', '--')}" / "blobs").iterdir() if blob.is_symlink()
    ]
    assert len(blobs) == len(LARGE)
    assert all(store.shared_blob_target(blob, tmp_path) is not None for blob in blobs)


@pytest.mark.parametrize("shared", [False, True], ids=["classic", "shared store"])
def test_a_snapshot_may_be_used_as_a_folder(
    shared: bool, tmp_path: Path, expected: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    snapshot = make_cache(tmp_path, shared=shared)
    assert_same(embed(ColPali.from_pretrained(NAME, local_dir=snapshot)), expected)
    assert ColPali.from_pretrained(NAME, local_dir=snapshot, lazy_load=True).description.revision == COMMIT
    assert_same(embed(ColPali.from_pretrained(snapshot)), expected)


def test_revisions(tmp_path: Path) -> None:
    make_cache(tmp_path, shared=False, revision="v1.0")
    for revision in ("v1.0", COMMIT):
        model = ColPali.from_pretrained(
            NAME, revision=revision, cache_dir=tmp_path, local_files_only=True, lazy_load=True
        )
        assert model.description.revision == COMMIT, "a tag may be moved, a commit stays"
    for other in (None, "main", "f" * 40):
        with pytest.raises(ModelNotFoundError) as caught:
            ColPali.from_pretrained(NAME, revision=other, cache_dir=tmp_path, local_files_only=True)
        assert (f"--revision {other}" in str(caught.value)) == (other is not None)


@pytest.mark.parametrize("shared", [False, True], ids=["classic", "shared store"])
@pytest.mark.parametrize("listing", [False, True], ids=["", "listed"])
@pytest.mark.parametrize("missing", ["tokenizer.json", "model.onnx_data", "model.onnx", "config.json"])
def test_the_error_of_an_incomplete_cache_names_the_missing_file(
    shared: bool, listing: bool, missing: str, tmp_path: Path
) -> None:
    make_cache(tmp_path, shared=shared, listing=listing, names=[name for name in FILES if name != missing])
    with pytest.raises(ModelNotFoundError) as caught:
        ColPali.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)
    message = str(caught.value)
    assert f"missing: {missing})" in message
    assert f"hf download {NAME}" in message
    assert "local_dir=" in message


@pytest.mark.parametrize("listing", [False, True], ids=["", "listed"])
def test_optional_files_may_be_missing(listing: bool, tmp_path: Path) -> None:
    names = [name for name in FILES if name not in ("special_tokens_map.json", "tokenizer_config.json")]
    make_cache(tmp_path, shared=False, names=names, listing=listing)
    ColPali.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True, lazy_load=True)


def test_a_dangling_link_is_a_missing_file(tmp_path: Path) -> None:
    snapshot = make_cache(tmp_path, shared=True)
    (snapshot / "model.onnx_data").resolve().unlink()
    with pytest.raises(ModelNotFoundError, match=r"missing: model\.onnx_data\)"):
        ColPali.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)


def test_an_empty_cache_names_everything(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        ColPali.from_pretrained(NAME, cache_dir=tmp_path, local_files_only=True)
    assert all(name in str(caught.value) for name in FILES)
    assert "local_files_only=True" in str(caught.value)


# The network: in processes of their own, because huggingface_hub reads its environment once


def run(code: str, *, cache: Path, **environment: str) -> tuple[dict[str, Any], str]:
    """Run code that leaves a JSON-safe `result`; returns it with what was written to stderr."""
    clean = {key: value for key, value in os.environ.items() if not key.lower().startswith(("hf_", "transformers_"))}
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        clean.pop(proxy, None), clean.pop(proxy.upper(), None)
    program = f"""
import json, sys, time
from colpali_integrations import ColPali
from colpali_integrations.errors import ColPaliError
NAME, CACHE = {NAME!r}, {os.fspath(cache / "hub")!r}
result, start = {{}}, time.monotonic()
try:
{textwrap.indent(textwrap.dedent(code), "    ")}
except ColPaliError as error:
    causes = []
    cause = error
    while cause := cause.__cause__ or cause.__context__:
        causes.append(type(cause).__name__)
    result.update(error=type(error).__name__, message=str(error), causes=causes)
result["seconds"] = time.monotonic() - start
print(json.dumps(result))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:colpali_integrations", "-c", program],
        env={**clean, "HF_HOME": os.fspath(cache), "HF_HUB_DISABLE_TELEMETRY": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


LOAD = """
model = ColPali.from_pretrained(NAME, cache_dir=CACHE, lazy_load=True)
result["family"] = model.description.family
"""
EMBED = """
import numpy as np
with ColPali.from_pretrained(NAME, cache_dir=CACHE) as model:
    result["query"] = next(model.embed_queries(["a question"])).tolist()
"""


@pytest.fixture
def content() -> dict[str, bytes]:
    """A repository of the Hub, with files that no model needs."""
    return {
        **{name: (FIXTURE / name).read_bytes() for name in FILES},
        "README.md": b"# A model",
        "pytorch_model.bin": bytes(1000),
        "onnx/model_quantized.onnx": bytes(1000),
    }


def test_download_then_cache(
    content: dict[str, bytes], tmp_path: Path, expected: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    with serve(Hub(NAME, content)) as hub:
        result, log = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert result.get("error") is None, result
        np.testing.assert_array_equal(np.array(result["query"], dtype=np.float32), expected[0])
        assert hub.downloaded() == set(FILES), "what the model needs, and nothing else"
        assert "Fetching" in log, "progress is shown"
        hub.requests.clear()
        again, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert again["family"] == "paligemma"
        assert hub.requests == [], "a cached model makes no request"
    offline, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert offline["query"] == result["query"]


def test_an_interrupted_download_is_completed(content: dict[str, bytes], tmp_path: Path) -> None:
    make_cache(tmp_path / "hub", shared=False, names=[name for name in FILES if name != "model.onnx_data"])
    with serve(Hub(NAME, content)) as hub:
        result, _ = run(EMBED, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert "query" in result, result
        assert hub.downloaded() == {"model.onnx_data"}


def test_the_revision_goes_to_the_hub(content: dict[str, bytes], tmp_path: Path) -> None:
    load = LOAD.replace("cache_dir", "revision='v2', cache_dir")
    with serve(Hub(NAME, content, revisions=("v2",))) as hub:
        result, _ = run(load, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert result.get("family") == "paligemma", result
        assert any(request.endswith("/revision/v2") for request in hub.requests)
        assert not any("/main" in request for request in hub.requests)
        result, _ = run(load.replace("v2", "v3"), cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result["error"] == "ModelNotFoundError"
    assert "RevisionNotFoundError" in result["message"]


def test_a_repository_that_lacks_a_file(content: dict[str, bytes], tmp_path: Path) -> None:
    del content["tokenizer.json"]
    with serve(Hub(NAME, content)) as hub:
        result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result["error"] == "ModelNotFoundError"
    assert "lacks tokenizer.json" in result["message"]


@pytest.mark.parametrize(
    ("options", "repository", "cause"),
    [({}, "somebody/else", "RepositoryNotFoundError"), ({"gated": True}, NAME, "GatedRepoError")],
)
def test_the_hubs_refusals_keep_their_cause(
    options: dict[str, Any], repository: str, cause: str, content: dict[str, bytes], tmp_path: Path
) -> None:
    with serve(Hub(repository, content, **options)) as hub:
        result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result["error"] == "ModelNotFoundError"
    assert cause in result["causes"]
    assert "hf auth login" in result["message"]
    assert len(hub.requests) == len(set(hub.requests)), "it asks again"


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid"])
def test_without_a_network_loading_fails_at_once(endpoint: str, tmp_path: Path) -> None:
    result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=endpoint)
    assert result["error"] == "ModelNotFoundError"
    assert "ConnectError" in result["causes"] or "ConnectionError" in result["causes"]
    assert "Check the network" in result["message"]
    assert "local_dir=" in result["message"]
    assert result["seconds"] < 30


@pytest.mark.slow
def test_a_silent_network_is_given_up_in_seconds(content: dict[str, bytes], tmp_path: Path) -> None:
    with serve(Hub(NAME, content, silent=True)) as hub:
        result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=hub.url)
    assert result["error"] == "ModelNotFoundError"
    assert any("Timeout" in cause for cause in result["causes"])
    assert result["seconds"] < 30  # 4 s of our own, up to 3 s that huggingface_hub takes before


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_mode_makes_no_request(variable: str, content: dict[str, bytes], tmp_path: Path) -> None:
    with serve(Hub(NAME, content)) as hub:
        result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT=hub.url, **{variable: "1"})
        assert hub.requests == []
    assert result["error"] == "ModelNotFoundError"
    assert "HF_HUB_OFFLINE is set" in result["message"]
    assert f"hf download {NAME}" in result["message"]


def test_offline_mode_may_be_set_after_the_import(content: dict[str, bytes], tmp_path: Path) -> None:
    with serve(Hub(NAME, content)) as hub:
        late = "import os, huggingface_hub.constants\nos.environ['HF_HUB_OFFLINE'] = 'yes'\n" + LOAD
        result, _ = run(late, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert hub.requests == []
    assert "HF_HUB_OFFLINE is set" in result["message"]


def test_cached_files_serve_when_the_hub_cannot_be_asked_for_the_rest(tmp_path: Path) -> None:
    names = [name for name in FILES if name != "special_tokens_map.json"]
    make_cache(tmp_path / "hub", shared=False, names=names, listing=True)
    result, _ = run(LOAD, cache=tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert result.get("family") == "paligemma", result


def test_the_environments_cache_is_used(tmp_path: Path) -> None:
    make_cache(tmp_path / "elsewhere", shared=True)
    result, _ = run(
        LOAD.replace("cache_dir=CACHE", "local_files_only=True"),
        cache=tmp_path,
        HF_HUB_CACHE=os.fspath(tmp_path / "elsewhere"),
    )
    assert result.get("family") == "paligemma", result


# Folders


def test_the_bundled_model_needs_no_network(tmp_path: Path) -> None:
    assert resolve_files(find_model("coltiny"), cache_dir=tmp_path, local_files_only=True) == bundled_folder(
        find_model("coltiny")
    )


def test_a_home_folder_may_be_abbreviated(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", os.fspath(local.parent))
    monkeypatch.setenv("USERPROFILE", os.fspath(local.parent))
    assert resolve_files(find_model(NAME), local_dir="~/local") == local


@pytest.mark.parametrize("missing", ["model.onnx", "model.onnx_data", "tokenizer.json", "preprocessor_config.json"])
def test_a_folder_that_lacks_a_file(missing: str, local: Path) -> None:
    (local / missing).unlink()
    with pytest.raises(ModelNotFoundError, match=rf"lacks .*{missing}.*it should hold model\.onnx, model\.onnx_data"):
        ColPali.from_pretrained(NAME, local_dir=local)


def test_other_files_in_a_folder_make_another_fingerprint(local: Path) -> None:
    before = ColPali.from_pretrained(NAME, local_dir=local, lazy_load=True).description
    assert str(before.revision).startswith("sha256:")
    assert ColPali.from_pretrained(NAME, local_dir=local, lazy_load=True).description == before
    (local / "config.json").write_text((local / "config.json").read_text() + "\n")
    after = ColPali.from_pretrained(NAME, local_dir=local, lazy_load=True).description
    assert after.fingerprint != before.fingerprint


def test_a_missing_folder_and_a_file_are_refused(local: Path) -> None:
    for folder in (local / "missing", local / "model.onnx"):
        with pytest.raises(ModelNotFoundError, match="no folder at"):
            ColPali.from_pretrained(NAME, local_dir=folder)


def test_external_data_is_optional_where_the_graph_holds_its_weights(
    local: Path, expected: tuple[NDArray[np.float32], NDArray[np.float32]]
) -> None:
    graph = onnx.load(local / "model.onnx")
    (local / "model.onnx_data").unlink()
    onnx.save(graph, local / "model.onnx")
    for model in (ColPali.from_pretrained(NAME, local_dir=local), ColPali.from_pretrained(local)):
        assert_same(embed(model), expected)


def test_a_bare_folder_without_its_external_data(local: Path) -> None:
    (local / "model.onnx_data").unlink()
    with pytest.raises(ModelLoadError, match=r"weights in model\.onnx_data, which is not in"):
        ColPali.from_pretrained(local)


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "a/../../outside.bin"])
def test_external_data_outside_the_folder_is_refused(location: str, local: Path) -> None:
    shutil.copy(local / "model.onnx_data", local.parent / "outside.bin")
    graph = onnx.load(local / "model.onnx", load_external_data=False)
    for tensor in graph.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (local / "model.onnx").write_bytes(graph.SerializeToString())
    with pytest.raises(ModelLoadError, match=r"outside its folder .*refused"):
        ColPali.from_pretrained(NAME, local_dir=local)


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx_data"])
@pytest.mark.parametrize("left", [0.0, 0.3, 0.99])
def test_cut_off_models(file: str, left: float, local: Path) -> None:
    content = (local / file).read_bytes()
    (local / file).write_bytes(content[: int(len(content) * left)])
    with pytest.raises(ModelLoadError, match=r"damaged|cut off|cannot load") as caught:
        ColPali.from_pretrained(NAME, local_dir=local)
    assert str(local / "model.onnx") in str(caught.value)
    assert caught.value.__cause__ is not None or left == 0


@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe\x00", b'{"size": 3}'])
def test_damaged_configurations(name: str, content: bytes, local: Path) -> None:
    (local / name).write_bytes(content)
    with pytest.raises(ModelLoadError, match=name.replace(".", r"\.")):
        ColPali.from_pretrained(NAME, local_dir=local)


def test_json_files(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8")
    assert read_json(tmp_path, "a.json") == {"a": 1}
    assert read_json(tmp_path, "b.json", optional=True) == {}
    with pytest.raises(ModelLoadError, match=r"cannot read .*b\.json"):
        read_json(tmp_path, "b.json")


@pytest.mark.parametrize("repository", ["has spaces/x", "a/b/c", "../escape", ""])
def test_malformed_repository_names(repository: str, tmp_path: Path) -> None:
    description = replace(find_model(NAME), repository=repository)
    with pytest.raises(ColPaliError):
        resolve_files(description, cache_dir=tmp_path, local_files_only=True)


def test_a_description_of_its_own(tmp_path: Path) -> None:
    mine = ModelDescription(name="mine", family="paligemma", dim=128, repository="me/mine")
    with pytest.raises(ModelNotFoundError, match="hf download me/mine;"):
        resolve_files(mine, cache_dir=tmp_path, local_files_only=True)


# What is there


@pytest.mark.parametrize("shared", [False, True], ids=["classic", "shared store"])
def test_the_state_of_a_cache(shared: bool, tmp_path: Path) -> None:
    description = find_model(NAME)
    nothing = cache_state(description, cache_dir=tmp_path)
    assert (nothing.folder, nothing.size, nothing.complete) == (None, 0, False)
    snapshot = make_cache(tmp_path, shared=shared)
    whole = cache_state(description, cache_dir=tmp_path)
    assert whole.complete
    assert whole.folder == snapshot
    assert sum((FIXTURE / name).stat().st_size for name in FILES) <= whole.size
    assert whole.size < 1.01 * sum((FIXTURE / name).stat().st_size for name in FILES), "each file counts once"
    (tmp_path / f"models--{NAME.replace('/', '--')}" / "blobs" / "abc.incomplete").write_bytes(b"half")
    weights = (snapshot / "model.onnx_data").resolve()
    weights.write_bytes(weights.read_bytes()[:-1])
    short = cache_state(description, cache_dir=tmp_path)
    assert not short.complete
    assert short.short == ("model.onnx_data",)
    assert [path.name for path in short.partial] == ["abc.incomplete"]
    weights.unlink()
    missing = cache_state(description, cache_dir=tmp_path)
    assert missing.missing == ("model.onnx_data",)
    assert not missing.complete


def test_the_state_of_the_bundled_model() -> None:
    state = cache_state(find_model("coltiny"))
    assert state.complete
    assert state.folder == bundled_folder(find_model("coltiny"))
    assert 5_000_000 < state.size < 20_000_000
