#!/usr/bin/env python3
"""Makes the Lambda zip: the package, ``handler.py`` and what they need at run time, nothing else.

    packaging/build.py                     build/async-relay.zip, for arm64 and x86_64
    packaging/build.py --arch arm64        build/async-relay-arm64.zip, for that alone
    packaging/build.py --arch native       build/async-relay-native.zip, for this machine and this interpreter
    packaging/build.py --module orders.py  with a module of your own beside handler.py

Rules
- The dependencies are those of ``requirements.lock``, as wheels for the target, whatever this machine is. A download
  with another hash than the lock's makes no zip. `make lock` writes it from ``pyproject.toml``.
- One zip serves both processors, so that no stack can get the other's: the names of shared objects
  carry the processor (``loop.cpython-313-aarch64-linux-gnu.so``) and Python loads its own alone.
  Those for any version of Python (``_rust.abi3.so``) carry none, and are given that name: Python takes
  it for the same module ("PEP 3149"). All other files are the same for both; where one is not, no zip is made.
- botocore's data is cut to the services the relay calls: it is two thirds of the weight.
- Bytecode goes along, since Lambda's file system is read-only: without it every cold start compiles.
  It is checked against nothing, because unpacking a zip changes the times. Only an interpreter
  of the target's minor version can make it.
- Shared objects lose what only debuggers and linkers read (symbols, section headers), which is
  over half of them. Done here and not by strip(1), which may not know the target's processor.
- The same downloads give the same bytes: names sorted, times and hash seed fixed.
- A zip is there complete or not at all. An error is one sentence.
- With ``--record FILE`` a zip is made only where that file does not say that it is there already, made of the same:
  it holds the hash of whatever goes in, and the zip's. Of several at once, one makes it and the others wait for it.

Needs Python 3.11 and pip, nothing else: `make build` and `sam build` run it with the machine's own Python, before
anything is installed. So its options are argparse's and not typer's, unlike those of all other commands.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where builds at once each make the zip
    fcntl = None  # type: ignore[assignment]

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "packaging" / "requirements.lock"
ARCHITECTURES = {"arm64": "aarch64", "x86_64": "x86_64"}
RUNTIME = "3.13"
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"

#: The services the relay calls, and sts, which web identity credentials come from.
SERVICES = frozenset({"apigatewaymanagementapi", "dynamodb", "sqs", "sts"})
#: What only makes bindings, which were made when the wheels were: cryptography needs cffi's shared object alone.
MAKES_BINDINGS = frozenset({"cffi", "pycparser"})
#: Parts of the package that no function imports.
NOT_AT_RUN_TIME = frozenset({"checks", "cli", "client", "planning", "testing"})
_ONE_EACH = "So one zip cannot hold both: name one with --arch, and deploy it to that Architecture alone."
_LEGAL = ("LICEN", "COPYING", "NOTICE", "AUTHORS")
_SOURCES = frozenset({".c", ".cpp", ".h", ".hash", ".pxd", ".pxi", ".pyi", ".pyx"})
_STABLE = ".abi3.so"
_TESTS = frozenset({"test", "tests"})
# Lambda's Python 3.12 and later run on Amazon Linux 2023, whose glibc is 2.34.
_GLIBC = range(34, 4, -1)


class BuildError(Exception):
    """The reason why the zip could not be made, in one sentence."""


@dataclass(frozen=True, slots=True)
class Target:
    """The target of a zip; ``interpreter``: one here of that minor version, if there is any."""

    architectures: tuple[str, ...]
    python_version: str
    interpreter: str | None

    def pip_options(self, architecture: str) -> list[str]:
        """Options that make pip choose wheels for the target; none where that is this machine."""
        if architecture == "native":
            return []
        machine = ARCHITECTURES[architecture]
        tags = [f"manylinux_2_{minor}_{machine}" for minor in _GLIBC] + [f"manylinux2014_{machine}"]
        return ["--implementation", "cp", "--python-version", self.python_version] + [
            word for tag in tags for word in ("--platform", tag)
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Build what the command line asks for; the exit status."""
    options = _options(arguments)
    try:
        check_modules(options.module)
        if options.record:
            with alone(options.record):
                build_once(options)
        else:
            build_and_say(options)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build_and_say(options: argparse.Namespace) -> None:
    """Make the zip, and print what it weighs."""
    target = _target(tuple(options.arch), options.python_version)
    unpacked = build(target, options.output, options.module)
    size, bytecode = options.output.stat().st_size, "" if target.interpreter else ", without bytecode"
    print(f"{options.output.name}: {size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB{bytecode}")


def build_once(options: argparse.Namespace) -> None:
    """Make the zip unless the record says that this very file was made of the same."""
    wanted = "".join(f"{line}\n" for line in contents(options))
    if options.output.is_file() and _read(options.record) == wanted + _made(options.output):
        return
    build_and_say(options)
    unfinished = options.record.with_name(f".{options.record.name}.{os.getpid()}")
    unfinished.write_text(wanted + _made(options.output))
    unfinished.replace(options.record)


@contextmanager
def alone(record: Path) -> Iterator[None]:
    """Wait until no other build keeps this record."""
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        lock = record.with_name(f"{record.name}.lock").open("w")
    except OSError as error:
        raise BuildError(f"{record} could not be written: {error.strerror}.") from error
    with lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def contents(options: argparse.Namespace) -> Iterator[str]:
    """Everything a zip depends on but the downloads, line by line; a file by its hash, whatever its times are."""
    version = options.python_version or (RUNNING if options.arch == ["native"] else RUNTIME)
    compiled = "bytecode" if find_interpreter(version) else "no bytecode"
    yield f"{', '.join(options.arch)}, Python {version}, {compiled}"
    for source in (LOCK, Path(__file__).resolve(), ROOT / "handler.py", *shipped()):
        yield f"{_hash(source)} {source.relative_to(ROOT).as_posix()}"
    for module in options.module:
        try:
            for source in sorted(_files(module)):
                yield f"{_hash(source)} {source.relative_to(module.parent).as_posix()}"
        except OSError as error:
            raise BuildError(f"The module {module} cannot be read: {error.strerror}.") from error


def _files(module: Path) -> Iterator[Path]:
    """What ``add_modules`` puts in of it."""
    if module.is_dir():
        for directory, inner, names in os.walk(module, followlinks=True):
            inner[:] = [name for name in inner if name != "__pycache__"]
            yield from (Path(directory) / name for name in names)
    else:
        yield module


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _made(output: Path) -> str:
    return f"{_hash(output)} {output.name}, made of these\n"


def _read(record: Path) -> str:
    try:
        return record.read_text()
    except (OSError, ValueError):
        return ""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Makes the Lambda zip.")
    parser.add_argument(
        "--arch", action="append", choices=[*ARCHITECTURES, "native"], help="may be repeated; default: arm64 and x86_64"
    )
    parser.add_argument("--python-version", metavar="3.N", help=f"default: {RUNTIME}; native: this interpreter's")
    parser.add_argument(
        "--module", action="append", type=Path, default=[], metavar="PY", help="a module of your own; may be repeated"
    )
    parser.add_argument("--output", type=Path, metavar="ZIP", help="default: build/async-relay.zip")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="make it only if it is not what FILE says, and say there what it is"
    )
    options = parser.parse_args(arguments)
    options.arch = list(dict.fromkeys(options.arch or ARCHITECTURES))
    if "native" in options.arch and len(options.arch) > 1:
        parser.error("--arch native goes with no other")
    name = "async-relay" if len(options.arch) > 1 else f"async-relay-{options.arch[0]}"
    options.output = options.output or ROOT / "build" / f"{name}.zip"
    return options


def _target(architectures: tuple[str, ...], python_version: str | None) -> Target:
    native = architectures == ("native",)
    python_version = python_version or (RUNNING if native else RUNTIME)
    interpreter = find_interpreter(python_version)
    if native and interpreter is None:
        raise BuildError(f"There is no Python {python_version} here to build for this machine with.")
    if interpreter is None:
        problem = f"There is no python{python_version} here to compile with"
        print(f"{problem}: the zip has no bytecode, and cold starts are slower.", file=sys.stderr)
    return Target(architectures, python_version, interpreter)


def find_interpreter(python_version: str) -> str | None:
    """An interpreter of this minor version: the running one, or one on PATH that really is one."""
    if python_version == RUNNING:
        return sys.executable
    found = shutil.which(f"python{python_version}")
    # A version manager's stand-in may be there without the version.
    if found and _run(found, "-c", "import sys; print(*sys.version_info[:2], sep='.')") == (0, python_version):
        return found
    return None


def build(target: Target, output: Path, modules: Sequence[Path] = ()) -> int:
    """Make the zip; how many bytes it unpacks to."""
    with tempfile.TemporaryDirectory(prefix="async-relay-build-") as scratch:
        tree, *others = (Path(scratch) / architecture for architecture in target.architectures)
        for each, architecture in zip((tree, *others), target.architectures, strict=True):
            download(each, target, architecture)
            clean(each)
            if others:
                name_processor(each, architecture, target.python_version)
                check_names(each)
        for other in others:
            merge(other, tree)
        add_package(tree)
        add_modules(tree, modules)
        if others:
            check_names_of_all(tree, target.architectures)
        if target.interpreter:
            add_bytecode(tree, target.interpreter)
        write_zip(tree, output)
        return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


def download(tree: Path, target: Target, architecture: str) -> None:
    """Unpack the wheels of the dependencies into ``tree``."""
    pip = [target.interpreter or sys.executable, "-m", "pip"]
    if _run(*pip, "--version")[0]:
        pip[0] = sys.executable
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input", "--no-compile", "--only-binary=:all:")
    locked = ("--require-hashes", "--requirement", str(LOCK))
    status, output = _run(*pip, "install", *quiet, *target.pip_options(architecture), "--target", str(tree), *locked)
    if status:
        raise BuildError(
            f"The dependencies for {architecture} and Python {target.python_version} could not be downloaded: "
            f"{_last_error(output)}."
        )


def clean(tree: Path) -> None:
    """Remove what no Lambda needs, and of shared objects what only debuggers and linkers read."""
    for path in list(superfluous(tree)):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for library in tree.rglob("*.so"):
        library.write_bytes(stripped(library.read_bytes()))


def name_processor(tree: Path, architecture: str, python_version: str) -> None:
    """Give shared objects of the stable ABI the name that Python looks for on this processor alone."""
    tag = f".cpython-{python_version.replace('.', '')}-{ARCHITECTURES[architecture]}-linux-gnu.so"
    for path in sorted(tree.rglob(f"*{_STABLE}")):
        named = path.with_name(path.name.removesuffix(_STABLE) + tag)
        if named.exists():
            raise BuildError(f"{path.relative_to(tree)} is there twice, as {named.name} too. {_ONE_EACH}")
        path.rename(named)


def check_names(tree: Path) -> None:
    """``BuildError`` for a shared object that Python on another processor would take for its own."""
    check_names_of_all(tree, (tree.name,))


def check_names_of_all(tree: Path, architectures: Sequence[str]) -> None:
    """The same for a tree that holds those of several processors, and the owner's modules."""
    for path in sorted(path for path in tree.rglob("*") if path.is_file()):
        if _is_shared_object(path) and not _names_one_of(path, architectures):
            raise BuildError(f"{path.relative_to(tree)} does not name its processor. {_ONE_EACH}")


def _is_shared_object(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _names_one_of(path: Path, architectures: Sequence[str]) -> bool:
    return any(f"-{ARCHITECTURES[architecture]}-" in path.name for architecture in architectures)


def merge(other: Path, tree: Path) -> None:
    """Put into ``tree`` what it lacks of ``other``, the same dependencies for another processor."""
    ours, theirs = ({path.relative_to(each) for path in each.rglob("*") if path.is_file()} for each in (tree, other))
    for relative in sorted(ours | theirs):
        has, lacks = (tree, other) if relative in ours else (other, tree)
        if relative in ours & theirs:
            if (tree / relative).read_bytes() != (other / relative).read_bytes():
                raise BuildError(f"{relative} is not the same for {tree.name} and {other.name}. {_ONE_EACH}")
        elif not (_is_shared_object(has / relative) and _names_one_of(relative, (has.name,))):
            raise BuildError(f"{relative} is there for {has.name} and not for {lacks.name}. {_ONE_EACH}")
        elif has is other:
            (tree / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(other / relative, tree / relative)


def superfluous(tree: Path) -> Iterator[Path]:
    """Paths of the dependencies that no Lambda needs, each before those in it."""
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree).parts
        if path.is_dir():
            if path.name in _TESTS | {"__pycache__", ".hash"} or relative == ("bin",) or _unused_data(relative):
                yield path
        elif path.suffix in _SOURCES or _unused_metadata(relative) or path.name.startswith("examples-1.json"):
            yield path


def _unused_data(relative: tuple[str, ...]) -> bool:
    match relative:
        case (package,):
            return package in MAKES_BINDINGS
        case ("botocore", "data", service):
            return service not in SERVICES
        case ("boto3", "data" | "examples", _):
            return True  # resources and documentation; the relay uses clients
    return False


def _unused_metadata(relative: tuple[str, ...]) -> bool:
    """The versions and the licences stay."""
    in_metadata = relative[0].endswith(".dist-info")
    return in_metadata and relative[-1] != "METADATA" and not relative[-1].upper().startswith(_LEGAL)


def stripped(library: bytes) -> bytes:
    """A 64-bit little-endian ELF file up to the end of its last segment; anything else as it is.

    A loader reads segments; the section headers, which come after them, are for linkers (System V ABI, chapter 5).
    """
    if library[:6] != b"\x7fELF\x02\x01":
        return library
    header_offset, size, count = struct.unpack_from("<Q14xHH", library, 32)
    end = 0
    for at in range(header_offset, header_offset + size * count, size):
        offset, file_size = struct.unpack_from("<8xQ16xQ", library, at)
        end = max(end, offset + file_size)
    kept = bytearray(library[:end])
    struct.pack_into("<Q", kept, 40, 0)  # where the section headers are: nowhere,
    struct.pack_into("<HH", kept, 60, 0, 0)  # none, and no table of their names
    return bytes(kept)


def add_package(tree: Path) -> None:
    """Put the package and ``handler.py`` into ``tree``."""
    shutil.copy(ROOT / "handler.py", tree)
    for source in shipped():
        target = tree / source.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)


def shipped() -> list[Path]:
    """The files of the package that functions need."""
    package = ROOT / "async_relay"
    files = [*package.rglob("*.py"), *package.rglob("*.pem")]
    return sorted(
        path for path in files if path.relative_to(package).parts[0].removesuffix(".py") not in NOT_AT_RUN_TIME
    )


def check_modules(modules: Sequence[Path]) -> None:
    """``BuildError`` for a module that is not there, before anything is downloaded."""
    for module in modules:
        if not module.exists():
            raise BuildError(f"The module {module} does not exist.")


def add_modules(tree: Path, modules: Sequence[Path]) -> None:
    """Put the owner's modules, files or packages, beside ``handler.py``; none may hide what is there."""
    for module in modules:
        if (tree / module.name).exists():
            raise BuildError(f"{module} has the name of something the zip holds already; choose another.")
        try:
            if module.is_dir():
                shutil.copytree(module, tree / module.name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(module, tree)
        except OSError as error:
            raise BuildError(f"The module {module} cannot be read: {error.strerror}.") from error


def add_bytecode(tree: Path, interpreter: str) -> None:
    """Compile everything in ``tree``, as if it lay where Lambda unpacks it."""
    compile_all = ("-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash")
    status, output = _run(interpreter, *compile_all, "-s", str(tree), "-p", "/var/task", str(tree))
    if status:
        raise BuildError(f"The sources could not be compiled: {_last_error(output)}.")


def write_zip(tree: Path, output: Path) -> None:
    """Pack ``tree``, the same bytes for the same files."""
    output.parent.mkdir(parents=True, exist_ok=True)
    unfinished = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for path in sorted(path for path in tree.rglob("*") if path.is_file()):
                entry = zipfile.ZipInfo(path.relative_to(tree).as_posix())  # of 1980, when zips begin
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.create_system = 3
                entry.external_attr = (0o100755 if path.suffix == ".so" else 0o100644) << 16
                archive.writestr(entry, path.read_bytes())
        unfinished.replace(output)
    except OSError as error:
        raise BuildError(f"{output} could not be written: {error.strerror}.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _run(*command: str) -> tuple[int, str]:
    """The exit status, and all it said."""
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603 our own words, no shell
    except OSError as error:
        return 1, str(error)
    return done.returncode, (done.stdout + done.stderr).strip()


def _last_error(output: str) -> str:
    """The line of pip's or Python's that says what was wrong."""
    lines = output.splitlines() or ["it said nothing"]
    errors = [line for line in lines if line.startswith("ERROR")] or lines
    return errors[-1].removeprefix("ERROR: ").rstrip(".")


if __name__ == "__main__":
    sys.exit(main())
