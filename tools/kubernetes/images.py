"""`python -m tools.kubernetes.images`: builds every image by docker, podman or buildah.

`make images REGISTRY=registry.example.com/team TAG=1.2.3` calls it. Nothing is pushed.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import redserve
from redserve.errors import ConfigError, RedServeError

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parents[2]
BUILDERS: Final = ("docker", "podman", "buildah")
"""In the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Image:
    """One deployable.

    Attributes:
        name: operator, router, encoder or llm.
        folder: Where its Dockerfile is, from the root of the repository.
    """

    name: str
    folder: str

    @property
    def dockerfile(self) -> str:
        """Path from the root of the repository."""
        return f"{self.folder}/Dockerfile"

    def reference(self, registry: str, tag: str) -> str:
        """What a cluster calls it, as the Helm chart does."""
        name = f"redserve-{self.name}:{tag}"
        return f"{registry.rstrip('/')}/{name}" if registry else name


IMAGES: Final = (
    Image("operator", "operator"),
    Image("router", "services/router"),
    Image("encoder", "services/encoder"),
    Image("llm", "services/llm"),
)


def find_builder() -> str:
    """The first of `BUILDERS` that is there.

    Raises:
        ConfigError: None is.
    """
    for name in BUILDERS:
        if shutil.which(name):
            return name
    raise ConfigError(f"images need one of {', '.join(BUILDERS)}, and none is on PATH")


def build_command(
    builder: str, image: Image, reference: str, revision: str, arguments: Sequence[str] = ()
) -> list[str]:
    """The command that builds one image from the root of the repository."""
    # buildah keeps no intermediate layers unless told to; encoder and engine share theirs.
    verb = ["buildah", "build", "--layers"] if builder == "buildah" else [builder, "build"]
    return [
        *verb,
        f"--file={image.dockerfile}",
        f"--tag={reference}",
        f"--build-arg=VERSION={redserve.__version__}",
        f"--build-arg=REVISION={revision}",
        *arguments,
        ".",
    ]


def commit() -> str:
    """The commit that images are made from; empty outside of a repository."""
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Build; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.kubernetes.images", description=__doc__)
    parser.add_argument("--registry", default="redserve", help="registry and path (redserve)")
    parser.add_argument("--tag", default=redserve.__version__, help="(%(default)s)")
    parser.add_argument("--builder", choices=BUILDERS, help="(the first one that is there)")
    parser.add_argument("--only", choices=[image.name for image in IMAGES], help="one image")
    parser.add_argument("--print", action="store_true", help="print the commands, run none")
    parser.add_argument("--arguments", default="", help="more arguments for the builder")
    given = parser.parse_args(arguments)
    try:
        builder = given.builder or find_builder()
    except RedServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for image in IMAGES:
        if given.only not in (None, image.name):
            continue
        reference = image.reference(given.registry, given.tag)
        command = build_command(builder, image, reference, commit(), shlex.split(given.arguments))
        print(shlex.join(command), flush=True)
        if not given.print and (code := subprocess.run(command, cwd=ROOT, check=False).returncode):
            print(f"error: {reference} was not built; {builder} says why above", file=sys.stderr)
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
