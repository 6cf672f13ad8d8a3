from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from redserve.domain.item import Span
from redserve.errors import InvalidArgument, ModelNotFound, UnsupportedModel
from redserve.modeling.processing import ItemProcessor
from redserve.modeling.prompt import PromptRenderer
from tests.modeling.conftest import conversation, pictures
from tests.support.tiny_checkpoints import TINY_FAMILIES, reference_inputs

if TYPE_CHECKING:
    from collections.abc import Callable


def _replacements(path: Path, num_images: int) -> list[str]:
    processor = ItemProcessor.from_checkpoint(path)
    return [processor.process(image).metadata.replacement_text for image in pictures()[:num_images]]


@pytest.mark.parametrize("num_images", [0, 1, 3, 5])
def test_prompt_ids_equal_those_of_the_checkpoints_own_processor(
    path: Path, num_images: int
) -> None:
    renderer = PromptRenderer.from_checkpoint(path)
    messages = conversation(num_images)
    prompt = renderer.expand_and_tokenize(
        renderer.render(messages), replacements=_replacements(path, num_images)
    )
    reference = reference_inputs(path, messages, pictures()[:num_images])
    assert prompt.token_ids == reference["input_ids"][0].tolist()


def test_spans_are_the_row_positions_in_item_order(path: Path) -> None:
    renderer = PromptRenderer.from_checkpoint(path)
    processor = ItemProcessor.from_checkpoint(path)
    items = [processor.process(image).metadata for image in pictures()]
    ids, spans = renderer.expand_and_tokenize(
        renderer.render(conversation(len(items))),
        processor.placeholder,
        [item.replacement_text for item in items],
        processor.image_token_ids,
    )
    assert [sum(span.length for span in own) for own in spans] == [item.num_rows for item in items]
    flat = [at for own in spans for span in own for at in range(span.start, span.end)]
    assert flat == [at for at, token in enumerate(ids) if token in processor.image_token_ids]
    for own in spans:
        for left, right in itertools.pairwise(own):
            assert left.end < right.start, "neighbouring runs of one item are one span"


def test_items_side_by_side_keep_spans_of_their_own(checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint("llava_onevision"))
    text = f"a{renderer.placeholder}{renderer.placeholder}b"
    rows = [renderer.placeholder * 3, renderer.placeholder * 2]
    ids, spans = renderer.expand_and_tokenize(text, replacements=rows)
    assert spans == [[Span(1, 3)], [Span(4, 2)]]
    assert len(ids) == 7


def test_some_families_spread_an_item_over_many_spans(checkpoint: Callable[[str], Path]) -> None:
    counts = {}
    for name in ("idefics3", "smolvlm", "mistral3", "aya_vision", "qwen2_vl"):
        path = checkpoint(name)
        renderer = PromptRenderer.from_checkpoint(path)
        text = renderer.render(conversation(1))
        prompt = renderer.expand_and_tokenize(text, replacements=_replacements(path, 1))
        counts[name] = len(prompt.spans[0])
    # A 30x50 picture: 2x3 tiles and the whole; 4 lines of cells; 2 tiles and the whole; one grid.
    assert counts == {"idefics3": 7, "smolvlm": 7, "mistral3": 4, "aya_vision": 3, "qwen2_vl": 1}


@pytest.mark.parametrize("name", ["llava", "gemma3", "qwen2_vl", "mistral3"])
def test_bos_is_there_once_or_never(name: str, checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint(name))
    ids, _ = renderer.expand_and_tokenize(renderer.render(conversation(0)))
    expected = 1 if TINY_FAMILIES[name].bos_by_tokenizer else 0
    assert ids.count(renderer.tokenizer.bos_token_id) == expected


def test_text_may_not_hold_reserved_tokens(path: Path) -> None:
    renderer = PromptRenderer.from_checkpoint(path)
    row_token = TINY_FAMILIES[path.name].row_token
    for token in {renderer.placeholder, row_token}:
        for content in (f"hi {token}", [{"type": "text", "text": f"{token}!"}]):
            with pytest.raises(InvalidArgument) as caught:
                renderer.render([{"role": "user", "content": content}])
            assert token in caught.value.message
            assert caught.value.field is not None
            assert caught.value.field.startswith("messages[0].content")


def test_video_placeholders_are_reserved_too(checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint("qwen3_vl"))
    with pytest.raises(InvalidArgument, match="video_pad"):
        renderer.render([{"role": "user", "content": "<|video_pad|>"}])


def test_a_placeholder_split_over_parts_is_found(checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint("llava"))
    parts = [{"type": "text", "text": "<ima"}, {"type": "text", "text": "ge>"}]
    with pytest.raises(InvalidArgument, match="1 placeholders <image> of 0 images"):
        renderer.render([{"role": "user", "content": parts}])


def test_a_row_token_in_a_raw_prompt_is_refused(checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint("gemma3"))
    with pytest.raises(InvalidArgument, match="<image_soft_token>"):
        renderer.expand_and_tokenize("free rows: <image_soft_token>")


def test_as_many_replacements_as_placeholders(checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint("llava"))
    with pytest.raises(InvalidArgument, match="2 placeholders <image> for 1 images"):
        renderer.expand_and_tokenize("<image><image>", replacements=["<image>"])


@pytest.mark.parametrize("kind", ["video", "audio", None])
def test_unknown_parts(kind: str | None, checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint("llava"))
    with pytest.raises(InvalidArgument, match="write text or image"):
        renderer.render([{"role": "user", "content": [{"type": kind}]}])


@pytest.mark.parametrize("text", [None, 7, ["x"]])
def test_text_parts_hold_strings(text: object, checkpoint: Callable[[str], Path]) -> None:
    renderer = PromptRenderer.from_checkpoint(checkpoint("llava"))
    with pytest.raises(InvalidArgument, match="needs a string"):
        renderer.render([{"role": "user", "content": [{"type": "text", "text": text}]}])


def _with_template(source: Path, target: Path, template: str | None) -> PromptRenderer:
    shutil.copytree(source, target)
    file = target / "chat_template.jinja"
    file.unlink()
    if template is not None:
        file.write_text(template)
    return PromptRenderer.from_checkpoint(target)


def test_no_template_is_a_clear_error(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    renderer = _with_template(checkpoint("llava"), tmp_path / "copy", None)
    words = r"no chat template: add chat_template\.jinja to its folder$"
    for use in (renderer.check, lambda: renderer.render(conversation(0))):
        with pytest.raises(UnsupportedModel, match=words):
            use()
    # Text that is rendered elsewhere still works.
    assert renderer.expand_and_tokenize("hello").token_ids[0] == 1


def test_a_template_that_loses_images_is_an_error(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    renderer = _with_template(checkpoint("llava"), tmp_path / "copy", template)
    with pytest.raises(InvalidArgument, match="0 placeholders <image> of 2 images"):
        renderer.render(conversation(2))


def test_a_template_that_raises_speaks_to_the_client(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    renderer = _with_template(checkpoint("llava"), tmp_path / "copy", template)
    with pytest.raises(InvalidArgument, match="roles must alternate"):
        renderer.render(conversation(0))


def test_a_template_that_wants_strings_gets_strings(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}[{{ m['role'] }}]{% if m['content'] is string %}{{ m['content'] }}"
        "{% else %}{% for p in m['content'] %}{% if p['type'] == 'image' %}<image>"
        "{% endif %}{% endfor %}{% endif %}{% endfor %}"
    )
    renderer = _with_template(checkpoint("llava"), tmp_path / "copy", template)
    messages: list[dict[str, Any]] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}],
        },
        {"role": "user", "content": [{"type": "image"}]},
    ]
    assert renderer.render(messages) == "[user]one two[user]<image>"


@pytest.mark.parametrize("file", ["chat_template.json", "processor_config.json"])
def test_older_homes_of_the_template(
    file: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    source = checkpoint("llava")
    folder = tmp_path / "copy"
    shutil.copytree(source, folder)
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / file).read_text()) if (folder / file).exists() else {}
    (folder / file).write_text(json.dumps({**settings, "chat_template": template}))
    expected = PromptRenderer.from_checkpoint(source).render(conversation(2))
    assert PromptRenderer.from_checkpoint(folder).render(conversation(2)) == expected


def test_template_variables_and_tools_reach_the_template(
    checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    template = "{{ mood }}{% for tool in tools %}{{ tool['function']['name'] }}{% endfor %}"
    renderer = _with_template(checkpoint("llava"), tmp_path / "copy", template)
    tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
    text = renderer.render(
        [{"role": "user", "content": "x"}], tools=[tool], template_variables={"mood": "calm "}
    )
    assert text == "calm look"


@pytest.mark.parametrize("kept", [("config.json",), ("config.json", "tokenizer_config.json")])
@pytest.mark.parametrize("user", [PromptRenderer, ItemProcessor])
def test_missing_tokenizer(
    user: type[PromptRenderer | ItemProcessor],
    kept: tuple[str, ...],
    checkpoint: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    for name in (*kept, "preprocessor_config.json"):
        shutil.copy(checkpoint("qwen2_5_vl") / name, tmp_path)
    with pytest.raises(ModelNotFound, match=r"has no tokenizer \(tokenizer\.json, tokenizer\.mod"):
        user.from_checkpoint(tmp_path)


_WITHOUT_TORCH = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.split(".")[0] == "torch" else find(name, package)
)
sys.modules["torch"] = None  # importing it raises ImportError
from pathlib import Path
from redserve.modeling.prompt import PromptRenderer
from redserve.modeling.processing import ItemProcessor
path = Path(sys.argv[1])
renderer = PromptRenderer.from_checkpoint(path)
metadata = ItemProcessor.from_checkpoint(path).metadata_for_size(30, 50)
text = renderer.render([{"role": "user", "content": [{"type": "image"}]}])
print(renderer.expand_and_tokenize(text, replacements=[metadata.replacement_text]).token_ids)
"""


@pytest.mark.parametrize("name", ["qwen2_5_vl", "smolvlm"])
def test_prompts_and_metadata_need_no_torch(name: str, checkpoint: Callable[[str], Path]) -> None:
    path = checkpoint(name)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    messages = [{"role": "user", "content": [{"type": "image"}]}]
    reference = reference_inputs(path, messages, pictures()[:1])
    assert json.loads(done.stdout) == reference["input_ids"][0].tolist()
