"""Loads a RedService from a file; what is wrong is told by file, line, column and field."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError

from redserve.errors import ConfigError, RedServeError
from redserve.spec.problems import Problem, did_you_mean, field_steps, problems_of
from redserve.spec.service import API_VERSION, KIND, RedService
from redserve.spec.yaml_source import Position, YamlError, YamlSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_BYTES: Final = 1024 * 1024
"""Largest manifest; etcd takes no more either."""
MAX_SHOWN: Final = 10
"""Problems that one error lists."""


class ManifestError(ConfigError):
    """A manifest cannot be used.

    Attributes:
        path: The file.
        problems: What is wrong, in the order of the file; at least one.
        field: Field of the first problem, or None.
    """

    def __init__(self, path: Path, problems: tuple[Problem, ...]) -> None:
        lines = [
            f"{path}:{problem.position.line}:{problem.position.column}: "
            + (f"{problem.field}: " if problem.field else "")
            + problem.message
            for problem in problems[:MAX_SHOWN]
        ]
        if len(problems) > MAX_SHOWN:
            lines.append(f"... and {len(problems) - MAX_SHOWN} more")
        super().__init__("\n".join(lines), field=problems[0].field or None)
        self.path = path
        self.problems = problems

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Manifest:
    """A RedService and the file that it was read from.

    Attributes:
        path: The file.
        source: Its text, parsed.
        service: What it says.
    """

    path: Path
    source: YamlSource
    service: RedService

    @contextmanager
    def pointing(self) -> Iterator[None]:
        """Errors about a field of the manifest that come up inside also tell file and line.

        A field that is not in the file has the place of its nearest parent that is.

        Raises:
            RedServeError: Of the same type; the message begins `FILE:LINE:COLUMN: field: `.
        """
        try:
            yield
        except RedServeError as error:
            if not (error.field or "").startswith(("spec.", "metadata.")):
                raise
            place = self.source.place_of(field_steps(error.field or ""))
            message = f"{self.path}:{place.line}:{place.column}: {error}"
            raise type(error)(message, retry_after_s=error.retry_after_s) from error


def load_manifest(path: Path) -> RedService:
    """Read a RedService.

    Raises:
        ConfigError: There is no such file, or it cannot be read.
        ManifestError: What is in it is no RedService; lists every problem with its place.
    """
    return open_manifest(path).service


def open_manifest(path: Path) -> Manifest:
    """As `load_manifest`, with a memory of where everything was written."""
    return _parse(_read(path), path)


def parse_manifest(text: str, path: Path) -> RedService:
    """`load_manifest` for a text; `path` is only named in errors.

    Raises:
        ManifestError: It is no RedService.
    """
    return _parse(text, path).service


def _parse(text: str, path: Path) -> Manifest:
    try:
        source = YamlSource.parse(text)
    except YamlError as error:
        problem = Problem(error.position, "", error.message)
        raise ManifestError(path, (problem,)) from error
    wrong = _check_kind(source)
    if wrong is not None:
        raise ManifestError(path, (wrong,))
    try:
        return Manifest(path, source, RedService.model_validate(source.value))
    except ValidationError as error:
        raise ManifestError(path, problems_of(error, RedService, source)) from None


def _check_kind(source: YamlSource) -> Problem | None:
    """Whether it is another kind of object: then all other problems would only confuse."""
    value = source.value
    if not isinstance(value, dict):
        return Problem(
            source.position_of(()), "", f"is no object: begin with 'apiVersion: {API_VERSION}'"
        )
    for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if field not in value:
            close = [key for key in value if isinstance(key, str) and key.lower() == field.lower()]
            place = source.key_position_of([close[0]]) if close else Position(1, 1)
            return Problem(place, field, f"is required: write '{field}: {wanted}'")
        got = value[field]
        if got != wanted:
            hint = did_you_mean(str(got), [wanted]) if isinstance(got, str) else ""
            mend = hint if hint.startswith("did") else f"write {wanted}"
            return Problem(source.position_of([field]), field, f"is {got!r}; {mend}")
    return None


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such file; name the manifest with -f, or start from "
            "examples/redservice.yaml"
        ) from error
    except IsADirectoryError as error:
        raise ConfigError(f"{path} is a folder; name the manifest in it") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_BYTES:
        raise ConfigError(f"{path} has more than {MAX_BYTES} bytes: it is no manifest")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text: see byte {error.start}") from error
