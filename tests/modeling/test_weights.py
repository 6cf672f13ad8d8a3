"""Damaged, incomplete or foreign weights are one typed sentence before memory is spent."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from redserve.errors import UnsupportedModel
from redserve.modeling import parts
from redserve.modeling.parts import load_language, load_vision
from redserve.modeling.weights import INDEX, SINGLE, count_elements, weight_files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LOADERS = [load_vision, load_language]


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy to damage."""
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint("qwen2_5_vl"), copy)
    return copy


def change_config(folder: Path, side: str, **values: Any) -> None:
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config[side] |= values
    file.write_text(json.dumps(config))


def shard(folder: Path, names: tuple[str, str] = ("a.safetensors", "b.safetensors")) -> None:
    whole = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    keys = sorted(whole)
    index: dict[str, str] = {}
    for name, own in zip(names, (keys[::2], keys[1::2]), strict=True):
        save_file({key: whole[key] for key in own}, folder / name, {"format": "pt"})
        index |= dict.fromkeys(own, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_elements_are_counted_over_all_files(folder: Path) -> None:
    expected = sum(value.numel() for value in load_file(folder / SINGLE).values())
    assert count_elements(folder) == expected
    shard(folder)
    assert [file.name for file in weight_files(folder)] == ["a.safetensors", "b.safetensors"]
    assert count_elements(folder) == expected


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("size", [0, 4, 100, 300_000])
def test_a_torn_file_is_named(load: Callable[[Path], object], size: int, folder: Path) -> None:
    file = folder / SINGLE
    content = file.read_bytes()
    assert size < len(content)
    file.write_bytes(content[:size])
    with pytest.raises(UnsupportedModel, match=r"model\.safetensors is damaged .*copy it again"):
        load(folder)


def test_a_torn_shard_is_named(folder: Path) -> None:
    shard(folder)
    file = folder / "b.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UnsupportedModel, match=r"b\.safetensors is damaged .*copy it again"):
        load_vision(folder)


def test_a_shard_that_is_not_there_is_named(folder: Path) -> None:
    shard(folder)
    (folder / "b.safetensors").unlink()
    with pytest.raises(UnsupportedModel, match=r"not there, the first is b\.safetensors"):
        load_language(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {"x": 3}}'])
def test_a_damaged_index_is_named(content: str, folder: Path) -> None:
    shard(folder)
    (folder / INDEX).write_text(content)
    with pytest.raises(UnsupportedModel, match=r"index\.json is damaged or incomplete"):
        load_language(folder)


def test_weights_under_another_name(folder: Path) -> None:
    (folder / SINGLE).rename(folder / "consolidated.safetensors")
    with pytest.raises(UnsupportedModel, match=r"neither model\.safetensors nor"):
        load_language(folder)


@pytest.mark.parametrize(
    ("load", "word"), [(load_vision, "visual"), (load_language, "layers.0.self_attn.q_proj")]
)
def test_a_tensor_of_another_shape_is_named(
    load: Callable[[Path], object], word: str, folder: Path
) -> None:
    weights = load_file(folder / SINGLE)
    name = next(key for key, value in weights.items() if word in key and value.dim() == 2)
    rows, columns = weights[name].shape
    weights[name] = torch.zeros(rows + 1, columns)
    save_file(weights, folder / SINGLE, {"format": "pt"})
    shapes = rf"\({rows + 1}, {columns}\) instead of \({rows}, {columns}\)"
    with pytest.raises(UnsupportedModel, match=rf"1 weights have another shape .*{shapes}"):
        load(folder)


@pytest.mark.parametrize(
    ("load", "side", "width"),
    [
        (load_vision, "vision_config", {"intermediate_size": 1 << 44}),
        (load_language, "text_config", {"intermediate_size": 1 << 44}),
    ],
)
def test_a_config_larger_than_its_weights_takes_no_memory(
    load: Callable[[Path], object], side: str, width: dict[str, int], folder: Path
) -> None:
    # Petabytes: had it tried to allocate them, there would be another error.
    change_config(folder, side, **width)
    with pytest.raises(UnsupportedModel, match=r"config\.json describes \d+ parameters"):
        load(folder)


def test_weights_of_every_family_pass_the_size_check(path: Path) -> None:
    for load in (load_vision, load_language):
        assert load(path).num_bytes <= 4 * count_elements(path)


@pytest.mark.parametrize("error", [RuntimeError("odd"), ValueError("odd"), OSError("odd")])
def test_other_errors_of_the_library_are_typed_and_keep_their_cause(
    error: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_model: Any) -> None:
        raise error

    monkeypatch.setattr(parts, "_keep_vision", fail)
    with pytest.raises(UnsupportedModel, match="cannot be loaded: odd") as caught:
        load_vision(folder)
    assert caught.value.__cause__ is error


def no_memory_on_the_device() -> None:
    raise torch.OutOfMemoryError("full")


def no_memory_on_the_cpu() -> None:
    torch.empty(1 << 55)


@pytest.mark.parametrize("allocate", [no_memory_on_the_device, no_memory_on_the_cpu])
def test_lack_of_memory_is_not_blamed_on_the_checkpoint(
    allocate: Callable[[], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_model: Any) -> None:
        with torch.device("cpu"):
            allocate()

    monkeypatch.setattr(parts, "_keep_vision", fail)
    with pytest.raises(RuntimeError, match=r"full|allocate memory"):
        load_vision(folder)
