"""A chat template is tried before a router says that it is ready."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from redserve.errors import UnsupportedModel
from redserve.modeling.prompt import PromptRenderer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARTS = (
    "{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}"
    "{% if p.type == 'image' %}<image>{% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %}"
)
EACH = "{% for m in messages %}" + PARTS + "{% endfor %}"
NEEDS_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
)


@pytest.fixture
def renderer(checkpoint: Callable[[str], Path], tmp_path: Path) -> Callable[[str], PromptRenderer]:
    """A renderer with another template."""

    def build(template: str) -> PromptRenderer:
        folder = tmp_path / "copy"
        shutil.copytree(checkpoint("llava"), folder)
        (folder / "chat_template.jinja").write_text(template)
        return PromptRenderer.from_checkpoint(folder)

    return build


def test_templates_of_every_family_pass(path: Path) -> None:
    assert PromptRenderer.from_checkpoint(path).check() is None


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages %}{{ m.role }}", r"unexpected|[Uu]nclosed|end of template"),
        ("{{ messages[0].nothing.deeper }}", "no attribute 'nothing'"),
        ("{{ messages | unheard_of }}", "unheard_of"),
        ("{{ 1 // 0 }}", "by zero"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
    ],
)
def test_a_broken_template_is_refused(
    template: str, words: str, renderer: Callable[[str], PromptRenderer]
) -> None:
    with pytest.raises(UnsupportedModel, match=r"jinja cannot be rendered") as caught:
        renderer(template).check()
    assert caught.value.__cause__ is not None
    assert caught.match(words)


@pytest.mark.parametrize(
    ("template", "num_found"),
    [
        ("{% for m in messages %}{{ m.role }}{% endfor %}", 0),
        (EACH.replace("<image>", "<picture>"), 0),
        (EACH.replace("<image>", "<image><image>"), 2),
    ],
)
def test_a_template_that_misplaces_images_is_refused(
    template: str, num_found: int, renderer: Callable[[str], PromptRenderer]
) -> None:
    words = f"does not place images: it made {num_found} placeholders <image> of 1 images"
    with pytest.raises(UnsupportedModel, match=words):
        renderer(template).check()


@pytest.mark.parametrize(
    "template",
    [
        NEEDS_SYSTEM + EACH,
        # Fails without a word of its own, but only where the system turn is missing.
        "{{ messages[1].role.upper() }}" + EACH,
    ],
)
def test_a_template_that_wants_a_system_turn_passes(
    template: str, renderer: Callable[[str], PromptRenderer]
) -> None:
    assert renderer(template).check() is None


def test_a_template_with_its_own_objections_is_only_remarked_on(
    renderer: Callable[[str], PromptRenderer],
) -> None:
    template = "{% if not tools %}{{ raise_exception('tools, please') }}{% endif %}" + EACH
    remark = renderer(template).check()
    assert remark is not None
    assert "tools, please" in remark


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_template_file_is_typed(
    content: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(checkpoint("llava"), folder)
    (folder / "chat_template.json").write_text(content)
    with pytest.raises(UnsupportedModel, match=r"chat_template\.json .*copy them again"):
        PromptRenderer.from_checkpoint(folder)
