"""YAML text with a memory: values for the models, and the line of every one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import yaml

from redserve.spec.yaml_scalars import KubernetesLoader

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH: Final = 64
"""Deepest nesting; a manifest needs ten."""
MAX_NODES: Final = 100_000
"""Most values, counted once per alias: a few lines of aliases could stand for billions."""


@dataclass(frozen=True, slots=True)
class Position:
    """A place in a text, counted from 1."""

    line: int
    column: int


class YamlError(Exception):
    """The text is no YAML, or YAML that no manifest can be."""

    def __init__(self, message: str, position: Position) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


@dataclass(frozen=True, slots=True)
class YamlSource:
    """One parsed document.

    Attributes:
        root: The document's node.
        value: The same as plain dicts, lists and scalars.
    """

    root: yaml.Node
    value: Any

    @classmethod
    def parse(cls, text: str) -> YamlSource:
        """Parse a text that holds exactly one document.

        Raises:
            YamlError: Bad YAML, no document, several documents, a key twice, a reference to itself.
        """
        try:
            return cls._parse(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            problem = error.problem or error.context or "cannot be read"
            raise YamlError(f"bad YAML: {problem}", _position(mark)) from error
        except yaml.reader.ReaderError as error:
            raise YamlError(
                f"bad YAML: character U+{ord(text[error.position]):04X} is not allowed",
                _offset_position(text, error.position),
            ) from error

    @classmethod
    def _parse(cls, text: str) -> YamlSource:
        loader = KubernetesLoader(text)
        try:
            documents = []
            while loader.check_node():
                root = loader.get_node()
                if root is not None and not _is_empty(root):
                    documents.append(root)
            if not documents:
                raise YamlError("there is no document in it", Position(1, 1))
            if len(documents) > 1:
                raise YamlError(
                    f"there are {len(documents)} documents in it: keep each service in a file "
                    "of its own",
                    _position(documents[1].start_mark),
                )
            _Checker().check(documents[0], ())
            return cls(documents[0], loader.construct_document(documents[0]))
        finally:
            loader.dispose()

    def position_of(self, path: Sequence[str | int]) -> Position:
        """Where the value at `path` starts; of the nearest parent that exists if it does not."""
        node, _ = self._walk(path)
        return _position(node.start_mark)

    def key_position_of(self, path: Sequence[str | int]) -> Position:
        """Where the key of `path` starts; for elements of lists and the root, the value."""
        node, key = self._walk(path)
        return _position((key or node).start_mark)

    def place_of(self, path: Sequence[str | int]) -> Position:
        """The line to mend: a value that is there, else the key of the nearest parent."""
        node, key, num_left = self._descend(path)
        named = num_left or not isinstance(node, yaml.ScalarNode)
        return _position(((named and key) or node).start_mark)

    def _walk(self, path: Sequence[str | int]) -> tuple[yaml.Node, yaml.Node | None]:
        return self._descend(path)[:2]

    def _descend(self, path: Sequence[str | int]) -> tuple[yaml.Node, yaml.Node | None, int]:
        """The node at `path` or its nearest parent, its key, and the steps that were not found."""
        node, key = self.root, None
        num_left = len(path)
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = next(((k, v) for k, v in node.value if k.value == str(step)), None)
                if found is None:
                    break
                key, node = found
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int):
                if step >= len(node.value):
                    break
                key, node = None, node.value[step]
            else:
                break
            num_left -= 1
        return node, key, num_left


class _Checker:
    """Refuses what plain YAML allows and no manifest may contain."""

    def __init__(self) -> None:
        self._num_nodes = 0

    def check(self, node: yaml.Node, parents: tuple[int, ...]) -> None:
        self._num_nodes += 1
        if self._num_nodes > MAX_NODES:
            raise YamlError("there are too many values in it", _position(node.start_mark))
        if id(node) in parents or len(parents) > MAX_DEPTH:
            raise YamlError(
                "an alias points to its own parent, or nesting is too deep",
                _position(node.start_mark),
            )
        if isinstance(node, yaml.SequenceNode):
            for child in node.value:
                self.check(child, (*parents, id(node)))
        elif isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            for _, child in node.value:
                self.check(child, (*parents, id(node)))

    def _check_keys(self, node: yaml.MappingNode) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            where = _position(key.start_mark)
            if not isinstance(key, yaml.ScalarNode) or _is_empty(key):
                raise YamlError("a key must be a word", where)
            if key.value in seen:
                raise YamlError(f"{key.value!r} is there twice: remove one of them", where)
            seen.add(key.value)


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null")


def _position(mark: yaml.Mark | None) -> Position:
    return Position(1, 1) if mark is None else Position(mark.line + 1, mark.column + 1)


def _offset_position(text: str, offset: int) -> Position:
    before = text[:offset]
    return Position(before.count("\n") + 1, offset - (before.rfind("\n") + 1) + 1)
