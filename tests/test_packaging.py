"""The Lambda zip: what is in it, that it works with nothing else, and what the script says when it cannot."""

from __future__ import annotations

import concurrent.futures
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest
from artefacts import run_build, script

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "packaging" / "build.py"
SERVICES = {"apigatewaymanagementapi", "dynamodb", "sqs", "sts"}
#: The ELF header's number of a processor, by its name in a shared object's.
PROCESSORS = {"aarch64": 183, "x86_64": 62}

# What runs from the zip. A server of its own answers as AWS would.
INSIDE = """
import asyncio, json, os, sys, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

tree = sys.argv[1]
sys.path.insert(0, tree)

class Aws(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target", "")
        status, error = {
            "DynamoDB_20120810.PutItem": (200, None),
            "DynamoDB_20120810.Scan": (400, "ResourceNotFoundException"),
            "AmazonSQS.SendMessage": (400, "com.amazonaws.sqs#QueueDoesNotExist"),
        }.get(target, (410, "GoneException"))
        body = json.dumps({"__type": error} if error else {}).encode()
        self.send_response(status)
        if error:
            self.send_header("x-amzn-ErrorType", error)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

server = ThreadingHTTPServer(("127.0.0.1", 0), Aws)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
os.environ.update(
    AWS_ENDPOINT_URL=endpoint, AWS_REGION="eu-west-1", AWS_DEFAULT_REGION="eu-west-1",
    AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", WS_ENDPOINT=endpoint + "/prod", CONNECTIONS_TABLE="Connections",
)

import handler
answer = handler.connect_handler({"requestContext": {"connectionId": "abc="}})
assert answer == {"statusCode": 200}, answer
import async_relay.http.direct, async_relay.delivery.relay

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
for algorithm, key in (
    ("RS256", rsa.generate_private_key(65537, 2048)), ("ES256", ec.generate_private_key(ec.SECP256R1())),
    ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
):
    name = jwt.get_algorithm_by_name(algorithm)
    public = name.from_jwk(name.to_jwk(key.public_key()))
    assert jwt.decode(jwt.encode({"a": 1}, key, algorithm), public, algorithms=[algorithm]) == {"a": 1}

import aioboto3
async def refused(call, error):
    try:
        await call
    except error:
        return
    raise AssertionError(f"not {error}")

async def use():
    session = aioboto3.Session()
    async with session.client("dynamodb") as dynamodb, session.client("sqs") as sqs, session.client("sts") as sts, \\
            session.client("apigatewaymanagementapi", endpoint_url=endpoint) as gateway:
        await refused(dynamodb.scan(TableName="Connections"), dynamodb.exceptions.ResourceNotFoundException)
        await refused(sqs.send_message(QueueUrl=endpoint + "/1/q", MessageBody="x"), sqs.exceptions.QueueDoesNotExist)
        await refused(gateway.post_to_connection(ConnectionId="a=", Data=b"x"), gateway.exceptions.GoneException)
        assert sts.meta.service_model.operation_model("AssumeRoleWithWebIdentity")
        assert dynamodb.get_paginator("scan") and dynamodb.get_paginator("query")
        assert dynamodb.get_waiter("table_exists")
        assert sqs.get_paginator("list_queues")
asyncio.run(use())

files = {name: getattr(module, "__file__", None) for name, module in sys.modules.items()}
print(json.dumps({name: file for name, file in files.items() if file}))
"""


build = script("build")


@pytest.fixture(scope="module")
def tree(native: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip unpacked."""
    directory = tmp_path_factory.mktemp("tree")
    with zipfile.ZipFile(native) as archive:
        archive.extractall(directory)
    return directory


def test_the_zip_works_with_nothing_else(tree: Path) -> None:
    """From it alone the handler connects a client, tokens are checked, and AWS's clients call, raise, page and wait."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHON"))}
    done = subprocess.run(  # noqa: S603 our own words, no shell
        [sys.executable, "-I", "-S", "-c", INSIDE, tree],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    loaded: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    library = Path(os.__file__).parent
    strangers = {
        name
        for name, file in loaded.items()
        if not (Path(file).is_relative_to(tree) or (Path(file).is_relative_to(library) and "-packages" not in file))
    }
    assert not strangers
    assert {"handler", "async_relay.http.direct", "aioboto3", "uvloop", "httptools"} <= loaded.keys()


def test_the_zip_holds_no_ballast(native: Path) -> None:
    """Of botocore's data only the four services are there; no tests, stubs, C, tools or parts for operators."""
    names = zipfile.ZipFile(native).namelist()
    data = [name.split("/") for name in names if name.startswith("botocore/data/")]
    assert {parts[2] for parts in data if len(parts) > 3} == SERVICES
    files = {parts[2] for parts in data if len(parts) == 3}
    assert files >= {"endpoints.json", "partitions.json", "sdk-default-configuration.json", "_retry.json"}
    assert not [name for name in names if name.endswith((".pyi", ".pyx", ".pxd", ".c", ".h"))]
    assert not [name for name in names if "/tests/" in name or name.startswith(("bin/", "boto3/data/", "pip/"))]
    assert not [name for name in names if name.startswith(("async_relay/testing/", "async_relay/cli/"))]
    assert not [name for name in names if name.startswith(("cffi/", "pycparser/"))]
    assert not [name for name in names if name.startswith(("demo", "tests", "benchmarks", "moto", "pytest"))]
    assert {"handler.py", "async_relay/__init__.py", "async_relay/http/amazon_roots.pem"} <= set(names)


def test_licences_and_versions_go_along(native: Path) -> None:
    """Every dependency keeps its METADATA, and the licences stay in."""
    names = zipfile.ZipFile(native).namelist()
    distributions = {name.split("/")[0] for name in names if ".dist-info/" in name}
    assert {name.split("-")[0] for name in distributions} >= {
        "aioboto3",
        "botocore",
        "httptools",
        "uvloop",
        "cryptography",
    }
    assert {f"{name}/METADATA" for name in distributions} <= set(names)
    assert [name for name in names if name.startswith("botocore-") and "LICENSE" in name]


def test_the_zip_stays_small(native: Path) -> None:
    """It is under 15 MB, and under 40 MB unpacked, a third of it cryptography; Lambda's limits are 50 and 250."""
    assert native.stat().st_size < 15_000_000
    assert sum(entry.file_size for entry in zipfile.ZipFile(native).infolist()) < 40_000_000


def test_bytecode_is_never_checked_against_the_source(tree: Path) -> None:
    """Every module has bytecode of this interpreter, used whatever time the unpacked source has."""
    for source in tree.rglob("*.py"):
        header = Path(importlib.util.cache_from_source(str(source))).read_bytes()[:8]
        assert header == importlib.util.MAGIC_NUMBER + struct.pack("<I", 0b01), source


def test_the_same_files_give_the_same_bytes(native: Path, tree: Path, tmp_path: Path) -> None:
    """Compiled and packed again at another time in another place, the zip is the same to the last byte."""
    again = tmp_path / "again"
    shutil.copytree(tree, again, ignore=shutil.ignore_patterns("__pycache__"))
    build.add_bytecode(again, sys.executable)
    build.write_zip(again, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == native.read_bytes()


@pytest.mark.timeout(400)  # two downloads of everything, and eighty megabytes to pack
def test_one_zip_for_both_processors(tmp_path: Path) -> None:
    """Whatever this machine is, every shared object is there for both, under the name that one of them takes."""
    output = tmp_path / "relay.zip"
    done = run_build("--output", output)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("relay.zip: ")
    archive = zipfile.ZipFile(output)
    found: dict[str, set[str]] = {}
    for name in (name for name in archive.namelist() if archive.read(name)[:4] == b"\x7fELF"):
        module, _, processor = name.removesuffix("-linux-gnu.so").rpartition(".cpython-313-")
        assert struct.unpack_from("<H", archive.read(name), 18) == (PROCESSORS[processor],), name
        found.setdefault(module, set()).add(processor)
    rust = "cryptography/hazmat/bindings/_rust"
    assert {"uvloop/loop", "httptools/parser/parser", "_cffi_backend", rust} <= found.keys()
    assert all(processors == PROCESSORS.keys() for processors in found.values()), found
    assert any(name.endswith(".cpython-313.pyc") for name in archive.namelist()) != bool(done.stderr)
    assert output.stat().st_size < 20_000_000
    assert sum(entry.file_size for entry in archive.infolist()) < 60_000_000


def test_what_one_zip_cannot_hold_is_refused(tmp_path: Path) -> None:
    """A file that differs between the processors, or a shared object that does not name its own, makes no zip."""
    arm, intel = tmp_path / "arm64", tmp_path / "x86_64"
    for tree, processor in ((arm, "aarch64"), (intel, "x86_64")):
        (tree / "loop").mkdir(parents=True)
        (tree / "loop" / "same.py").write_text("same")
        (tree / "loop" / f"core.cpython-313-{processor}-linux-gnu.so").write_bytes(b"\x7fELF" + processor.encode())
        build.check_names(tree)
    build.merge(intel, arm)
    assert sorted(path.name for path in (arm / "loop").iterdir()) == [
        "core.cpython-313-aarch64-linux-gnu.so",
        "core.cpython-313-x86_64-linux-gnu.so",
        "same.py",
    ]
    (intel / "loop" / "same.py").write_text("other")
    with pytest.raises(build.BuildError, match=r"loop/same\.py is not the same for arm64 and x86_64\. So one zip"):
        build.merge(intel, arm)
    for name in ("core.abi3.so", "libcore.so.1", "core.cpython-313-aarch64-linux-gnu.so"):
        (intel / name).write_bytes(b"\x7fELF")
        with pytest.raises(build.BuildError, match=rf"{name} does not name its processor\."):
            build.check_names(intel)
        (intel / name).unlink()


def test_a_shared_object_of_the_stable_abi_is_named_after_its_processor(tmp_path: Path) -> None:
    """So that one zip holds it for both; the name is one that Python takes, before the other."""
    arm, intel = tmp_path / "arm64", tmp_path / "x86_64"
    for tree in (arm, intel):
        (tree / "bindings").mkdir(parents=True)
        for name in ("_rust.abi3.so", "plain.so", "core.cpython-313-x86_64-linux-gnu.so", "abi3.so.py"):
            (tree / "bindings" / name).write_bytes(b"\x7fELF" + tree.name.encode())
        build.name_processor(tree, tree.name, "3.13")
    for tree, processor in ((arm, "aarch64"), (intel, "x86_64")):
        assert sorted(path.name for path in (tree / "bindings").iterdir()) == [
            f"_rust.cpython-313-{processor}-linux-gnu.so",
            "abi3.so.py",
            "core.cpython-313-x86_64-linux-gnu.so",
            "plain.so",
        ]
    (intel / "core.abi3.so").touch()
    (intel / "core.cpython-313-x86_64-linux-gnu.so").touch()
    with pytest.raises(build.BuildError, match=r"core\.abi3\.so is there twice, as core\.cpython-313-x86_64-linux"):
        build.name_processor(intel, "x86_64", "3.13")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems name them otherwise")
def test_python_takes_the_name_that_was_given(tmp_path: Path) -> None:
    """The tagged name is the first this interpreter looks for, before that of the stable ABI."""
    suffixes = importlib.machinery.EXTENSION_SUFFIXES
    machine = os.uname().machine
    tree = tmp_path / {"aarch64": "arm64"}.get(machine, machine)
    tree.mkdir()
    (tree / "_rust.abi3.so").touch()
    build.name_processor(tree, tree.name, build.RUNNING)
    (named,) = tree.iterdir()
    assert named.name == f"_rust{suffixes[0]}"
    assert suffixes.index(".abi3.so") > 0


@pytest.mark.parametrize(("only", "lacks"), [("arm64", "x86_64"), ("x86_64", "arm64")])
def test_a_file_for_one_processor_alone_is_refused(only: str, lacks: str, tmp_path: Path) -> None:
    """Unless it is a shared object that bears that processor's name."""
    for name in (only, lacks):
        (tmp_path / name).mkdir()
    other = {"arm64": "x86_64", "x86_64": "aarch64"}[only]
    for name, content in (
        ("fast.py", b"fast = True"),
        (f"fast-{build.ARCHITECTURES[only]}-.py", b"fast = True"),
        (f"fast.cpython-313-{other}-linux-gnu.so", b"\x7fELF"),
    ):
        (tmp_path / only / name).write_bytes(content)
        with pytest.raises(build.BuildError, match=rf"{name} is there for {only} and not for {lacks}\. So one zip"):
            build.merge(tmp_path / "x86_64", tmp_path / "arm64")
        (tmp_path / only / name).unlink()


def test_a_module_that_does_not_name_its_processor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the zip is for both; one that does may come along, and in a zip for one processor each may."""
    monkeypatch.setattr(build, "download", lambda tree, *_: tree.mkdir())
    both = build.Target(("arm64", "x86_64"), "3.13", None)
    for name in ("fast.so", "fast.cpython-313-arm-linux-gnueabihf.so"):
        (tmp_path / name).write_bytes(b"\x7fELF")
        with pytest.raises(build.BuildError, match=rf"{name} does not name its processor\. So one zip"):
            build.build(both, tmp_path / "relay.zip", [tmp_path / name])
        assert not (tmp_path / "relay.zip").exists()
    named = [f"fast.cpython-313-{processor}-linux-gnu.so" for processor in PROCESSORS]
    for name in named:
        (tmp_path / name).write_bytes(b"\x7fELF")
    build.build(both, tmp_path / "relay.zip", [tmp_path / name for name in named])
    assert set(named) <= set(zipfile.ZipFile(tmp_path / "relay.zip").namelist())
    build.build(build.Target(("arm64",), "3.13", None), tmp_path / "arm.zip", [tmp_path / "fast.so"])
    assert "fast.so" in zipfile.ZipFile(tmp_path / "arm.zip").namelist()


def test_a_failed_download_is_one_sentence(tmp_path: Path) -> None:
    """Where nothing can be downloaded, it says so in one sentence, and leaves an earlier zip as it was."""
    output = tmp_path / "relay.zip"
    output.write_text("earlier")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    done = run_build("--arch", "native", "--output", output, **offline)
    assert done.returncode == 1
    [sentence] = done.stderr.splitlines()
    assert sentence.startswith("The dependencies for native and Python 3.")
    assert "could not be downloaded: No matching distribution found for" in sentence
    assert [each.name for each in tmp_path.iterdir()] == ["relay.zip"]
    assert output.read_text() == "earlier"


def test_a_download_with_another_hash_makes_no_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever index it came from, and though its name and version are those that are locked."""
    with zipfile.ZipFile(tmp_path / "core-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("core.py", "")
        wheel.writestr("core-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: core\nVersion: 1.0\n")
        wheel.writestr("core-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("core-1.0.dist-info/RECORD", "")
    lock, right = tmp_path / "lock", sha256((tmp_path / "core-1.0-py3-none-any.whl").read_bytes()).hexdigest()
    monkeypatch.setattr(build, "LOCK", lock)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    for name, value in offline.items():
        monkeypatch.setenv(name, value)
    native = build.Target(("native",), build.RUNNING, sys.executable)
    for entry, fault in (
        (f"core==1.0 --hash=sha256:{'0' * 64}", "DO NOT MATCH THE HASHES"),
        ("core==1.0", "Hashes are required"),
    ):
        lock.write_text(entry)
        with pytest.raises(build.BuildError, match=f"could not be downloaded: .*{fault}"):
            build.download(tmp_path / "tree", native, "native")
    lock.write_text(f"core==1.0 --hash=sha256:{right}")
    build.download(tmp_path / "tree", native, "native")
    assert (tmp_path / "tree" / "core.py").exists()


def test_a_missing_interpreter_is_one_sentence() -> None:
    """A native zip for a Python that is not here is refused before anything is downloaded."""
    done = run_build("--arch", "native", "--python-version", "3.2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "There is no Python 3.2 here to build for this machine with.\n"


def test_without_the_interpreter_there_is_no_bytecode_and_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A zip for a Python that is not here is still made, with one sentence about what it lacks."""
    monkeypatch.setenv("PATH", "")
    target = build._target(("arm64",), "3.99")
    assert target.interpreter is None
    assert capsys.readouterr().err == (
        "There is no python3.99 here to compile with: the zip has no bytecode, and cold starts are slower.\n"
    )


def test_a_stand_in_is_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A python3.99 on PATH that cannot run, or is another version, does not count."""
    stand_in = tmp_path / "python3.99"
    stand_in.write_text("#!/bin/sh\necho 3.98\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert build.find_interpreter("3.99") is None


def test_native_goes_with_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    """A zip for this machine is for its interpreter too, so it cannot be for Lambda as well."""
    with pytest.raises(SystemExit):
        build.main(["--arch", "native", "--arch", "arm64"])
    assert "--arch native goes with no other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((), "async-relay.zip"), (("x86_64",), "async-relay-x86_64.zip"), (("native",), "async-relay-native.zip")],
)
def test_a_zip_for_one_processor_says_so(arguments: tuple[str, ...], name: str) -> None:
    """The plain name is the one that any Architecture can take."""
    options = build._options([word for each in arguments for word in ("--arch", each)])
    assert options.output == ROOT / "build" / name


def test_a_module_that_is_not_there_is_one_sentence() -> None:
    """It is refused before anything is downloaded."""
    done = run_build("--module", "nope.py")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "The module nope.py does not exist.\n")


def make(directory: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 our own words, no shell
        [str(shutil.which("make")), *words, *(f"{name}={value}" for name, value in variables.items())],
        capture_output=True,
        text=True,
        check=False,
        cwd=directory,
        # A make that runs these tests is not to speak through this one.
        env={name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")},
    )


# The script itself, but its dependencies are one small file for each processor; each download is a line in a file.
SCRIPT_WITHOUT_DOWNLOADS = """
import pathlib, sys, time
sys.path.insert(0, str(pathlib.Path(__file__).parent))
import script

def download(tree, target, architecture):
    with open("downloads", "a") as file:
        file.write(f"{architecture}\\n")
    time.sleep(0.2)
    tree.mkdir()
    processor = script.ARCHITECTURES[architecture]
    (tree / f"core.cpython-313-{processor}-linux-gnu.so").write_bytes(b"\\x7fELF")

script.download = download
script.find_interpreter = lambda version: sys.executable if pathlib.Path("compiler").exists() else None
sys.exit(script.main())
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile and the build script, which downloads nothing."""
    for name in ("packaging", "async_relay"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("packaging/requirements.lock", "handler.py", "orders.py", "async_relay/a.py", "async_relay/b.py"):
        (tmp_path / name).write_text(f"# {name}\n")
    shutil.copy(SCRIPT, tmp_path / "packaging" / "script.py")
    (tmp_path / "packaging" / "build.py").write_text(SCRIPT_WITHOUT_DOWNLOADS)
    return tmp_path


def builds(checkout: Path) -> int:
    """How often the zip was made until now."""
    downloads = checkout / "downloads"
    return downloads.read_text().splitlines().count("arm64") if downloads.exists() else 0


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_make_makes_a_zip_once(checkout: Path) -> None:
    """Until what goes in changes, by its content and whatever its time is, or whether a Python here can compile."""

    def made(**variables: str) -> bool:
        before = builds(checkout)
        done = make(checkout, "build", PYTHON=sys.executable, **variables)
        assert done.returncode == 0, done.stderr
        assert ("async-relay.zip: " in done.stdout) == (builds(checkout) > before)
        return builds(checkout) > before

    def names() -> set[str]:
        return set(zipfile.ZipFile(checkout / "build" / "async-relay.zip").namelist())

    def replace(path: Path, content: str) -> None:
        """As an older file that is moved there."""
        path.write_text(content)
        os.utime(path, (1e9, 1e9))

    shop = checkout / "shop"
    shop.mkdir()
    for name in ("__init__", "kept", "gone"):
        (shop / f"{name}.py").touch()
    assert [made(), made()] == [True, False]
    (checkout / "compiler").touch()
    assert [made(), made()] == [True, False]
    assert [made(MODULES="orders.py shop"), made(MODULES="orders.py shop")] == [True, False]
    (checkout / "orders.py").touch()
    assert not made(MODULES="orders.py shop")
    replace(checkout / "orders.py", "other = 1")
    assert [made(MODULES="orders.py shop"), made(MODULES="orders.py shop")] == [True, False]
    assert "shop/gone.py" in names()
    (shop / "gone.py").unlink()
    assert [made(MODULES="orders.py shop"), made(MODULES="orders.py shop")] == [True, False]
    assert "shop/gone.py" not in names()
    (shop / "__pycache__").mkdir()
    (shop / "__pycache__" / "kept.cpython-313.pyc").touch()
    assert not made(MODULES="orders.py shop")
    assert made()
    (checkout / "async_relay" / "a.py").unlink()
    assert [made(), made()] == [True, False]
    assert "async_relay/a.py" not in names()
    replace(checkout / "async_relay" / "b.py", "other = 1")
    assert [made(), made()] == [True, False]
    (checkout / "build" / "async-relay.zip").write_bytes(b"of another hand")
    assert [made(), made()] == [True, False]
    (checkout / "build" / "async-relay.zip").unlink()
    assert [made(), made()] == [True, False]
    assert sorted(path.name for path in (checkout / "build").iterdir()) == [
        ".contents",
        ".contents.lock",
        "async-relay.zip",
    ]


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_makes_at_once_make_one_zip(checkout: Path) -> None:
    """As ``sam build --parallel`` runs them in the sources: one makes it, and all unpack it whole."""
    functions = ("Relay", "Deliver", "Fanout", "Connect", "Disconnect")

    def build_one(name: str) -> subprocess.CompletedProcess[str]:
        (checkout / name).mkdir()
        return make(checkout, f"build-{name}Function", PYTHON=sys.executable, ARTIFACTS_DIR=str(checkout / name))

    with concurrent.futures.ThreadPoolExecutor(len(functions)) as threads:
        done = list(threads.map(build_one, functions))
    assert [each.returncode for each in done] == [0] * 5, [each.stderr for each in done]
    assert builds(checkout) == 1
    for name in functions:
        assert (checkout / name / "handler.py").read_text() == "# handler.py\n"
        assert len(list((checkout / name).glob("core.*.so"))) == 2


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_a_build_that_failed_is_tried_again(checkout: Path) -> None:
    """A record is kept only of a zip that is there."""
    script = checkout / "packaging" / "build.py"
    script.write_text(SCRIPT_WITHOUT_DOWNLOADS.replace("tree.mkdir()", "raise script.BuildError('No network.')"))
    for _ in range(2):
        done = make(checkout, "build", PYTHON=sys.executable)
        assert done.returncode
        assert done.stderr.splitlines()[-2] == "No network."
    script.write_text(SCRIPT_WITHOUT_DOWNLOADS)
    assert make(checkout, "build", PYTHON=sys.executable).returncode == 0
    assert (checkout / "build" / "async-relay.zip").exists()


def test_a_record_that_cannot_be_kept_is_one_sentence(tmp_path: Path) -> None:
    """A file where its directory should be ends the build before anything is downloaded."""
    (tmp_path / "build").touch()
    done = run_build("--record", tmp_path / "build" / ".contents", "--output", tmp_path / "relay.zip")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{tmp_path / 'build' / '.contents'} could not be written: File exists.\n"


@pytest.mark.skipif(not shutil.which("make"), reason="there is no make here")
def test_make_leaves_a_missing_module_to_the_script(checkout: Path) -> None:
    """So its sentence is the only one besides make's own."""
    shutil.copy(SCRIPT, checkout / "packaging")
    done = make(checkout, "build", PYTHON=sys.executable, MODULES="nope.py")
    assert done.returncode
    sentence, of_make = done.stderr.splitlines()
    assert sentence == "The module nope.py does not exist."
    assert of_make.startswith("make: ***")


def test_make_builds_every_function_of_the_template() -> None:
    """Sam calls make for each function with the makefile method, and none of them names a processor."""
    targets = (ROOT / "Makefile").read_text()
    functions = re.findall(
        r"^  (\w+):\n    Type: AWS::Serverless::Function", (ROOT / "template.yaml").read_text(), re.MULTILINE
    )
    [line] = [line for line in targets.splitlines() if line.startswith("build-")]
    names, _, needs = line.partition(": ")
    assert names.split() == [f"build-{name}" for name in functions]
    assert needs == "build/async-relay.zip"


def test_what_is_no_shared_object_is_left_as_it_is() -> None:
    """Only 64-bit little-endian ELF files are cut."""
    for content in (b"", b"\x7fELF", b"\x7fELF\x01\x01" + bytes(100), b"\xcf\xfa\xed\xfe" + bytes(100)):
        assert build.stripped(content) == content


def test_an_output_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """A directory in the zip's place is a sentence, and no half zip stays behind."""
    files = tmp_path / "files"
    files.mkdir()
    (tmp_path / "relay.zip").mkdir()
    with pytest.raises(build.BuildError, match=r"relay\.zip could not be written: Is a directory\."):
        build.write_zip(files, tmp_path / "relay.zip")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["files", "relay.zip"]


def test_modules_of_ones_own_go_beside_the_handler(tmp_path: Path) -> None:
    """A file or a package is put at the top, where MESSAGE_FORMATTER finds it; bytecode of another time is not."""
    tree, package = tmp_path / "tree", tmp_path / "shop"
    for directory in (tree, package / "__pycache__"):
        directory.mkdir(parents=True)
    (tmp_path / "orders.py").write_text("ours = 1")
    (package / "__init__.py").touch()
    build.add_modules(tree, [tmp_path / "orders.py", package])
    assert sorted(path.relative_to(tree).as_posix() for path in tree.rglob("*")) == [
        "orders.py",
        "shop",
        "shop/__init__.py",
    ]
    with pytest.raises(build.BuildError, match=r"orders\.py has the name of something the zip holds already"):
        build.add_modules(tree, [tmp_path / "orders.py"])
    with pytest.raises(build.BuildError, match=r"The module .*none\.py cannot be read: No such file or directory\."):
        build.add_modules(tree, [tmp_path / "none.py"])
