from __future__ import annotations

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from redserve.errors import InvalidArgument, ModelNotFound, UnsupportedModel
from redserve.modeling import processing
from redserve.modeling.processing import PIXEL_KEYS, ItemProcessor
from redserve.modeling.prompt import PromptRenderer
from tests.modeling.conftest import conversation, picture, pictures
from tests.support.reference import reference_processor
from tests.support.tiny_checkpoints import reference_inputs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redserve.domain.item import ItemMetadata


def _sizes(count: int) -> list[tuple[int, int]]:
    chance = random.Random(7)
    extreme = [(4, 4), (4, 60), (60, 4), (16, 16), (16, 17), (300, 10), (10, 300), (64, 64)]
    return extreme + [(chance.randint(5, 200), chance.randint(5, 200)) for _ in range(count)]


def _by_size(processor: ItemProcessor, height: int, width: int) -> ItemMetadata | None:
    try:
        return processor.metadata_for_size(height, width)
    except InvalidArgument:
        return None


def _by_pixels(processor: ItemProcessor, height: int, width: int) -> ItemMetadata | None:
    try:
        return processor.process(picture(height, width)).metadata
    except InvalidArgument:
        return None


def test_metadata_is_a_function_of_the_size_alone(path: Path) -> None:
    by_pixels = ItemProcessor.from_checkpoint(path)
    by_size = ItemProcessor.from_checkpoint(path)
    answered = 0
    for height, width in _sizes(60):
        found = _by_pixels(by_pixels, height, width)
        assert _by_size(by_size, height, width) == found
        answered += found is not None
    assert answered > 60


def test_blank_pictures_answer_where_there_is_no_rule(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_rule = ItemProcessor.from_checkpoint(path)
    sizes = _sizes(5)[3:]
    expected = [_by_size(by_rule, height, width) for height, width in sizes]
    monkeypatch.setattr(processing, "numbers_for_size", lambda *_: None)
    by_blank = ItemProcessor.from_checkpoint(path)
    assert [_by_size(by_blank, height, width) for height, width in sizes] == expected


def test_every_family_has_a_size_rule(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processor = ItemProcessor.from_checkpoint(path)

    def refuse(*_: object) -> None:
        raise AssertionError("a blank picture was preprocessed")

    monkeypatch.setattr(processor, "_run", refuse)
    assert processor.metadata_for_size(50, 30).num_rows > 0


def test_pixels_equal_those_of_the_checkpoints_own_processor(path: Path) -> None:
    processor = ItemProcessor.from_checkpoint(path)
    for image in pictures():
        reference = reference_inputs(path, conversation(1), [image])
        item = processor.process(image)
        assert item.pixels.keys() == {key for key in PIXEL_KEYS if key in reference}
        for key, value in item.pixels.items():
            assert torch.equal(value, torch.as_tensor(reference[key])), key


def test_grids_are_there_for_families_with_mrope_only(path: Path) -> None:
    processor = ItemProcessor.from_checkpoint(path)
    metadata = processor.metadata_for_size(30, 50)
    assert bool(metadata.grid) == processor.family.mrope
    if metadata.grid:
        time, height, width = metadata.grid
        assert (time, height * width // 4) == (1, metadata.num_rows)


@pytest.mark.parametrize(("height", "width"), [(1, 50), (50, 3), (3, 3)])
def test_narrow_pictures_are_refused(height: int, width: int, path: Path) -> None:
    processor = ItemProcessor.from_checkpoint(path)
    with pytest.raises(InvalidArgument, match="each edge needs 4 pixels"):
        processor.process(picture(height, width))
    with pytest.raises(InvalidArgument, match="each edge needs 4 pixels"):
        processor.metadata_for_size(height, width)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen3_vl"])
def test_extreme_aspect_ratios_are_the_clients_error(
    name: str, checkpoint: Callable[[str], Path]
) -> None:
    processor = ItemProcessor.from_checkpoint(checkpoint(name))
    for ask in (
        lambda: processor.metadata_for_size(4, 2000),
        lambda: processor.process(Image.new("RGB", (2000, 4))),
    ):
        with pytest.raises(InvalidArgument, match="2000x4"):
            ask()


def test_gemma3_with_pan_and_scan_still_knows_its_metadata(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "gemma3"
    shutil.copytree(checkpoint("gemma3"), folder)
    file = folder / "processor_config.json"
    settings = json.loads(file.read_text())
    image_settings = json.loads((folder / "preprocessor_config.json").read_text())
    pan = {
        "do_pan_and_scan": True,
        "pan_and_scan_min_crop_size": 8,
        "pan_and_scan_max_num_crops": 4,
        "pan_and_scan_min_ratio_to_activate": 1.2,
    }
    file.write_text(json.dumps(settings))
    (folder / "preprocessor_config.json").write_text(json.dumps({**image_settings, **pan}))
    by_pixels, by_size = (ItemProcessor.from_checkpoint(folder) for _ in range(2))
    for height, width in ((16, 64), (64, 16), (32, 32)):
        found = by_pixels.process(picture(height, width)).metadata
        assert by_size.metadata_for_size(height, width) == found
        rows = reference_inputs(folder, conversation(1), [picture(height, width)])["input_ids"]
        assert int((rows == by_size.image_token_ids[0]).sum()) == found.num_rows


@pytest.mark.parametrize("name", ["llava", "llava_next", "gemma3", "idefics3", "aya_vision"])
def test_folders_as_transformers_5_saves_them(
    name: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint(name)
    shutil.copy(source / "config.json", tmp_path)
    reference_processor(source).save_pretrained(tmp_path)  # one processor_config.json for all
    assert not (tmp_path / "preprocessor_config.json").exists()
    image = picture(30, 50)
    expected = ItemProcessor.from_checkpoint(source).process(image)
    found = ItemProcessor.from_checkpoint(tmp_path).process(image)
    assert found.metadata == expected.metadata
    assert torch.equal(found.pixels["pixel_values"], expected.pixels["pixel_values"])
    renderers = [PromptRenderer.from_checkpoint(folder) for folder in (source, tmp_path)]
    texts = [renderer.render(conversation(2)) for renderer in renderers]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("file", ["preprocessor_config.json", "tokenizer_config.json"])
def test_older_homes_of_the_processor_class(
    file: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llava"), folder)
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**content, "processor_class": "NoSuchProcessor"}))
    with pytest.raises(UnsupportedModel, match="NoSuchProcessor"):
        ItemProcessor.from_checkpoint(folder)


def test_many_threads_get_the_answers_of_one(checkpoint: Callable[[str], Path]) -> None:
    processor = ItemProcessor.from_checkpoint(checkpoint("idefics3"))
    images = pictures() * 4
    alone = [processor.process(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(processor.process, images))
    for one, other in zip(alone, together, strict=True):
        assert one.metadata == other.metadata
        assert torch.equal(one.pixels["pixel_values"], other.pixels["pixel_values"])


def test_missing_image_settings(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llava"), folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelNotFound, match="no usable image processor"):
        ItemProcessor.from_checkpoint(folder)


def test_processor_that_contradicts_the_config(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llava"), folder)
    file = folder / "processor_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "image_token": "a"}))
    with pytest.raises(UnsupportedModel, match="replaces 'a'"):
        ItemProcessor.from_checkpoint(folder)
