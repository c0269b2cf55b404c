"""Imports point down, lazy ones included; and one vendor is one file."""

from __future__ import annotations

import ast
import fnmatch

import pytest

from docs.architecture import (
    ROOT,
    arrows,
    arrows_between_files,
    circles,
    files,
    imports,
    imports_of,
    module,
    modules,
    page,
)

# From the top down, a room a line: a module may import from its own room and from those below. A room is a folder, or a
# file that lies loose in `compress` or `export`.
FLOORS = (
    "compress",
    "compress.__main__",
    "compress.cli",
    "compress.exits",
    "compress.commands",
    "compress.wrapping",
    "compress.search",
    "compress.search.strategies",
    "compress.search.strategies.sampling",
    "compress.search.space",
    "compress.search.objectives",
    "compress.search.objectives.judging",
    "compress.pipeline",
    "compress.recipe",
    "compress.packing.kinds",
    "compress.packing.emulators",
    "compress.packing",
    "compress.packing.runner",
    "compress.recognition",
    "compress.recognition.doors",
    "compress.recognition.tensors",
    "compress.report",
    "compress.report.drawing",
    "compress.report.derived",
    "compress.gates",
    "compress.gates.judging",
    "compress.passes",
    "compress.editing.blocks",
    "compress.editing.pruning",
    "compress.editing.pruning.dependency",
    "compress.editing.binarization",
    "compress.editing.decomposition",
    "compress.editing.integers",
    "compress.editing",
    "compress.editing.precisions",
    "compress.train",
    "compress.train.losses",
    "compress.storage",
    "compress.networks",
    "compress.networks.foreign.onnx",
    "compress.networks.foreign",
    "compress.networks.blocks.kinds",
    "compress.networks.blocks",
    "compress.contracts",
    "compress.task",
    "compress.cluster",
    "compress.cache",
    "compress.postprocess",
    "compress.postprocess.applying",
    "compress.data",
    "compress.data.planned",
    "compress.data.dataset.forms",
    "compress.data.dataset",
    "compress.measure",
    "compress.progress",
    "compress.errors",
    # Below here is ONNX and what runs it.
    "export.peak_memory",
    "export.target",
    "export.remote",
    "export.registry",
    "export.backends",
    "export.backend",
    "export.kernels",
    "export.deviation",
    "export.to_onnx",
    "export.quantization",
    "export.half",
    "export.rewrites",
    "export.layers",
    "export.packed",
    "export.capture",
    "export.programs",
    "export.graph",
    "export.modules",
    "export.artifact",
    "export.devices",
    "export.device",
    "export.floor",
    "export.reach",
    "export.remote.runner",
    "export.sessions",
    "export.engines",
    "export.profile",
    "export.host",
    "export.instruction_set",
    "export.clock",
    "export.choice",
    "export.files",
    "export.errors",
    "export",
)

# Imports that point up, each with its reason.
UPWARD: dict[tuple[str, str], str] = {}

# Vendors whose objects never leave their file.
VENDORS = {
    "onnxruntime": "export/backends/onnxruntime.py",
    "openvino": "export/backends/openvino.py",
    "tensorrt*": "export/backends/tensorrt.py",
    "nncf": None,
    "torch_pruning": "compress/editing/pruning/importance.py",
    "tensorly": "compress/editing/decomposition/thin_layers.py",
    "segmentation_models_pytorch": "compress/networks/smp.py",
    "nibabel": "compress/data/dataset/nifti_file.py",
    "dynamic_network_architectures": "compress/networks/nnunet.py",
    "pydicom": "compress/data/dataset/dicom.py",
    "timm": "compress/networks/foreign/timm_encoder.py",
    "torchvision": "compress/networks/foreign/torchvision_import.py",
    "nni": "compress/search/strategies/sampling/nni_strategies.py",
    "ray": "compress/cluster.py",
    "optuna": "compress/search/strategies/sampling/samplers.py",
}


def room(name: str) -> str:
    """The room of a module: its longest prefix in FLOORS."""
    while name not in FLOORS:
        name, dot, _ = name.rpartition(".")
        assert dot, "a module outside compress and export"
    return name


def floor(name: str) -> int:
    return FLOORS.index(room(name))


def ours(name: str) -> bool:
    return name.partition(".")[0] in ("compress", "export")


def test_every_folder_and_every_loose_file_has_a_floor_of_its_own_and_every_floor_is_there() -> None:
    folders = {module(path.parent) for path in files()}
    loose = {name for name in modules() if name.count(".") == 1}
    assert folders | loose == set(FLOORS) and len(FLOORS) == len(set(FLOORS))


def test_only_nouns_that_everybody_needs_lie_loose() -> None:
    assert len([path for path in (ROOT / "compress").glob("*.py") if not path.stem.startswith("__")]) <= 8


def test_imports_point_down() -> None:
    upward = [
        f"{each.by}:{each.line} imports {each.what}"
        for each in imports()
        if ours(each.what) and floor(each.what) < floor(each.by) and (each.by, each.what) not in UPWARD
    ]
    assert not upward, "\n".join(upward)


def test_every_exception_is_still_needed() -> None:
    there = {(each.by, each.what) for each in imports()}
    assert set(UPWARD) <= there
    assert all(floor(what) < floor(by) for by, what in UPWARD)


def test_export_never_imports_compress() -> None:
    assert not [each for each in imports() if each.by.startswith("export") and each.what.split(".")[0] == "compress"]


def test_errors_stand_on_errors_alone() -> None:
    assert {each.what for each in imports() if each.by == "compress.errors"} == {"export.errors"}
    assert {each.what for each in imports() if each.by == "export.errors"} == set()


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Also not where an import stands in a function, or is for the type checker alone: none needs that."""
    drawn = arrows_between_files()
    assert circles(drawn) == []
    assert "export.devices.cpu" in drawn["export.registry"], "files that are asked for by their words are imported"
    low, high = "export.artifact", "compress.commands.run"
    assert set(circles({**drawn, low: drawn[low] | {high}})) >= {low, high}


@pytest.mark.parametrize(("vendor", "place"), VENDORS.items())
def test_one_vendor_is_one_file_and_a_runtime_its_session_too(vendor: str, place: str | None) -> None:
    # What packs hold runs where nothing of ours is.
    users = {
        each.by
        for each in imports()
        if fnmatch.fnmatch(each.what.split(".")[0], vendor) and room(each.by) != "compress.packing.runner"
    }
    allowed = {module(ROOT / each) for each in (place, (place or "").replace("/backends/", "/sessions/")) if each}
    assert users <= allowed


@pytest.mark.parametrize("vendor", [vendor for vendor, place in VENDORS.items() if place and vendor != "onnxruntime"])
def test_a_vendor_that_may_be_missing_is_imported_only_when_it_is_used(vendor: str) -> None:
    users = [each for each in imports() if fnmatch.fnmatch(each.what.split(".")[0], vendor) and not each.lazy]
    # A session is itself imported only where its runtime is there.
    assert not [each for each in users if room(each.by) != "export.sessions"]


def test_no_import_escapes_the_search() -> None:
    source = (
        "import compress.commands.run\n"
        "from compress.report import html\n"
        "if TYPE_CHECKING:\n    from compress import progress\n"
        "def use(word):\n"
        "    from compress.errors import DataError\n"
        "    importlib.import_module(f'compress.passes.{word}')\n"
        "    named('compress.networks', word)\n"
        "    importlib.import_module('tensorrt')\n"
    )
    found = {each.what: each.lazy for each in imports_of(source, "x")}
    assert found == {
        "compress.commands.run": False,
        "compress.report.html": False,
        "compress.progress": True,
        "compress.errors": True,
        "compress.passes": True,
        "compress.networks": True,
        "tensorrt": True,
    }


def test_the_page_that_draws_the_rooms_is_drawn_from_this_code() -> None:
    assert circles(arrows()) == []
    shown = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    # Lines of source change with every commit.
    assert without_lines(shown) == without_lines(page()), "draw it again: python -m docs.architecture"


def without_lines(text: str) -> list[list[str]]:
    return [row.split("|")[:3] + row.split("|")[4:] for row in text.splitlines() if row.startswith("| ")]


LONGEST = {ast.ClassDef: 150, ast.FunctionDef: 50, ast.AsyncFunctionDef: 50}


def test_files_classes_and_functions_have_one_subject() -> None:
    """Longer ones had several so far; a table of data may be longer, in a file of its own that is no Python."""
    long = []
    for path in files():
        source = path.read_text(encoding="utf-8")
        long += [f"{path}: {len(source.splitlines())} lines"] if len(source.splitlines()) > 400 else []
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, tuple(LONGEST)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{path}: {node.name}: {lines} lines"] if lines > LONGEST[type(node)] else []
    assert not long, "\n".join(long)
