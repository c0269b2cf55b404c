"""One configuration of nnU-Net's plans, with what its dataset.json says: checked, in our words.

Legend: C channels, D, H, W the three axes of a volume as nnU-Net's network takes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from compress.data.dataset.cases import Spacing
from compress.data.dataset.tiles import Size
from compress.data.planned.architecture import architecture_of
from compress.data.planned.normalization import Intensities, Normalizer, Scheme
from compress.data.planned.resampling import Resampling
from compress.data.planned.results import Results
from compress.errors import DataError

IN_FILE_ORDER = ("SimpleITKIO", "NibabelIO")
REORIENTED = "NibabelIOWithReorient"
ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is done to an image before and after the network, and what the network is."""

    name: str
    """The results folder's, which tells trainer, plans and configuration."""
    patch: Size
    """Of the network's input: three sides, or two of a configuration that takes slices."""
    spacing: Spacing
    """What voxels are resampled to, in mm along each axis of the patch."""
    normalizers: tuple[Normalizer, ...]
    """One for each channel."""
    transposed: tuple[int, int, int]
    """Which axis of the file, the slowest first, each of D, H, W is."""
    reoriented: bool
    """Whether volumes are turned to RAS as they are read; where not, they are taken in the file's own order."""
    ending: str
    classes: tuple[str, ...]
    ignore: int | None
    data: Resampling
    answers: Resampling
    arch: Mapping[str, Any] = field(hash=False, repr=False)
    """The class of the network, and what it is built with but for its numbers of channels and classes."""

    @property
    def channels(self) -> int:
        return len(self.normalizers)

    @property
    def dims(self) -> int:
        return len(self.patch)

    def told(self, overlap: float, mirrored: Sequence[int]) -> dict[str, Any]:
        """What a device must do as nnU-Net does, for the metadata of an artifact."""
        return {
            "results": self.name,
            "transposed": self.transposed,
            "reoriented_to_RAS": self.reoriented,
            "normalization": [asdict(each) for each in self.normalizers],
            "resampling": {"image": asdict(self.data), "logits": asdict(self.answers)},
            "step": round(1 - overlap, 6),
            "mirrored": list(mirrored),
        }

    @property
    def scale(self) -> str:
        """How voxels are brought to what the network takes, in words: a device must do the same."""
        return "; ".join(f"channel {index}: {each}" for index, each in enumerate(self.normalizers))


def plan_of(results: Results) -> Plan:
    """What a results folder says.

    Raises:
        DataError: if a file is missing or damaged, or asks for what is not served here, by its name.
    """
    plans, told = results.plans(), results.dataset()
    where = f"{results.path / 'plans.json'}"
    options = _configuration(plans.get("configurations", {}), results.configuration, where)
    try:
        return _plan(results, plans, options, told)
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise DataError(f"{where}: not nnU-Net v2's, or damaged: lacks or misstates {error}") from None


def _plan(results: Results, plans: Mapping[str, Any], options: Mapping[str, Any], told: Mapping[str, Any]) -> Plan:
    where = f"{results.path / 'plans.json'}"
    classes, ignore = _labels(told, f"{results.path / 'dataset.json'}")
    channels = told.get("channel_names") or told["modality"]
    patch = tuple(map(int, options["patch_size"]))
    for key, served in (("preprocessor_name", "DefaultPreprocessor"), ("label_manager", "LabelManager")):
        found = options.get(key) or plans.get(key) or served
        if found != served:
            raise DataError(f"{where}: {key} is {found}, and {served} alone is served")
    reader, ending = plans["image_reader_writer"], told["file_ending"]
    if reader not in (*IN_FILE_ORDER, REORIENTED) or ending not in ENDINGS:
        raise DataError(
            f"{where}: images are read by {reader} from {ending} files, and volumes in NIfTI (.nii.gz, .nii) alone are "
            "served; convert them, and give the network without its data (docs/nnunet.md)"
        )
    return Plan(
        name=results.path.name,
        patch=patch,
        spacing=tuple(map(float, options["spacing"])),
        normalizers=_normalizers(plans, options, len(channels), where),
        transposed=_three(plans["transpose_forward"]),
        reoriented=reader == REORIENTED,
        ending=ending,
        classes=classes,
        ignore=ignore,
        data=_resampling(options, "data", 3, where),
        answers=_resampling(options, "probabilities", 1, where),
        arch=architecture_of(options, results.trainer, where),
    )


def _configuration(there: Mapping[str, Any], name: str, where: str) -> dict[str, Any]:
    """A configuration with all that it inherits.

    Raises:
        DataError: if there is none of this name, or it is a cascade's second stage.
    """
    found: dict[str, Any] = {}
    asked, seen = name, list[str]()
    while asked is not None:
        if asked not in there or asked in seen:
            raise DataError(f"{where}: has no configuration {asked}; there are {', '.join(there) or 'none'}")
        seen.append(asked)
        found = {**there[asked], **found}
        asked = there[asked].get("inherits_from")
    if found.get("previous_stage"):
        raise DataError(
            f"{where}: {name} is the second stage of a cascade: it takes the answers of {found['previous_stage']} "
            "beside the image, and a recipe has one network; give 3d_fullres, 2d or 3d_lowres"
        )
    return found


def _labels(told: Mapping[str, Any], where: str) -> tuple[tuple[str, ...], int | None]:
    """The class names, background first, and the index that counts nowhere."""
    labels = dict(told["labels"])
    regions = [name for name, value in labels.items() if isinstance(value, list) and len(value) > 1]
    if regions:
        raise DataError(
            f"{where}: labels are regions that overlap ({', '.join(regions[:3])}: a sigmoid each, by "
            "regions_class_order), and networks that choose one class a voxel alone are served; train it with plain "
            "labels"
        )
    ignore = labels.pop("ignore", None)
    indices = {name: int(value[0] if isinstance(value, list) else value) for name, value in labels.items()}
    names = sorted(indices, key=indices.__getitem__)
    if [indices[name] for name in names] != list(range(len(names))) or len(names) < 2:
        raise DataError(f"{where}: labels are {indices}, and are to be whole numbers from 0 (background) without a gap")
    return tuple(names), None if ignore is None else int(ignore)


def _normalizers(
    plans: Mapping[str, Any], options: Mapping[str, Any], channels: int, where: str
) -> tuple[Normalizer, ...]:
    known = plans.get("foreground_intensity_properties_per_channel") or plans.get(
        "foreground_intensity_properties_by_modality", {}
    )
    schemes, masked = options["normalization_schemes"], options["use_mask_for_norm"]
    if not len(schemes) == len(masked) == channels:
        raise DataError(f"{where}: {len(schemes)} normalization_schemes for the {channels} channels of dataset.json")
    found = []
    for index, (scheme, mask) in enumerate(zip(schemes, masked, strict=True)):
        if scheme not in get_args(Scheme):
            raise DataError(
                f"{where}: channel {index} is normalized by {scheme}, and {', '.join(get_args(Scheme))} are served"
            )
        told = known.get(str(index)) if scheme == "CTNormalization" else None
        keys = {"mean": "mean", "std": "std", "low": "percentile_00_5", "high": "percentile_99_5"}
        intensities = None if told is None else Intensities(**{ours: float(told[key]) for ours, key in keys.items()})
        found.append(Normalizer(scheme=scheme, masked=bool(mask), intensities=intensities))
    return tuple(found)


def _resampling(options: Mapping[str, Any], what: str, order: int, where: str) -> Resampling:
    name = options.get(f"resampling_fn_{what}", "resample_data_or_seg_to_shape")
    if name != "resample_data_or_seg_to_shape":
        raise DataError(f"{where}: {what} is resampled by {name}, and resample_data_or_seg_to_shape alone is served")
    told = {"order": order, "order_z": 0, "force_separate_z": None, **options.get(f"resampling_fn_{what}_kwargs", {})}
    return Resampling(order=int(told["order"]), across=int(told["order_z"]), separate=told["force_separate_z"])


def _three(axes: Sequence[int]) -> tuple[int, int, int]:
    first, second, third = map(int, axes)
    return first, second, third
