"""Packs: their own programs give the masks that a run scores, whatever comes before and after the network."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import compress, refused

import compress.commands.pack as command
from compress.commands.pack import pack
from compress.data.dataset.cases import Fit, Normalization
from compress.data.dataset.images import Images
from compress.errors import SegpressError
from compress.packing import contents, proof
from compress.packing.about import about
from compress.packing.contents import put_program
from compress.packing.emulators.triton import Server, read_config
from compress.packing.kinds import cpp
from compress.packing.source import Source, source_of
from compress.pipeline.finished import finished
from compress.postprocess.applying.chain import Postprocess
from compress.task import Answer
from export.registry import named

RUNNER = Path(contents.__file__).parent / "runner"
NAMES = ("background", "square", "disc")
Done = tuple[Path, dict[str, Any]]


def quiet(_: str) -> None:
    """Nobody reads what is said."""


@pytest.fixture(autouse=True)
def runner_found(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The files of packs, as they import each other in a pack."""
    monkeypatch.syspath_prepend(RUNNER)
    yield
    for name in ("segpress_run", "segpress_pixels"):
        sys.modules.pop(name, None)


@pytest.fixture
def source(done: Done) -> Source:
    return source_of(finished(done[0]), None, ("onnxruntime",), None)


@pytest.fixture(autouse=True)
def python_keeps_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it does for users, whatever is set where tests run."""
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)


@pytest.mark.parametrize(("kind", "backend"), [("python", "openvino"), ("triton", "onnxruntime")])
def test_a_pack_gives_the_masks_of_the_run(kind: str, backend: str, done: Done, tmp_path: Path) -> None:
    images = sorted((Path(done[1]["data"]["source"]) / "images").glob("*.png"))[:3]
    assert len(images) == 3
    given = [word for image in images for word in ("--image", image)]
    ran = compress("pack", done[0], "--for", kind, "--backend", backend, "--out", tmp_path / "a pack", *given)
    assert ran.returncode == 0, ran.stderr
    assert "100.0000% of the pixels of 3 images have the class that the run gives them" in ran.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["a pack"]
    assert kind == "triton" or "python 'a pack'/segpress_run.py" in ran.stdout
    assert not list(tmp_path.rglob("__pycache__"))
    (told,) = {path.read_text() for path in (tmp_path / "a pack").rglob("segpress.json")}
    about = json.loads(told)
    row = next(row for row in done[1]["rows"] if (row["step"], row["backend"]) == ("01-int8", backend))
    assert about["model"]["sha256"] == row["sha256"] and about["model"]["runtime"] == backend
    assert [each["name"] for each in about["classes"]] == list(NAMES)
    assert about["measured"]["dice"] == row["scores"]["dice"]
    assert about["measured"]["latency_ms_p50"] == row["latency_ms"]["p50"]


def test_the_baseline_is_packed_where_it_is_named(done: Done, tmp_path: Path) -> None:
    (tmp_path / ".pack.part").mkdir()
    (tmp_path / ".pack.part" / "left by one that was killed").touch()
    packed = pack(done[0], "python", tmp_path / "pack", step="baseline", licence="CC BY 4.0", say=quiet)
    assert packed.same >= proof.LEAST and packed.images == len(proof.SIZES) + 1
    told = json.loads((tmp_path / "pack" / "segpress.json").read_text())
    assert (told["licence"], told["made"]["step"]) == ("CC BY 4.0", "baseline")
    assert sorted(path.name for path in (tmp_path / "pack").iterdir()) == sorted(
        [told["model"]["file"], "requirements.txt", "segpress.json", "segpress_pixels.py", "segpress_run.py"]
    )


def settings() -> Iterator[Any]:
    """How images come in and masks go out: fit, normalization, what is restored, logits, steps."""
    one, both = ("background", "disc"), NAMES
    plain = Normalization(mean=(0.4,), std=(0.2,))
    own, each = Normalization(z_score="image"), Normalization(z_score="channel", order="BGR")
    bgr = Normalization(mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3), order="BGR")
    sure = {"threshold": {"at": {"disc": 0.6}}}
    yield pytest.param("resize", bgr, "probabilities", 3, both, {}, id="the largest wins")
    yield pytest.param("pad", plain, "probabilities", 3, both, sure, id="padded, thresholds")
    yield pytest.param("pad", each, "labels", 3, both, {}, id="labels of a padded image")
    yield pytest.param("resize", own, "probabilities", 1, one, {}, id="a sigmoid")
    yield pytest.param("resize", plain, "labels", 1, one, {"threshold": {"at": 0.3}}, id="labels of a sigmoid")
    yield pytest.param("resize", plain, "probabilities", 2, one, {"threshold": {"at": 0.7}}, id="two logits, threshold")
    steps = {"largest_component": {"classes": ["disc"]}, "remove_small": {"under_px": 9}, "fill_holes": {}}
    yield pytest.param("pad", each, "probabilities", 3, both, steps, id="components and holes")


@dataclass(frozen=True, kw_only=True)
class Scene:
    """An image, what a network of 40x56 said of it, and what is scored of that."""

    path: Path
    pixels: np.ndarray
    inputs: np.ndarray
    said_KHW: np.ndarray
    labels_HW: np.ndarray


def scenes(place: Path, setting: Any, source: Source) -> tuple[dict[str, Any], list[Scene]]:
    """segpress.json of a setting, and images of every kind under it."""
    how, normalization, restore, logits, names, steps = setting
    postprocess = Postprocess(
        steps=tuple((word, named("compress.postprocess", word)(**options)) for word, options in steps.items()),
        class_names=names,
    )
    fit = Fit(size=(40, 56), how=how, restored_from=restore)
    channels, rng = 3 if logits == 3 else 1, np.random.default_rng(logits)
    told = about(source, "onnxruntime", "not stated")
    told["classes"] = [{"index": index, "name": name} for index, name in enumerate(names)]
    told["model"]["output"]["shape"][1] = logits
    told["preprocess"] |= {"fit": how, "size": list(fit.size), "channels": channels}
    told["preprocess"] |= {"mean": normalization.mean, "std": normalization.std}
    told["preprocess"] |= {"z_score": normalization.z_score, "order": normalization.order}
    on_labels = [
        {word: {**options, "classes": list(options["classes"] or names[1:])}}
        for each in postprocess.as_list()
        for word, options in each.items()
        if word != "threshold"
    ]
    told["postprocess"] |= {"restore": restore, "threshold": postprocess.threshold(logits), "steps": on_labels}
    made = []
    for path in proof.drawn(place, deep=True):
        pixels = np.asarray(Image.open(path))
        fitted_CHW = Images().image(path, channels, fit)
        coarse = rng.standard_normal((logits, 6, 7)).astype(np.float32) * 4
        said_KHW = np.stack([np.asarray(Image.fromarray(each).resize((56, 40))) for each in coarse])
        answer = Answer(said_KHW=said_KHW, pixels_CHW=fitted_CHW, fit=fit, postprocess=postprocess)
        labels_HW = answer.labels(pixels.shape[:2], None)
        assert len(np.unique(labels_HW)) > 1
        inputs = normalization(fitted_CHW)[None]
        made.append(Scene(path=path, pixels=pixels, inputs=inputs, said_KHW=said_KHW, labels_HW=labels_HW))
    return told, made


SETTINGS = ("how", "normalization", "restore", "logits", "names", "steps")


@pytest.mark.parametrize(SETTINGS, settings())
def test_what_comes_before_and_after_is_what_is_scored(
    how: str,
    normalization: Normalization,
    restore: str,
    logits: int,
    names: Any,
    steps: Any,
    source: Source,
    tmp_path: Path,
) -> None:
    told, made = scenes(tmp_path, (how, normalization, restore, logits, names, steps), source)
    put_program(told, tmp_path)
    from segpress_run import Segmenter

    segmenter = Segmenter(tmp_path, runtime=False)
    for scene in made:
        # Of 16 bits sums are floats, and are added up in another order.
        off = 0 if scene.pixels.dtype == np.uint8 else 1e-6
        np.testing.assert_allclose(segmenter.prepared(scene.pixels), scene.inputs, rtol=0, atol=off)
        ours = segmenter.mask(scene.said_KHW, scene.labels_HW.shape)
        assert ours.dtype == np.uint8 and ours.shape == scene.labels_HW.shape
        assert (ours == scene.labels_HW).mean() >= 0.9999


PROBE = """
#include <cstdio>
#include <cstdlib>
#include "segpress.hpp"
// HEIGHT WIDTH CHANNELS < pixels, logits > inputs, mask
int main(int, char** words) {
    const int height = atoi(words[1]), width = atoi(words[2]), channels = atoi(words[3]);
    segpress::Image image{height, width, channels, std::vector<uint8_t>(size_t(height) * width * channels)};
    using namespace segpress::config;
    std::vector<float> said(size_t(logits) * segpress::config::height * segpress::config::width);
    if (fread(image.pixels.data(), 1, image.pixels.size(), stdin) != image.pixels.size()) return 1;
    if (fread(said.data(), 4, said.size(), stdin) != said.size()) return 1;
    const auto inputs = segpress::prepared(image);
    const auto mask = segpress::mask(said.data(), height, width);
    fwrite(inputs.data(), 4, inputs.size(), stdout);
    fwrite(mask.data(), 1, mask.size(), stdout);
}
"""


def compiled_settings() -> Iterator[Any]:
    """A compilation each."""
    for each in settings():
        yield pytest.param(*each.values, id=each.id, marks=pytest.mark.slow)


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler (c++)")
@pytest.mark.parametrize(SETTINGS, compiled_settings())
def test_in_cpp_it_is_the_same(
    how: str,
    normalization: Normalization,
    restore: str,
    logits: int,
    names: Any,
    steps: Any,
    source: Source,
    tmp_path: Path,
) -> None:
    told, made = scenes(tmp_path, (how, normalization, restore, logits, names, steps), source)
    (tmp_path / "segpress_config.hpp").write_text(cpp.config(told))
    (tmp_path / "probe.cpp").write_text(PROBE)
    program = tmp_path / "probe"
    strict = ["-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", f"-I{RUNNER}"]
    subprocess.run(["c++", *strict, str(tmp_path / "probe.cpp"), "-o", str(program)], check=True)
    for scene in (each for each in made if each.pixels.dtype == np.uint8):
        height, width, *colours = scene.pixels.shape
        told_HWC = [str(each) for each in (height, width, *(colours or [1]))]
        given = np.ascontiguousarray(scene.pixels).tobytes() + np.ascontiguousarray(scene.said_KHW).tobytes()
        answer = subprocess.run([str(program), *told_HWC], input=given, capture_output=True, check=True).stdout
        inputs = np.frombuffer(answer[: scene.inputs.nbytes], np.float32).reshape(scene.inputs.shape)
        np.testing.assert_allclose(inputs, scene.inputs, rtol=0, atol=1e-6)
        ours = np.frombuffer(answer[scene.inputs.nbytes :], np.uint8).reshape(scene.labels_HW.shape)
        assert (ours == scene.labels_HW).mean() >= 0.9999


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler (c++)")
def test_a_pack_in_cpp_is_compiled_and_gives_the_masks_of_the_run(done: Done, tmp_path: Path) -> None:
    assert pack(done[0], "cpp", tmp_path / "pack", say=quiet).same >= proof.LEAST
    lines = sum(
        len((tmp_path / "pack" / name).read_text().splitlines()) for name in ("segpress.hpp", "segpress_run.cpp")
    )
    assert lines < 325


def test_without_a_compiler_a_pack_in_cpp_is_not_made(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    ran = compress("pack", done[0], "--for", "cpp", "--out", tmp_path / "pack")
    assert ran.returncode == 4 and "there is no C++ compiler here: install g++ or clang" in ran.stderr
    assert not list(tmp_path.iterdir())


def test_what_differs_is_not_packed_and_leaves_nothing(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "expected", lambda source, infer, path: np.ones((9, 9), np.uint8))
    masks = [np.ones((9, 9), np.uint8)] * len(proof.SIZES) + [np.zeros((9, 9), np.uint8)]
    monkeypatch.setattr(named("compress.packing.kinds", "python"), "masks", lambda *_: masks)
    with pytest.raises(
        SegpressError, match=r"80\.0000% of the pixels .*; drawn-16-bit\.png differs most \(100\.000%\)"
    ):
        pack(done[0], "python", tmp_path / "pack", say=quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--for", "pyhton"], "--for pyhton: there is no such pack; there are cpp, python, triton"),
        (["--for", "python", "--step", "02-int8"], "there is no step '02-int8'; there are baseline, 01-int8"),
        (["--for", "triton", "--backend", "torch"], "runs on onnxruntime or openvino, not on 'torch'"),
    ],
)
def test_what_cannot_be_packed_is_told(words: list[str], said: str, done: Done, tmp_path: Path) -> None:
    refused(compress("pack", done[0], "--out", tmp_path / "pack", *words), said)
    (tmp_path / "there").mkdir()
    refused(compress("pack", done[0], "--out", tmp_path / "there", "--for", "python"), "is there already; name another")
    (tmp_path / "there" / "a.png").touch()
    (tmp_path / "a.png").touch()
    for images, said in (
        (["none.png"], "--image: none.png: no such file"),
        ([tmp_path / "there"], "there: a folder; give files"),
        ([tmp_path / "a.png", tmp_path / "there" / "a.png"], "a.png have one name"),
    ):
        with pytest.raises(SegpressError, match=said):
            pack(done[0], "python", tmp_path / "pack", images=[Path(each) for each in images], say=quiet)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "there"]


def test_what_a_pack_cannot_take_along_is_named(source: Source) -> None:
    assert list(source.refusals()) == []
    told = {
        **source.told,
        "segpress.fit": "tile",
        "segpress.postprocess": json.dumps(
            [{"dense_crf": {}}, {"remove_small": {"under_px": None, "under_mm2": 3.0, "classes": None}}]
        ),
    }
    said = list(Source(run=source.run, row=source.row, artifact=source.artifact, told=told).refusals())
    assert len(said) == 3
    assert "in tiles" in said[0] and "dense_crf" in said[1] and "under_px" in said[2]


def test_files_of_packs_import_nothing_of_ours_and_read_on_python_3_8() -> None:
    for path in sorted(RUNNER.glob("*.py")):
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        found = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {
            name
            for node in found
            for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
        }
        assert not any(str(name).split(".")[0] in ("compress", "export", "torch") for name in names), path
        assert len(path.read_text().splitlines()) <= 150, path


def test_the_program_of_a_pack_says_what_is_wrong_with_an_image(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack(done[0], "python", tmp_path / "pack", images=proof.drawn(tmp_path, deep=False)[:1], say=quiet)
    monkeypatch.setattr("sys.path", [str(tmp_path / "pack"), *sys.path])
    sys.modules.pop("segpress_run", None)
    import segpress_run

    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    (tmp_path / "text.png").write_text("no image")
    for images, said in (
        (["gone.png"], "gone.png: not an image that can be read"),
        (["text.png"], "text.png: not an image that can be read"),
        (["float.tif"], "pixels of F have no known range"),
        (["drawn-0.png", "x/drawn-0.png"], "two images have one name"),
    ):
        words = ["segpress_run.py", "--out", str(tmp_path / "masks"), *(str(tmp_path / each) for each in images)]
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(SystemExit, match="2"):
            segpress_run.main()
        assert said in capsys.readouterr().err
    assert not list((tmp_path / "masks").glob("*"))


CONFIG = """
# A comment.
name: "net"  backend: "python" max_batch_size: 0
input [ { name: "IMAGE" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ] } ]
output { name: "MASK" data_type: TYPE_UINT8 dims: [-1, -1] }
ensemble_scheduling { step [ { model_name: "a" model_version: -1 input_map { key: "X" value: "Y" } } ] }
"""


def test_configs_are_read_and_tensors_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / "net" / "config.pbtxt").write_text(CONFIG)
    config = read_config(tmp_path / "net" / "config.pbtxt")
    assert config["input"] == [{"name": ["IMAGE"], "data_type": ["TYPE_UINT8"], "dims": [-1, -1, 3]}]
    (step,) = config["ensemble_scheduling"][0]["step"]
    assert (step["model_version"], step["input_map"]) == ([-1], [{"key": ["X"], "value": ["Y"]}])
    server = Server(tmp_path)
    for given, said in (
        ({"IMAGE": np.zeros((4, 4, 1), np.uint8)}, r"IMAGE is uint8 \(4, 4, 1\)"),
        ({"IMAGE": np.zeros((4, 4, 3), np.float32)}, "IMAGE is float32"),
        ({"PICTURE": np.zeros((4, 4, 3), np.uint8)}, "inputs are IMAGE, given are PICTURE"),
    ):
        with pytest.raises(SegpressError, match=said):
            server.infer("net", given)


def test_tritons_own_schema_takes_the_configs(done: Done, tmp_path: Path) -> None:
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="needs segpress[triton]")
    from google.protobuf import text_format

    pack(done[0], "triton", tmp_path / "pack", say=quiet)
    paths = list((tmp_path / "pack").rglob("config.pbtxt"))
    configs = [text_format.Parse(path.read_text(), schema.ModelConfig()) for path in paths]
    assert sorted(len(config.ensemble_scheduling.step) for config in configs) == [0, 0, 0, 3]
