"""segmentation_models.pytorch: the decoder and the encoder, each by its names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

from compress.errors import SegpressError
from compress.networks.foreign.asking import built_on
from compress.networks.smp import Smp, architectures, encoder_families
from compress.recognition.tensors.state import State, channels_out, first_convolution, likeness

HEAD = "segmentation_head.0.weight"
TIMM = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "efficientnet_b0",
    "efficientnet_b1",
    "efficientnet_b3",
    "tf_efficientnetv2_s",
    "mobilenetv3_large_100",
    "mobilenetv3_small_100",
    "convnext_tiny",
    "convnext_small",
    "regnety_008",
    "regnety_016",
    "hrnet_w18",
)
"""Of timm's hundreds those that are asked after, behind `tu-`."""
SELDOM = ("Segformer", "DPT")
"""Decoders of one family of encoders each: asked for last, since they cannot be built over the others."""


def candidates(state: State) -> Iterator[dict[str, Any]]:
    """Networks of smp whose tensors these may be."""
    head = next((each for name, each in state.items() if name.startswith("segmentation_head.")), None)
    stem = first_convolution(state, "encoder.")
    if head is None or stem is None or not any(name.startswith("decoder.") for name in state):
        return
    classes = len(state[HEAD]) if HEAD in state else len(list(_of(state, "segmentation_head.").values())[-1])
    decoders, encoders = _decoders(state), _encoders(state)
    for encoder in encoders:
        for arch in decoders:
            given = {"arch": arch, "encoder": encoder, "classes": classes, "in_channels": _channels(stem)}
            for options in _options(state, arch):
                yield {"smp": {**given, **({"options": options} if options else {})}}


def _channels(stem: Tensor) -> int:
    return int(stem.shape[1])


def _of(state: State, part: str) -> dict[str, Tensor]:
    return {name: each for name, each in state.items() if name.startswith(part)}


def _decoders(state: State) -> list[str]:
    """The two whose names are likest."""
    ours = _of(state, "decoder.")
    known = {}
    for arch in architectures():
        built = _built(arch, "mit_b0" if arch in SELDOM[:1] else "resnet18") if arch != "DPT" else None
        if built is not None:
            known[arch] = likeness(ours, _of(built, "decoder."))
    return sorted(known, key=lambda arch: -known[arch])[:2]


def _encoders(state: State) -> Iterator[str]:
    """Those whose tensors these are, whatever takes them further."""
    ours = {name: each.shape for name, each in _of(state, "encoder.").items()}
    if any(name.startswith("encoder.model.") for name in ours):
        families: dict[str, Sequence[str]] = {name: [f"tu-{name}"] for name in TIMM}
    else:
        families = dict(encoder_families())
    like: dict[str, float] = {}
    for family, (first, *_) in families.items():
        built = _built("Unet", first)
        if built is not None:
            if _same(ours, built):
                yield first
                return
            like[family] = likeness(ours, _of(built, "encoder."))
    for family in sorted(like, key=lambda each: -like[each])[:2]:
        for name in families[family][1:]:
            built = _built("Unet", name)
            if built is not None and _same(ours, built):
                yield name


def _same(ours: dict[str, Any], built: State) -> bool:
    """Whether an encoder has these tensors, but for the channels that its first layer takes."""
    theirs = {name: each.shape for name, each in _of(built, "encoder.").items()}
    # A shallower encoder of the family (encoder_depth) has the first of them.
    if not set(ours) <= {*theirs, *(name for name in ours if name.endswith("num_batches_tracked"))}:
        return False
    differ = [name for name in ours if name in theirs and ours[name] != theirs[name]]
    stem = next((name for name in ours if len(ours[name]) == 4), None)
    return all(name == stem and ours[name][2:] == theirs[name][2:] for name in differ) and len(ours) > len(theirs) / 3


def _built(arch: str, encoder: str) -> State | None:
    """The tensors of one of smp's networks, without memory; None where it cannot be built."""
    try:
        return built_on(Smp(arch=arch, encoder=encoder, classes=1), "meta").state_dict()
    except SegpressError:
        return None


def _options(state: State, arch: str) -> Iterator[dict[str, Any]]:
    """None first, then what shapes tell of the decoder."""
    yield {}
    told: dict[str, Any] = {}
    widths = [channels_out(state, f"decoder.blocks.{place}.conv1.0") for place in range(5)]
    known = [width for width in widths if width is not None]
    if arch in ("Unet", "MAnet") and known:
        told["decoder_channels"] = known
        if len(known) != 5:
            told["encoder_depth"] = len(known)
        if any(".attention1.attention.cSE" in name for name in state):
            told["decoder_attention_type"] = "scse"
    if arch == "UnetPlusPlus":
        nested = [channels_out(state, f"decoder.blocks.x_0_{place}.conv1.0") for place in range(5)]
        told["decoder_channels"] = [width for width in nested if width is not None]
    if arch == "FPN":
        told["decoder_pyramid_channels"] = channels_out(state, "decoder.p5")
        told["decoder_segmentation_channels"] = channels_out(state, "decoder.seg_blocks.0.block.0.block.0")
    if arch.startswith("DeepLab"):
        name = "decoder.aspp.0.convs.0.0" if arch.endswith("Plus") else "decoder.aspp.convs.0.0"
        told["decoder_channels"] = channels_out(state, name)
    if told:
        yield told
    if told and not any("running_mean" in name for name in _of(state, "decoder.")):
        yield {**told, "decoder_use_norm": False}
