"""Building a checkpoint's transformers processor on a machine without torchvision.

transformers 5.23 constructs most processors only with torchvision: those with a video slot check
the type of a video processor that cannot exist, Pixtral's module imports torchvision, SmolVLM's
asks for num2words (for videos). Images need none of these. So the class of the checkpoint is
subclassed with a lenient check, and the two that cannot be had are written here.

Guard against upgrades: tests compare prompt ids and pixels with the real processors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import AutoImageProcessor, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin

from redserve.errors import ModelNotFound, UnsupportedModel
from redserve.modeling.tokenizer import processor_class_name

if TYPE_CHECKING:
    from pathlib import Path


class PixtralImages(ProcessorMixin):  # type: ignore[misc]  # Any to mypy
    """Placeholder expansion of the Pixtral vision tower: rows of patches with breaks between."""

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 16,
        spatial_merge_size: int = 1,
        chat_template: str | None = None,
        image_token: str = "[IMG]",
        image_break_token: str = "[IMG_BREAK]",
        image_end_token: str = "[IMG_END]",
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.cell = patch_size * spatial_merge_size
        self.image_token = image_token
        self.image_break_token = image_break_token
        self.image_end_token = image_end_token

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[Any, list[str]]:
        # One embedding row covers spatial_merge_size patches each way: sizes align to the cell.
        result: tuple[Any, list[str]] = super()._process_images(
            images, **(kwargs | {"patch_size": self.cell})
        )
        return result

    def replace_image_token(self, image_inputs: Any, image_idx: int, **_: Any) -> str:
        """One line of row tokens per row of cells, each ended by a break, the last by an end."""
        height, width = (int(edge) for edge in image_inputs["image_sizes"][image_idx])
        line = self.image_token * (width // self.cell)
        return self.image_break_token.join([line] * (height // self.cell)) + self.image_end_token


class SmolVLMImages(ProcessorMixin):  # type: ignore[misc]  # Any to mypy
    """Placeholder expansion of SmolVLM: a line of tiles per row, then the whole picture."""

    images_kwargs = {"return_row_col_info": True}  # noqa: RUF012  (ProcessorMixin's own form)

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        image_seq_len: int = 169,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.image_token = getattr(tokenizer, "image_token", "<image>")
        self.around_token = getattr(tokenizer, "fake_image_token", "<fake_token_around_image>")
        self.global_token = getattr(tokenizer, "global_image_token", "<global-img>")
        self.image_seq_len = image_seq_len

    def replace_image_token(self, image_inputs: Any, image_idx: int, **_: Any) -> str:
        """Tiles are marked by row and column; a picture that is not split has no tiles."""
        rows = [count for sample in image_inputs["rows"] for count in sample][image_idx]
        cols = [count for sample in image_inputs["cols"] for count in sample][image_idx]
        row_tokens = self.image_token * self.image_seq_len
        lines = "".join(
            "".join(
                f"{self.around_token}<row_{row + 1}_col_{col + 1}>{row_tokens}"
                for col in range(cols)
            )
            + "\n"
            for row in range(rows)
        )
        whole = f"{self.around_token}{self.global_token}{row_tokens}{self.around_token}"
        return f"{lines}\n{whole}" if lines else whole


_OWN: dict[str, type[ProcessorMixin]] = {
    "PixtralProcessor": PixtralImages,
    "SmolVLMProcessor": SmolVLMImages,
}


def load_processor(path: Path, tokenizer: PreTrainedTokenizerBase) -> ProcessorMixin:
    """The image and text processor of a checkpoint folder, without video; runs no code of it.

    Raises:
        ModelNotFound: The folder lacks the image processor's configuration.
        UnsupportedModel: The processor cannot be built from what the folder says.
    """
    try:
        image_processor = AutoImageProcessor.from_pretrained(
            path, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelNotFound(f"{path} has no usable image processor: {error}") from error
    settings, _ = ProcessorMixin.get_processor_dict(path, local_files_only=True)
    name = processor_class_name(path)
    cls = _without_video(_processor_class(name))
    slots = {"image_processor": image_processor, "tokenizer": tokenizer}
    try:
        return cls.from_args_and_dict([slots.get(slot) for slot in cls.get_attributes()], settings)
    except (TypeError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise UnsupportedModel(f"{path}: {name} cannot be built: {error}") from error


def _processor_class(name: str) -> type[ProcessorMixin]:
    if name in _OWN:
        return _OWN[name]
    import transformers

    cls = getattr(transformers, name, None)
    if isinstance(cls, type) and issubclass(cls, ProcessorMixin):
        return cls
    raise UnsupportedModel(f"the checkpoint names the unknown processor {name!r}")


def _without_video(cls: type[ProcessorMixin]) -> type[ProcessorMixin]:
    """A subclass that takes None in the video slot."""

    def check(self: Any, name: str, argument: Any) -> Any:
        if name == "video_processor" and argument is None:
            return None
        return cls.check_argument_for_proper_class(self, name, argument)

    namespace = {"check_argument_for_proper_class": check, "__module__": cls.__module__}
    return type(cls.__name__, (cls,), namespace)
