"""trtexec of every version, played by a fake (tests/fakes/trtexec.py): its commands, files and refusals."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from export.engines import dla, layers, program, trtexec
from export.engines.wanted import Wanted, times_of_trtexec
from export.errors import BackendError, NotHere
from export.sessions import tensorrt as sessions

FAKES = Path(__file__).parent / "fakes"
VERSIONS = ["8.6.2", "10.3.0", "10.13.3", "11.0.0"]
every_version = pytest.mark.parametrize("version", VERSIONS)
Q_DQ = Wanted(input="image", int8=True)
RANGES = {"min": (1, 3, 64, 64), "opt": (1, 3, 256, 256), "max": (8, 3, 1024, 1024)}


def fake_trtexec(folder: Path, version: str) -> str:
    """A program that plays this version."""
    path = folder / version / "trtexec"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f'#!/bin/sh\nFAKE_TRTEXEC={version} exec {shlex.quote(sys.executable)} -S {FAKES / "trtexec.py"} "$@"\n'
    )
    path.chmod(0o755)
    return str(path)


def built(folder: Path, version: str, wanted: Wanted, content: bytes = b"onnx") -> program.Built:
    onnx = folder / "net.onnx"
    onnx.write_bytes(content)
    return program.built(fake_trtexec(folder, version), onnx, wanted, folder / "cache.timing")


@every_version
def test_each_version_builds_times_and_tells_of_its_layers(tmp_path: Path, version: str) -> None:
    found = built(tmp_path, version, Q_DQ)
    made = found.made
    assert found.engine.startswith(b"fake engine") and found.log[-1].startswith("&&&& PASSED")
    assert made["tensorrt"] == version and made["executed"] == {"INT8": 1, "FP16": 1}
    assert made["trtexec"]["latency_ms"] == pytest.approx(0.72) and made["trtexec"]["n"] == 5
    assert made["trtexec"]["slowest_layers"] == {"a + PWN(relu)": 0.29, 'b "quoted"': 0.2}
    unstable, bound = made["trtexec"]["warnings"]
    assert unstable == "* GPU compute time is unstable, with coefficient of variance = 4.2%." and "Enqueue" in bound
    assert "median 0.720 ms, of which 0.520 ms on the GPU; * GPU compute time is unstable" in times_of_trtexec(made)
    # No path of this host is in the sidecar.
    assert "--saveEngine=./engine" in made["command"] and "--onnx=net.onnx" in made["command"]


@pytest.mark.parametrize(
    ("version", "wanted", "has", "has_not"),
    [
        ((8, 5, 2), Q_DQ, ["--fp16", "--int8", "--buildOnly"], ["--stronglyTyped", "--skipInference"]),
        ((8, 6, 2), Q_DQ, ["--fp16", "--int8", "--buildOnly"], ["--stronglyTyped", "--skipInference"]),
        ((8, 6, 2), Wanted(input="image"), ["--buildOnly"], ["--fp16", "--int8"]),
        ((8, 6, 2), Wanted(input="image", fp16=True), ["--fp16"], ["--int8"]),
        ((10, 3, 0), Q_DQ, ["--stronglyTyped", "--skipInference"], ["--fp16", "--int8", "--buildOnly"]),
        ((10, 7, 0), Q_DQ, ["--stronglyTyped", "--skipInference"], ["--fp16", "--int8", "--buildOnly"]),
        ((10, 16, 2), Q_DQ, ["--stronglyTyped", "--skipInference"], ["--fp16", "--int8", "--buildOnly"]),
        ((11, 0, 0), Q_DQ, ["--skipInference"], ["--stronglyTyped", "--fp16", "--int8", "--buildOnly"]),
        (
            (10, 3, 0),
            Wanted(input="image", fp16=True, dla=0),
            ["--useDLACore=0", "--allowGPUFallback", "--fp16"],
            ["--stronglyTyped", "--int8"],
        ),
        ((11, 4, 1), Wanted(input="image", dla=1), ["--useDLACore=1", "--allowGPUFallback"], ["--fp16"]),
        (
            (10, 3, 0),
            Wanted(input="image", ranges=RANGES, workspace_mb=1900, sparse_layers=2),
            [
                "--minShapes=image:1x3x64x64",
                "--optShapes=image:1x3x256x256",
                "--maxShapes=image:8x3x1024x1024",
                "--memPoolSize=workspace:1900",
                "--sparsity=enable",
            ],
            [],
        ),
    ],
)
def test_a_build_s_command_is_that_of_the_version(
    version: tuple[int, ...], wanted: Wanted, has: list[str], has_not: list[str]
) -> None:
    command = trtexec.build_command(
        "trtexec", version, Path("a.onnx"), Path("a.engine"), wanted, Path("a.timing"), Path("a.json")
    )
    always = ["--profilingVerbosity=detailed", "--timingCacheFile=a.timing", "--exportLayerInfo=a.json"]
    assert {*has, *always} <= set(command) and not set(has_not) & set(command)


@pytest.mark.parametrize(
    ("version", "transfers", "flags"),
    [
        ((8, 6, 2), True, {"--useSpinWait", "--useCudaGraph", "--separateProfileRun"}),
        ((10, 3, 0), False, {"--useSpinWait", "--useCudaGraph", "--separateProfileRun", "--noDataTransfers"}),
        ((11, 0, 0), True, {"--includeDataTransfers"}),
        ((11, 1, 0), False, set()),
    ],
)
def test_times_are_taken_alike_whatever_a_version_s_defaults_are(
    version: tuple[int, ...], transfers: bool, flags: set[str]
) -> None:
    places = [Path(name) for name in ("a.engine", "times.json", "profile.json")]
    command = trtexec.time_command("trtexec", version, *places, Q_DQ, data_transfers=transfers)
    plain = {word for word in command[1:] if "=" not in word}
    assert plain == flags


@pytest.mark.parametrize(
    ("told", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8602] # trtexec --help", (8, 6, 2)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec", (10, 3, 0)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101602] [b3] # trtexec", (10, 16, 2)),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110201] [b3] # trtexec", (11, 2, 1)),
        ("[09/25/2026-10:00:00] [I] TensorRT version: 11.2.1", (11, 2, 1)),
        ("/usr/lib/aarch64-linux-gnu/libnvinfer.so.10.3.0", (10, 3, 0)),
        ("trtexec: command not found", None),
    ],
)
def test_the_version_is_read_from_what_there_is(told: str, version: tuple[int, ...] | None) -> None:
    assert trtexec.version_in(told) == version


@every_version
def test_what_the_parser_refuses_names_the_node_and_the_reason(tmp_path: Path, version: str) -> None:
    says = rf"^TensorRT {version} refuses net.onnx: node head \(Einsum\): .*Unsupported equation"
    with pytest.raises(BackendError, match=says):
        built(tmp_path, version, Q_DQ, b"refused")


def test_memory_that_does_not_suffice_for_building_is_told(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"^TensorRT 10.3.0 refuses net.onnx: .*\(out of memory\)"):
        built(tmp_path, "10.3.0", Q_DQ, b"memory")


def test_an_option_that_a_version_does_not_know_is_told(tmp_path: Path) -> None:
    """The fake refuses what the real one does, so that the other tests show that no such option is passed."""
    code, log = program.ran([fake_trtexec(tmp_path, "10.3.0"), "--buildOnly"])
    assert code == 1 and trtexec.refusal_in(log) == "Unknown option: --buildOnly"


RECORDED = {
    # As users of these versions show them.
    "8.4": (
        """\
[06/27/2022-11:15:47] [E] [TRT] ModelImporter.cpp:776: --- End node ---
[06/27/2022-11:15:47] [E] [TRT] ModelImporter.cpp:779: ERROR: ModelImporter.cpp:180 In function parseGraph:
[6] Invalid Node - Pad_13
[shuffleNode.cpp::symbolicExecute::392] Error Code 4: Internal Error (Reshape_3: IShuffleLayer applied to shape tensor)
[06/27/2022-11:15:47] [E] Failed to parse onnx file
[06/27/2022-11:15:47] [E] Parsing model failed""",
        r"node Pad_13: .*Internal Error \(Reshape_3: IShuffleLayer applied to shape tensor\)",
    ),
    "8.6": (
        """\
[09/02/2025-12:43:58] [E] [TRT] ModelImporter.cpp:771: While parsing node number 3 [QuantizeLinear -> "w_q"]:
[09/02/2025-12:43:58] [E] [TRT] ModelImporter.cpp:773: input: "w"
name: "/model.9/QuantizeLinear"
op_type: "QuantizeLinear"
[09/02/2025-12:43:58] [E] [TRT] ModelImporter.cpp:774: --- End node ---
[09/02/2025-12:43:58] [E] [TRT] ModelImporter.cpp:777: ERROR: builtin_op_importers.cpp:1197 In function QuantDequant:
[6] Assertion failed: scaleAllPositive && "Scale coefficients must all be positive"
[09/02/2025-12:43:58] [E] Failed to parse onnx file""",
        r"node /model.9/QuantizeLinear \(QuantizeLinear\): .*scaleAllPositive && .*must all be positive.",
    ),
    "10.3": (
        """\
[04/27/2026-18:38:45] [E] Error[2]: [convBaseBuilder.cpp::create::259] Error Code 2: Internal Error (failed.)
[04/27/2026-18:38:45] [E] Engine could not be created from network
[04/27/2026-18:38:45] [E] Building engine failed
[04/27/2026-18:38:45] [E] Engine set up failed""",
        r"Error\[2\]: .*Error Code 2: Internal Error \(failed.\)",
    ),
    "11.2": (
        """\
[09/25/2026-10:00:00] [I] TensorRT version: 11.2.1
[09/25/2026-10:00:02] [E] [TRT] ITensor::getDimensions: Error Code 4: API Usage Error (/Sub: same input types.)
[09/25/2026-10:00:02] [E] Failed to parse onnx file
[09/25/2026-10:00:02] [E] Engine set up failed""",
        r"ITensor::getDimensions: Error Code 4: API Usage Error \(/Sub: same input types.\)",
    ),
    "silent": ("[I] nothing", "no reason given"),
}


@pytest.mark.parametrize("version", RECORDED)
def test_the_reason_is_found_in_logs_of_each_version(version: str) -> None:
    log, says = RECORDED[version]
    assert re.fullmatch(says, trtexec.refusal_in(log.splitlines()))


@pytest.mark.parametrize("version", ["8.6.2", "10.3.0", "11.4.1"])
def test_layers_that_dla_did_not_take_are_named_in_both_forms_of_the_log(tmp_path: Path, version: str) -> None:
    found = built(tmp_path, version, Wanted(input="image", fp16=True, dla=0)).made["fallback"]
    assert (found["layers"], found["names"], found["on_dla"]) == (1, ["up"], 1)
    assert found["why"] == ["up (DECONVOLUTION): Unsupported on DLA. Switching this layer's device type to GPU."]


def test_a_log_that_does_not_say_where_layers_run_proves_nothing() -> None:
    assert dla.fallback(["[I] [TRT] Engine generation completed"]) is None


def test_jetpack_7_has_no_dla(tmp_path: Path) -> None:
    with pytest.raises(NotHere, match=r"TensorRT 10.13.3 has no DLA"):
        built(tmp_path, "10.13.3", Wanted(input="image", fp16=True, dla=0))


@pytest.mark.parametrize(
    ("told", "precision"),
    [
        ("Thirty-two wide channel vectorized row major Int8 format", "INT8"),
        ("Thirty-two wide channel vectorized row major Int8 format with 3 spatial dimensions", "INT8"),
        ("Row major linear FP32", "FP32"),
        ("Channel major FP16 format where channel % 8 == 0", "FP16"),
        ("Half(64,1:8,...)", "FP16"),
        ("Int8", "INT8"),
        ("Float", "FP32"),
        ("BFloat16", "BF16"),
        ("FP8", "FP8"),
        ("UInt8", "UINT8"),
        ("N/A due to dynamic shapes", ""),
    ],
)
def test_a_tensor_s_precision_is_read_from_long_and_short_forms(told: str, precision: str) -> None:
    assert layers.precision_in(told) == precision


CONV = '{"Name": "a", "LayerType": "CaskConvolution", "ParameterType": "Convolution", "Inputs": [%s], %s "Outputs": []}'
READS = '{"Name": "x", "Format/Datatype": "%s"}'


@pytest.mark.parametrize(
    ("reads", "more", "precision"),
    [
        ("Int8", '"Weights": {"Type": "Int8", "Count": 9},', "INT8"),
        # Weights in eight bits that are multiplied in sixteen.
        ("Half", '"Weights": {"Type": "Int8", "Count": 9},', "FP16"),
        ("N/A due to dynamic shapes", '"ConvWeights": {"Type": "Int8", "Count": 9},', "INT8"),
        ("N/A due to dynamic shapes", '"TacticName": "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32",', "INT8"),
        ("N/A due to dynamic shapes", "", "unknown"),
    ],
)
def test_a_layer_runs_in_the_precision_of_what_it_reads(reads: str, more: str, precision: str) -> None:
    told = layers.layers_of('{"Layers": [%s]}' % (CONV % (READS % reads, more)))
    assert layers.executed(told) == {precision: 1}


def test_names_alone_prove_no_precision() -> None:
    assert layers.executed(layers.layers_of('{"Layers": ["Conv_0 + Relu_1", "MaxPool_2"]}')) == {"unknown": 1}
    assert layers.layers_of("no JSON") == []


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        (
            "features.0.weight + QuantizeLinear_8 + Conv_12 + PWN(Clip_16)",
            ("features.0.weight", "QuantizeLinear_8", "Conv_12", "Clip_16"),
        ),
        ("PWN(PWN(Sigmoid_1), Mul_2)", ("Sigmoid_1", "Mul_2")),
        ("/enc/conv/Conv [profile 1]", ("/enc/conv/Conv",)),
        ("Reformatting CopyNode for Input Tensor 0 to Conv_0", ()),
        ("input.12 copy", ()),
    ],
)
def test_a_layer_s_name_tells_the_onnx_nodes(name: str, nodes: tuple[str, ...]) -> None:
    assert layers.names_in(name) == nodes


@pytest.mark.parametrize(("median", "ms"), [('"medianMs" : 0.010, ', 0.010), ("", 0.0122041)])
def test_the_time_of_a_layer_is_its_median_or_where_there_is_none_its_mean(median: str, ms: float) -> None:
    told = f"""[
  {{ "count" : 4216 }}
, {{ "name" : "QuantizeLinear_2", "timeMs" : 51.4526, "averageMs" : 0.0122041, {median}"percentage" : 1.88608 }}
, {{ "name" : "b "quoted"", "timeMs" : 45.3071, "averageMs" : 0.0107465, {median}"percentage" : 1.66081 }}
]"""
    (first, second) = trtexec.profile_in(told)
    assert first == ("QuantizeLinear_2", ms) and second[0] == 'b "quoted"'


@pytest.mark.parametrize("text", ["", "[]", "{}", '[{"latencyMs": 1}]', "[1]", "[nonsense"])
def test_times_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        trtexec.times_in(text)


def test_where_there_is_only_trtexec_its_version_is_the_runtime_s_and_nothing_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = fake_trtexec(tmp_path, "10.3.0")
    monkeypatch.setattr(sessions, "python_module", lambda: None)
    monkeypatch.setenv("PATH", str(Path(found).parent), prepend=":")
    assert program.found() == found and sessions.version() == "10.3.0 (trtexec)"
    with pytest.raises(NotHere, match="no Python module of TensorRT, so no answer can be scored"):
        sessions.opened(tmp_path / "net.engine", 1, "cuda", (1, 3, 8, 8))
    program.version.cache_clear()
