"""A fake of NVIDIA's program trtexec, for tests alone: it builds and times nothing; it prints what each version does.

The banner, the options that each version knows and the forms of its files are those of NVIDIA/TensorRT's samples at
their tags; the lines of its log are those of logs that users show. Environment variable FAKE_TRTEXEC: its version.
What the ONNX file consists of decides what happens: "refused", "memory", "slow", or anything else, which is built.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

VERSION = tuple(int(part) for part in os.environ["FAKE_TRTEXEC"].split("."))
GONE_IN_10 = {"--buildOnly", "--workspace", "--explicitBatch"}
NEW_IN_10 = {"--stronglyTyped", "--skipInference"}
GONE_IN_11 = {"--fp16", "--int8", "--bf16"}
NEW_IN_11 = {"--includeDataTransfers", "--noSpinWait", "--noCudaGraph"}
DEPRECATED_IN_11 = {"--noDataTransfers", "--useSpinWait", "--useCudaGraph", "--separateProfileRun", "--stronglyTyped"}
LONG = VERSION < (10,)
INT8 = "Thirty-two wide channel vectorized row major Int8 format" if LONG else "Int8"
HALF = "Channel major FP16 format where channel % 8 == 0" if LONG else "Half"
REFUSED = """\
[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:791: While parsing node number 3 [Einsum -> "logits"]:
[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:792: --- Begin node ---
[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:793: input: "a"
output: "logits"
name: "head"
op_type: "Einsum"

[07/15/2022-05:26:40] [E] [TRT] parsers/onnx/ModelImporter.cpp:794: --- End node ---
[07/15/2022-05:26:40] [E] [TRT] ModelImporter.cpp:796: ERROR: builtin_op_importers.cpp:1197 In function importEinsum:
[8] Assertion failed: equation.size() <= 2 && "Unsupported equation"
[07/15/2022-05:26:40] [E] Failed to parse onnx file
[07/15/2022-05:26:40] [I] Finish parsing network model
[07/15/2022-05:26:40] [E] Parsing model failed
[07/15/2022-05:26:40] [E] Failed to create engine from model or file.
[07/15/2022-05:26:40] [E] Engine set up failed"""
MEMORY = """\
[07/15/2022-05:26:40] [E] Error[1]: [defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)
[07/15/2022-05:26:40] [W] [TRT] Requested amount of GPU memory (1073741824 bytes) could not be allocated.
[07/15/2022-05:26:40] [E] Engine could not be created from network
[07/15/2022-05:26:40] [E] Building engine failed
[07/15/2022-05:26:40] [E] Engine set up failed"""
ON_DLA = """\
[08/31/2023-07:07:48] [W] [TRT] up (DECONVOLUTION): Unsupported on DLA. Switching this layer's device type to GPU.
[08/31/2023-07:07:49] [I] [TRT] ---------- Layers Running on DLA ----------
[08/31/2023-07:07:49] [I] [TRT] [DlaLayer] {ForeignNode[/cnn/cnn.0/Conv.../cnn/cnn.11/Relu]}
[08/31/2023-07:07:49] [I] [TRT] ---------- Layers Running on GPU ----------
[08/31/2023-07:07:49] [I] [TRT] [GpuLayer] COPY: Reformatting CopyNode for Network Input image
[08/31/2023-07:07:49] [I] [TRT] [GpuLayer] DECONVOLUTION: up"""
SUMMARY = """\
[08/31/2023-07:07:55] [I] === Performance summary ===
[08/31/2023-07:07:55] [I] Throughput: 1663.19 qps
[08/31/2023-07:07:55] [I] Latency: min = 0.617432 ms, max = 0.829102 ms, mean = 0.634685 ms, median = 0.629639 ms
[08/31/2023-07:07:55] [W] * GPU compute time is unstable, with coefficient of variance = 4.2%.
[08/31/2023-07:07:55] [W] * Throughput may be bound by Enqueue Time rather than GPU Compute."""


def main(words: list[str]) -> int:
    given = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    number = VERSION[0] * (10000 if VERSION[0] >= 10 else 1000) + VERSION[1] * 100 + VERSION[2]
    extra = " [b3]" if VERSION >= (11,) else ""
    banner = f"TensorRT.trtexec [TensorRT v{number}]{extra} # trtexec {' '.join(words)}"
    print(f"&&&& RUNNING {banner}")
    if "--help" in given:
        print("=== Model Options ===")
        return 0
    unknown = [word for word in given if is_unknown(word)]
    for word in unknown:
        print(f"[10/05/2025-10:46:31] [E] Unknown option: {word} {given[word]}")
    code = 1 if unknown else load(given) if "--loadEngine" in given else build(given)
    print(f"&&&& {'PASSED' if code == 0 else 'FAILED'} {banner}")
    return code


def is_unknown(word: str) -> bool:
    old, new = VERSION < (10,), VERSION >= (11,)
    return (
        (old and word in NEW_IN_10)
        or (not old and word in GONE_IN_10)
        or (new and word in GONE_IN_11 | DEPRECATED_IN_11)
        or (not new and word in NEW_IN_11)
    )


def build(given: dict[str, str]) -> int:
    content = Path(given["--onnx"]).read_bytes()
    if content == b"slow":
        Path(given["--timingCacheFile"]).with_name("process").write_text(str(os.getpid()))
        time.sleep(60)
    if content in (b"refused", b"memory"):
        print(REFUSED if content == b"refused" else MEMORY)
        return 1
    if "--useDLACore" in given:
        lines = ON_DLA if LONG else ON_DLA.replace("DECONVOLUTION: up", "up").replace("COPY: ", "")
        print(lines)
    Path(given["--saveEngine"]).write_bytes(f"fake engine of {VERSION}".encode())
    Path(given["--timingCacheFile"]).write_bytes(b"timed")
    quantized = VERSION >= (10,) or "--int8" in given
    layers = [
        conv("a + PWN(relu)", INT8 if quantized else HALF, "Int8" if quantized else "Half"),
        conv("b", HALF, "Half"),
    ]
    layers.append({"Name": "Reformatting CopyNode for b", "LayerType": "Reformat", "Inputs": [], "Outputs": []})
    told = layers if given.get("--profilingVerbosity") == "detailed" else [layer["Name"] for layer in layers]
    Path(given["--exportLayerInfo"]).write_text(json.dumps({"Layers": told, "Bindings": ["image", "logits"]}))
    return 0


def conv(name: str, reads: str, weights: str) -> dict[str, object]:
    tensor = {"Name": "x", "Location": "Device", "Dimensions": [1, 16, 8, 8], "Format/Datatype": reads}
    kind = {"Name": name, "LayerType": "CaskConvolution", "ParameterType": "Convolution", "Inputs": [tensor]}
    return {**kind, "Outputs": [], "Weights": {"Type": weights, "Count": 864}}


def load(given: dict[str, str]) -> int:
    transfers = "--includeDataTransfers" in given or (VERSION < (11,) and "--noDataTransfers" not in given)
    copy = 0.1 if transfers else 0.0
    times = [
        {
            "startEnqMs": 0.0,
            "endEnqMs": 0.1,
            "startH2dMs": 0.0,
            "endH2dMs": copy,
            "startComputeMs": 0.1,
            "endComputeMs": 0.6,
        }
        | {"startD2hMs": 0.6, "endD2hMs": 0.7, "h2dMs": copy, "computeMs": 0.5 + place / 100, "d2hMs": copy}
        | {"latencyMs": 0.5 + place / 100 + 2 * copy}
        for place in range(5)
    ]
    Path(given["--exportTimes"]).write_text(json.dumps(times))
    # Names are written as they are.
    Path(given["--exportProfile"]).write_text(
        '[\n  { "count" : 5 }\n, { "name" : "a + PWN(relu)", "timeMs" : 1.5, "averageMs" : 0.3, "medianMs" : 0.29, '
        '"percentage" : 60 }\n, { "name" : "b "quoted"", "timeMs" : 1, "averageMs" : 0.2, "medianMs" : 0.2, '
        '"percentage" : 40 }\n]\n'
    )
    print(SUMMARY)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
