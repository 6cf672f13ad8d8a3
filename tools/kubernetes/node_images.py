"""`python -m tools.kubernetes.node_images`: the images for the node, built from the Dockerfiles.

No registry of images is needed. The base is Debian's own Python on a root file system that
debootstrap makes; buildah runs the repository's Dockerfiles on it, and pip in them uses the package
index of this machine. Encoder and engine would bring gigabytes of PyTorch with each build. Their
base has the packages of this environment, as far as pip can see: their names and versions, so that
it finds nothing to do. A node links the files themselves into its unpacked copy of that layer
(`link_packages`). Needs root, debootstrap and buildah.
"""

from __future__ import annotations

import ast
import errno
import fcntl
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import redserve
from redserve.errors import ConfigError, RedServeError, Unavailable
from tools.kubernetes.images import IMAGES, ROOT, Image, build_command, commit
from tools.kubernetes.node_packages import closure, files, metadata_files
from tools.kubernetes.node_space import leave_mounts
from tools.kubernetes.programs import cache_folder
from tools.requirements import requirements

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.metadata import Distribution

PROGRAMS: Final = ("buildah", "debootstrap")
SUITE: Final = "bookworm"
PYTHON: Final = (3, 11)
"""Of the suite."""
REGISTRY: Final = "docker.io/redserve"
"""What `redserve/…` means to a containerd; nothing is fetched from there."""
SANDBOX: Final = "localhost/redserve-sandbox:1"
"""Image of the container that holds a pod's network."""
_BASE: Final = "localhost/python:base"
_WITH_PACKAGES: Final = "localhost/python:packages"
_PACKAGES: Final = "/opt/packages"
_HEAVY: Final = ("encoder", "llm")
_DEBIAN: Final = "python3,python3-venv,python3-pip,ca-certificates"
_AUTHORITIES: Final = (Path("/etc/ssl/certs"),)


def folder() -> Path:
    """Where the built images are: an OCI layout, beside what makes the next build short."""
    return cache_folder() / "node-images/layout"


def build() -> Path:
    """Build all images; returns the layout.

    Raises:
        ConfigError: Something is missing, or a build failed.
    """
    if sys.version_info[:2] != PYTHON:
        have = ".".join(str(part) for part in sys.version_info[:2])
        raise ConfigError(
            f"the node's images share packages with this environment, so it must be Python "
            f"{'.'.join(str(part) for part in PYTHON)}, as Debian {SUITE} has, and it is {have}"
        )
    with _one_at_a_time() as place:
        # What buildah mounts goes away with this process.
        leave_mounts()
        builder = _Builder(place)
        builder.make_bases()
        shutil.rmtree(folder(), ignore_errors=True)
        for image in IMAGES:
            builder.build(image)
            builder.push(_local(image), image.reference(REGISTRY, redserve.__version__))
        builder.push(SANDBOX, SANDBOX)
    return folder()


class _Builder:
    """buildah with storage of its own."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._options = [
            f"--root={place / 'storage'}",
            f"--runroot={place / 'run'}",
            "--storage-driver=overlay",
        ]

    def make_bases(self) -> None:
        """The image that stands for python:…-slim, the same with packages, and the sandbox."""
        root = self._place / f"root-{SUITE}"
        if not root.is_dir():
            _make_root(root)
        (self._place / "base.Dockerfile").write_text(
            "FROM scratch\nCOPY . /\n"
            "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin\n"
        )
        self._from_folder("base.Dockerfile", _BASE, root)

        metadata = self._place / "metadata"
        shutil.rmtree(metadata, ignore_errors=True)
        for path, file in metadata_files(_packages()):
            if file.is_file():
                (metadata / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, metadata / path)
        (self._place / "packages.Dockerfile").write_text(
            f"FROM {_BASE}\nCOPY . {_PACKAGES}\nENV PYTHONPATH={_PACKAGES}\n"
        )
        self._from_folder("packages.Dockerfile", _WITH_PACKAGES, metadata)

        (self._place / "sandbox.Dockerfile").write_text(
            f'FROM {_BASE}\nENTRYPOINT ["sleep", "infinity"]\n'
        )
        self._from_folder("sandbox.Dockerfile", SANDBOX, metadata)

    def build(self, image: Image) -> None:
        """Build an image from the repository's Dockerfile."""
        base = _WITH_PACKAGES if image.name in _HEAVY else _BASE
        command = build_command(
            "buildah",
            image,
            _local(image),
            commit(),
            (
                f"--build-arg=PYTHON={base}",
                "--pull=never",
                "--isolation=chroot",
                *_pip_volumes(self._place),
            ),
        )
        self._run(command[1], *command[2:], cwd=ROOT)

    def push(self, reference: str, name: str) -> None:
        """Write an image into the layout, under the name that pods call it by."""
        folder().mkdir(parents=True, exist_ok=True)
        self._run("push", "--disable-compression", reference, f"oci:{folder()}:{name}")

    def _from_folder(self, dockerfile: str, reference: str, context: Path) -> None:
        self._run(
            *("build", "--layers", "--pull=never", "--isolation=chroot"),
            *(f"--file={self._place / dockerfile}", f"--tag={reference}", str(context)),
        )

    def _run(self, verb: str, *arguments: str, cwd: Path | None = None) -> None:
        command = ["buildah", *self._options, verb, *arguments]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ConfigError(f"buildah {verb}: {(done.stdout + done.stderr)[-3000:]}")
        _say(f"{verb} {arguments[-1] if verb == 'push' else ' '.join(arguments[:2])}")


def link_packages(layers: Path) -> None:
    """Complete the layer that names the packages, below a folder with one folder per layer.

    Files are hard links to this environment's, or copies where it lies on another disk. What runs
    in containers cannot write to them: layers are below an overlay.

    Raises:
        Unavailable: No layer names the packages.
    """
    distributions = _packages()
    names = metadata_files(distributions)
    wanted = f"{_PACKAGES[1:]}/{names[-1][0]}"
    for layer in layers.iterdir():
        if (layer / "fs" / wanted).exists():
            _link(files(distributions), layer / "fs" / _PACKAGES[1:])
            return
    raise Unavailable(f"no layer below {layers} has {wanted}")


def _link(members: list[tuple[str, Path]], target: Path) -> None:
    for path, file in members:
        to = target / path
        if file.is_dir():
            to.mkdir(exist_ok=True)
        elif not to.exists():
            try:
                to.hardlink_to(file)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                shutil.copy2(file, to)


def _packages() -> list[Distribution]:
    return closure(requirements((ROOT / "pyproject.toml").read_text(), _HEAVY))


def _local(image: Image) -> str:
    return image.reference("localhost/redserve", "node")


def _make_root(root: Path) -> None:
    """A Debian with Python, where only the suite's packages are."""
    making = root.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    command = ["debootstrap", "--variant=minbase", f"--include={_DEBIAN}", SUITE, str(making)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ConfigError(f"debootstrap: {(done.stdout + done.stderr)[-2000:]}")
    for part in ("var/lib/apt/lists", "var/cache/apt"):
        shutil.rmtree(making / part, ignore_errors=True)
    (making / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    making.rename(root)
    _say(f"root file system of Debian {SUITE}")


def _pip_volumes(place: Path) -> list[str]:
    """So that pip in a build finds packages as pip here does."""
    settings = place / "pip.conf"
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    ).stdout
    settings.write_text(pip_settings(said))
    certificates = [f"--volume={path}:{path}:ro" for path in _AUTHORITIES if path.is_dir()]
    return [f"--volume={settings}:/etc/pip.conf:ro", *certificates]


def pip_settings(said: str) -> str:
    """A configuration file with everything that `pip config list` said; the last word counts."""
    given: dict[str, str] = {}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        words = str(ast.literal_eval(value)).split("\n")
        # Further values of one option are lines of their own, indented.
        given[name.rpartition(".")[2]] = "\n    ".join(word for word in words if word)
    lines = ["[global]", *(f"{option} = {value}" for option, value in given.items() if value)]
    return "\n".join([*lines, ""])


@contextmanager
def _one_at_a_time() -> Iterator[Path]:
    place = folder().parent
    place.mkdir(parents=True, exist_ok=True)
    with (place / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Build; returns the exit status."""
    try:
        print(build())
    except RedServeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
