"""The network that nnU-Net's plans describe, as a mapping that a description can keep.

`{"class": "PlainConvUNet", "n_stages": 6, "conv_op": "Conv3d", ...}`: layers by the names of their classes in torch.nn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.errors import DataError

KNOWN = ("PlainConvUNet", "ResidualEncoderUNet")
"""Classes of dynamic_network_architectures.architectures.unet: those that nnU-Net's own planners give."""
LAYERS = ("conv_op", "norm_op", "dropout_op", "nonlin")
"""Options that are layers, by their names."""
WITH_BATCH_NORM = "nnUNetTrainerBN"
"""The one of nnU-Net's trainers that builds these classes otherwise than the plans say."""


def architecture_of(options: Mapping[str, Any], trainer: str, where: str) -> dict[str, Any]:
    """The class, and its options but for input_channels, num_classes and deep_supervision.

    Raises:
        DataError: naming a class that is not served.
    """
    told = options.get("architecture") or _before_2024(options)
    kind = str(told["network_class_name"]).rpartition(".")[2]
    if kind not in KNOWN:
        raise DataError(
            f"{where}: the network is a {told['network_class_name']}, and {' and '.join(KNOWN)} are served; give it as "
            "network: {python: ...} or {onnx: ...}"
        )
    found = {"class": kind, **told["arch_kwargs"]}
    for key in LAYERS:
        if found.get(key) is not None:
            found[key] = str(found[key]).rpartition(".")[2]
    if trainer == WITH_BATCH_NORM:
        found |= {"norm_op": f"BatchNorm{len(options['patch_size'])}d", "norm_op_kwargs": {"eps": 1e-5, "affine": True}}
    return found


def _before_2024(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same from plans of nnU-Net before 2.4, which name a class and a few numbers."""
    kind, dims = options["UNet_class_name"], len(options["patch_size"])
    encoder = options["n_conv_per_stage_encoder"]
    first, most = options["UNet_base_num_features"], options["unet_max_num_features"]
    blocks = "n_blocks_per_stage" if kind == "ResidualEncoderUNet" else "n_conv_per_stage"
    return {
        "network_class_name": kind,
        "arch_kwargs": {
            "n_stages": len(encoder),
            "features_per_stage": [min(first * 2**stage, most) for stage in range(len(encoder))],
            "conv_op": f"Conv{dims}d",
            "kernel_sizes": options["conv_kernel_sizes"],
            "strides": options["pool_op_kernel_sizes"],
            blocks: encoder,
            "n_conv_per_stage_decoder": options["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    }
