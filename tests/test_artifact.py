"""Artifacts and their sidecars, writing that is whole or not at all, and devices."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.artifact import Artifact, Port
from export.device import Device, cuda_capabilities
from export.errors import BackendError, NotHere, SegpressError, SurroundingsError
from export.files import make_folder, write_bytes, write_json, write_together
from export.host import usable_cpus
from export.quantization.rules import Rules
from export.registry import find_backend, find_device, named, words


def artifact(folder: Path, **made: object) -> Artifact:
    path = folder / "net.xml"
    path.write_text("<net/>")
    path.with_suffix(".bin").write_bytes(bytes(1000))
    image = Port(name="image", shape=(-1, 3, 32, 32), dtype="float")
    logits = Port(name="logits", shape=(-1, 2, 32, 32), dtype="float")
    return Artifact(path=path, format="openvino", beside=("net.bin",), input=image, output=logits, made=made)


def test_a_sidecar_brings_the_artifact_back(tmp_path: Path) -> None:
    sealed = artifact(tmp_path, openvino="2026.4", flags={"threads": 2}).sealed()
    again = Artifact.read(sealed.path)
    assert again == sealed
    again.verify()
    assert set(again.made["sha256"]) == {"net.xml", "net.bin"}
    assert again.size_mb == pytest.approx(0.001006)


@pytest.mark.parametrize("name", ["net.xml", "net.bin"])
def test_a_changed_or_missing_file_is_noticed(name: str, tmp_path: Path) -> None:
    sealed = artifact(tmp_path).sealed()
    (tmp_path / name).write_bytes(b"another")
    with pytest.raises(BackendError, match=rf"{name}: not the file that was built .* --fresh builds it again"):
        sealed.verify()
    (tmp_path / name).unlink()
    with pytest.raises(BackendError, match=rf"{name}: the file is gone; --fresh builds it again"):
        sealed.verify()


def test_a_file_that_was_never_sealed_is_not_trusted(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="its sidecar has no SHA-256 of it"):
        artifact(tmp_path).verify()


def test_an_artifact_without_a_readable_sidecar_is_refused(tmp_path: Path) -> None:
    path = artifact(tmp_path).path
    with pytest.raises(BackendError, match=r"net.xml: has no sidecar net.xml.json"):
        Artifact.read(path)
    for text in ("", "[]", '{"format": "onnx"}', '{"input": "image"}', "\xff"):
        path.with_name("net.xml.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(BackendError, match=r"net.xml.json: not an artifact's sidecar"):
            Artifact.read(path)


def test_a_file_is_written_over_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, {"name": "Nervus medianus – links"})
    write_json(path, {"name": "ü"})
    assert json.loads(path.read_text()) == {"name": "ü"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small file system to fill")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_on_a_full_disk_the_old_file_stays_and_no_half_one_does(small_disk: Path) -> None:
    path = small_disk / "net.onnx"
    write_bytes(path, b"old")
    with pytest.raises(SurroundingsError, match=r"net.onnx: could not be written \(No space left on device\)") as full:
        write_bytes(path, bytes(200_000))
    assert full.value.exit_code == 4
    assert path.read_bytes() == b"old"
    assert list(small_disk.iterdir()) == [path]


def test_a_path_that_cannot_be_is_the_user_s_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "no" / "folder.txt", tmp_path / "file" / "below.txt", tmp_path / ("long" * 100)):
        with pytest.raises(SegpressError, match="choose another place with --out") as refusal:
            write_bytes(path, b"")
        assert not isinstance(refusal.value, SurroundingsError)
    with pytest.raises(SegpressError, match="cannot be written"):
        make_folder(tmp_path / "file" / "below")


def test_every_device_and_backend_is_found_by_its_file_s_name() -> None:
    for word in words("export.devices"):
        assert find_device(word).name == word
    assert {"onnxruntime", "openvino", "reference", "tensorrt", "torch"} <= set(words("export.backends"))
    for word in words("export.backends"):
        assert named("export.backends", word).__name__.lower() == word.replace("_", "")


def test_every_backend_of_a_device_is_one_that_we_have_and_computes_on_it() -> None:
    for word in words("export.devices"):
        device = find_device(word)
        assert set(device.backends) <= set(words("export.backends"))
        assert all(device.kind in find_backend(each).runs_on for each in device.backends)


def test_every_backend_states_its_rules() -> None:
    for word in words("export.backends"):
        rules = find_backend(word).rules
        assert isinstance(rules, Rules) or (rules is None and find_backend(word).runs_modules)


def test_a_host_without_a_driver_has_no_gpu() -> None:
    if cuda_capabilities():
        pytest.skip("this host has an NVIDIA driver")
    with pytest.raises(NotHere, match=r"^no NVIDIA driver$"):
        find_device("cuda").check_here()
    find_device("cpu").check_here()


def test_another_card_than_the_one_asked_for_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("export.device.cuda_capabilities", lambda: ["8.9"])
    find_device("cuda").check_here()
    find_device("rtx_40").check_here()
    with pytest.raises(NotHere, match=r"this host's GPU has compute capability 8.9, not 8.6"):
        find_device("rtx_30").check_here()


def test_a_device_elsewhere_is_not_here() -> None:
    with pytest.raises(NotHere, match="Jetson Orin Nano is another machine") as absent:
        find_device("orin_nano").check_here()
    assert absent.value.exit_code == 3
    assert isinstance(find_device("orin_nano"), Device)


def test_this_process_may_use_some_cpus() -> None:
    assert 1 <= usable_cpus() <= (os.cpu_count() or 1)


@pytest.mark.parametrize("error", [PermissionError(13, "no"), KeyboardInterrupt()])
def test_files_that_belong_together_are_all_there_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    first, second = tmp_path / "split.csv", tmp_path / "recipe.yaml"
    write_together({first: b"a", second: b"b"})
    assert (first.read_bytes(), second.read_bytes()) == (b"a", b"b")
    first.unlink()
    second.unlink()
    rename = Path.replace

    def fails(path: Path, to: Path) -> Path:
        if to == second:
            raise error
        return rename(path, to)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises((SegpressError, KeyboardInterrupt)):
        write_together({first: b"a", second: b"b"})
    assert not list(tmp_path.iterdir())
