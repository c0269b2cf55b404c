"""What TensorRT tells of an engine's layers, as JSON (engine inspector, `trtexec --exportLayerInfo`)."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Iterable

# Older versions describe a tensor in words ("Thirty-two wide channel vectorized row major Int8 format"), newer ones by
# its type ("Int8", "Half(64,1:8,...)"); with open axes there is none ("N/A due to dynamic shapes").
_WORDS = (
    (r"int8", "INT8"),
    (r"uint8", "UINT8"),
    (r"fp8|float8|e4m3", "FP8"),
    (r"fp4|float4", "FP4"),
    (r"int4", "INT4"),
    (r"bf16|bfloat16", "BF16"),
    (r"fp16|half", "FP16"),
    (r"fp32|float|tf32", "FP32"),
    (r"int32", "INT32"),
    (r"int64", "INT64"),
    (r"bool", "BOOL"),
)
_INTEGER_KERNEL = re.compile(r"i8i8|int8|imma|i8816")
_MULTIPLIES = re.compile(r"conv|gemm|matrixmultiply|matmul|fullyconnected", re.IGNORECASE)
_KERNEL_MULTIPLIES = re.compile(r"fprop|dgrad|gemm|conv", re.IGNORECASE)
_ONNX = re.compile(r"\[ONNX Layer: ([^\]\x1e\x1f]+)\]")
UNKNOWN = "unknown"


@dataclass(frozen=True)
class EngineLayer:
    """A layer of an engine, which may be several of the ONNX file."""

    name: str
    kind: str
    precision: str
    """In what it computes, such as "INT8", "FP16", "FP32"; empty where the engine does not say."""
    multiplies: bool
    """Whether it is a convolution or a multiplication of matrices."""
    names: tuple[str, ...]
    """The ONNX nodes it was made from; none: TensorRT's own, such as a change of layout."""


def layers_of(information: str) -> list[EngineLayer]:
    """The layers; none where the text is no such JSON."""
    try:
        told = json.loads(information)
    except ValueError:
        return []
    layers = told.get("Layers", []) if isinstance(told, dict) else []
    return [_layer(each) for each in layers if isinstance(each, (dict, str))]


def executed(layers: Iterable[EngineLayer]) -> dict[str, int]:
    """How many convolutions and multiplications of matrices run in each precision: the proof of int8."""
    return dict(Counter(layer.precision or UNKNOWN for layer in layers if layer.multiplies))


def names_in(name: str) -> tuple[str, ...]:
    """The ONNX nodes that a layer's name is put together from; none for what moves or converts data alone."""
    plain = re.sub(r" \[profile \d+\]$", "", name)
    if plain.startswith("Reformatting CopyNode") or plain.endswith(" copy"):
        return ()
    inside = re.sub(r"PWN\(|\{ForeignNode\[|\]\}|\)|\(", " + ", plain)
    parts = (part.strip().partition(":")[0] for part in re.split(r"\s\+\s|\.\.\.|,", inside))
    return tuple(dict.fromkeys(part for part in parts if part))


def _layer(told: Any) -> EngineLayer:
    if isinstance(told, str):
        # With names alone nothing says what a layer computes in, but a convolution is one by its name.
        return EngineLayer(
            name=told, kind="", precision="", multiplies=bool(_MULTIPLIES.search(told)), names=names_in(told)
        )
    name, kind, tactic = (str(told.get(key, "")) for key in ("Name", "LayerType", "TacticName"))
    # A fused layer writes the part before its keys: ConvWeights, PoolingPoolingType.
    weights = [value for key, value in told.items() if key.endswith("Weights") and isinstance(value, dict)]
    multiplies = bool(
        _MULTIPLIES.search(f"{told.get('ParameterType', '')} {kind}")
        or weights
        or (kind in ("kgen", "Myelin", "fusion") and _KERNEL_MULTIPLIES.search(tactic))
    )
    onnx = _ONNX.findall(str(told.get("Metadata", "")))
    return EngineLayer(
        name=name,
        kind=kind,
        precision=_precision(told, weights, tactic),
        multiplies=multiplies and kind not in ("Reformat", "NoOp"),
        names=tuple(dict.fromkeys(onnx)) or names_in(name),
    )


def _precision(told: dict[str, Any], weights: list[dict[str, Any]], tactic: str) -> str:
    """That of what it reads; else of its weights; else of its kernel.

    A convolution that reads half floats and has int8 weights multiplies in half floats, so its input comes first.
    """
    inputs = [each for each in told.get("Inputs", []) if isinstance(each, dict)]
    stated = [str(each.get("Format/Datatype", "")) for each in inputs[:1]]
    stated += [str(each.get("Type", "")) for each in weights]
    known = (word for each in stated for word in [precision_in(each)] if word)
    return next(known, "INT8" if _INTEGER_KERNEL.search(tactic) else "")


def precision_in(text: str) -> str:
    """The precision that a description of a tensor names; empty where it names none."""
    low = text.lower()
    if low.startswith("n/a"):
        return ""
    found = [
        (match.start(), -len(match.group()), word) for pattern, word in _WORDS for match in re.finditer(pattern, low)
    ]
    return min(found)[2] if found else ""
