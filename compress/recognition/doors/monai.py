"""MONAI: UNet, BasicUNet, BasicUNet++, DynUNet, SegResNet, VNet and SwinUNETR, with the options that shapes tell."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.recognition.tensors.state import State, channels_out, first_convolution, last_convolution

Options = dict[str, Any]


def candidates(state: State) -> Iterator[dict[str, Any]]:
    """Networks of MONAI whose tensors these may be."""
    stem, last = first_convolution(state), last_convolution(state)
    if stem is None or last is None:
        return
    dims = stem.ndim - 2
    for anchor, told in (
        ("model.0.", _unet),
        ("conv_0.conv_0.", _basic),
        ("conv_0_0.conv_0.", _basic),
        ("input_block.", _dynunet),
        ("convInit.", _segresnet),
        ("swinViT.", _swin),
        ("in_tr.", _vnet),
    ):
        if any(name.startswith(anchor) for name in state):
            for arch, classes, options in told(state, dims):
                given = {"arch": arch, "dims": dims, "classes": classes, "in_channels": int(stem.shape[1])}
                yield {"monai": {**given, **({"options": options} if options else {})}}


def _norm(state: State) -> str | None:
    """What normalizes, as far as tensors tell it; None for the architecture's own."""
    if any(name.endswith("running_mean") for name in state):
        return "batch"
    return None


def _unet(state: State, dims: int) -> Iterator[tuple[str, int, Options]]:
    """Each level lies inside the one above it: model.1.submodule.1.submodule..."""
    channels, prefix = list[int](), "model."
    while widths := [len(each) for name, each in state.items() if name.startswith(f"{prefix}0.") and each.ndim >= 4]:
        channels.append(widths[0])
        prefix += "1.submodule."
    bottom = [len(each) for name, each in state.items() if name.startswith(prefix) and each.ndim >= 4]
    ups = [name for name in state if name.startswith("model.2.") and state[name].ndim >= 4]
    if not bottom or not ups:
        return
    units = len({name.split(".")[3] for name in state if name.startswith("model.0.conv.unit") and ".conv." in name})
    last = state[ups[-1]]
    # A transposed convolution has its output channels second.
    classes = int(last.shape[0] if units else last.shape[1])
    options: Options = {"channels": [*channels, bottom[0]], "strides": [2] * len(channels), "num_res_units": units}
    norms = [_norm(state)] if _norm(state) else [None, ("instance", {"affine": True})]
    acts = [None] if any(name.endswith("adn.A.weight") for name in state) else ["relu", "leakyrelu"]
    for norm in norms:
        for act in acts:
            yield "UNet", classes, {**options, **({"norm": norm} if norm else {}), **({"act": act} if act else {})}


def _basic(state: State, dims: int) -> Iterator[tuple[str, int, Options]]:
    names = ["conv_0.conv_0.conv", *(f"down_{level}.convs.conv_0.conv" for level in range(1, 5))]
    features = [channels_out(state, name) for name in names]
    final = next((len(each) for name, each in state.items() if name.startswith("final_conv") and each.ndim >= 4), None)
    if None not in features and final is not None:
        top = channels_out(state, "upcat_1.convs.conv_0.conv")
        norm = {"norm": _norm(state)} if _norm(state) else {}
        yield "BasicUNet", final, {"features": [*features, top], **norm}
    nested = ["conv_0_0.conv_0.conv", *(f"conv_{level}_0.convs.conv_0.conv" for level in range(1, 5))]
    features = [channels_out(state, name) for name in nested]
    if None not in features:
        final = next((len(each) for name, each in state.items() if name.startswith("final_conv")), 1)
        yield "BasicUNetPlusPlus", final, {"features": [*features, channels_out(state, "upcat_0_4.convs.conv_0.conv")]}


def _dynunet(state: State, dims: int) -> Iterator[tuple[str, int, Options]]:
    downs = [f"downsamples.{place}." for place in range(12) if f"downsamples.{place}.conv1.conv.weight" in state]
    blocks = ["input_block.", *downs, "bottleneck."]
    ups = [name for name in (f"upsamples.{place}.transp_conv.conv.weight" for place in range(12)) if name in state]
    if "output_block.conv.conv.weight" not in state or not ups:
        return
    weights = [state[f"{block}conv1.conv.weight"] for block in blocks]
    kernels = [list(weight.shape[2:]) for weight in weights]
    # A level is made smaller by as much as it is made larger again.
    raised = [list(state[name].shape[2:]) for name in ups]
    heads = len({name.split(".")[1] for name in state if name.startswith("deep_supervision_heads.")})
    options: Options = {
        "kernel_size": kernels,
        "strides": [[1] * dims, *reversed(raised)],
        "upsample_kernel_size": raised[::-1],
        "filters": [len(weight) for weight in weights],
        **({"norm_name": "batch"} if _norm(state) else {}),
        **({"deep_supervision": True, "deep_supr_num": heads} if heads else {}),
    }
    classes = len(state["output_block.conv.conv.weight"])
    yield "DynUNet", classes, options
    yield "DynUNet", classes, {**options, "res_block": True}


def _segresnet(state: State, dims: int) -> Iterator[tuple[str, int, Options]]:
    def depths(part: str) -> list[int]:
        parts = [name.split(".") for name in state if name.startswith(f"{part}.") and ".conv1." in name]
        found: dict[int, set[str]] = {}
        for _, level, block, *_ in parts:
            found.setdefault(int(level), set()).add(block)
        return [len(found[level]) for level in sorted(found)]

    final = [each for name, each in state.items() if name.startswith("conv_final.") and each.ndim >= 4]
    if not final:
        return
    options: Options = {"init_filters": len(state["convInit.conv.weight"])}
    options |= {"blocks_down": depths("down_layers"), "blocks_up": depths("up_layers")}
    yield "SegResNet", len(final[-1]), options
    yield "SegResNet", len(final[-1]), {**options, "norm": "batch"}


def _swin(state: State, dims: int) -> Iterator[tuple[str, int, Options]]:
    patch, out = state.get("swinViT.patch_embed.proj.weight"), state.get("out.conv.conv.weight")
    if patch is not None and out is not None:
        yield "SwinUNETR", len(out), {"feature_size": len(patch)}
        yield "SwinUNETR", len(out), {"feature_size": len(patch), "use_v2": True}


def _vnet(state: State, dims: int) -> Iterator[tuple[str, int, Options]]:
    out = state.get("out_tr.conv2.weight")
    if out is not None:
        yield "VNet", len(out), {}
        yield "VNet", len(out), {"bias": True}
