"""The commands that the documents name: how they are found, and what stands for each in the tests.

Rules
- A command is a line of a code block without a language, or a code span that begins with a program: a command's
  name, the interpreter of ``.venv``, or a script of the checkout.
- A span like ``BENCH=--quick`` belongs to the ``make`` named before it in the same paragraph or row of a table.
- Each is run, shortened; or names the test that runs it; or says why it cannot run here. The first entry of
  ``COMMANDS`` whose pattern fits the whole command counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: docs/benchmarks is written by ``make bench`` and ``make cold``.
WRITTEN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "docs/wire/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`]+)`")
_COMMENT = re.compile(r"\s+# .*")
_PROGRAM = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:(?:make|async-relay|pip|sam|aws|npm|npx|docker|git|ruff|mypy|pytest)(?: |$)|\S*python[\d.]* "
    r"|packaging/build\.py)"
)
_VARIABLES = re.compile(r"\$\((?:or \$\()?([A-Z]+)\)")


@dataclass(frozen=True, slots=True)
class Run:
    """The words of a shortened run, which ends well. ``make`` gets a ``.venv`` with this interpreter.

    The words may have ``{scratch}``, a folder of the test's own, and ``{table}``, ``{queue}``, ``{fifo}``,
    ``{letter}`` of a local AWS.
    """

    words: tuple[str, ...]
    answers: str = ""


@dataclass(frozen=True, slots=True)
class InTest:
    """The test that runs it."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class CannotRun:
    """Why it cannot run here."""

    why: str


def _make(*words: str) -> Run:
    return Run(("make", *words))


def _python(*words: str) -> Run:
    return Run(("python", *words))


def _relay(*words: str, answers: str = "") -> Run:
    return Run(("async-relay", *words), answers)


_REAL_AWS = CannotRun("it needs the AWS CLI, credentials and a stack")
_SAM = CannotRun("it needs the AWS SAM CLI and Docker or credentials; make demo deploys the same template locally")
_ITSELF = CannotRun("make test consists of it")
_ZIP = InTest("tests/test_packaging.py", "test_the_zip_works_with_nothing_else")
_MODULES = InTest("tests/test_packaging.py", "test_modules_of_ones_own_go_beside_the_handler")
_RELEASE = InTest("tests/test_release.py", "test_a_release_is_whole")
_SOAK = InTest("tests/test_demo.py", "test_a_short_soak_on_the_deployed_template_tells_nobody_apart")
_ADOPTED = InTest("tests/test_adopting.py", "test_the_guide_loses_nothing")
_ONE_ROUND = InTest("tests/test_demo.py", "test_one_round_on_the_deployed_template_reaches_everybody")

COMMANDS: tuple[tuple[str, Run | InTest | CannotRun], ...] = (
    (r"make (test|unit|lint|types|lint types)", _ITSELF),
    (r"make coverage", CannotRun("it is every test once more, under a tracer")),
    (r"make test-fast", _make("test-fast")),
    (r"make help", _make("help")),
    (r"make demo( ONCE=1)?", _ONE_ROUND),
    (r"make demo SOAK=\d+", _SOAK),
    (r"make fuzz( SECONDS=600)?( TARGETS='jobs answers')?", _make("fuzz", "SECONDS=1", "TARGETS=jobs answers")),
    (r"make load", _make("load", "LOAD=--transport memory --clients 20 --messages 1")),
    (r"make load LOAD='--help'", _make("load", "LOAD=--help")),
    (
        r"make load LOAD='--(json|against) before\.json'",
        InTest("tests/test_load.py", "test_a_run_stands_beside_an_earlier_one"),
    ),
    (
        r"make bench BENCH='--(json|against) before\.json'",
        InTest("tests/test_bench.py", "test_a_run_stands_beside_an_earlier_one"),
    ),
    (r"make mistakes( LISTS='lanes pool')?", InTest("tests/test_mistakes.py", "test_a_mistake_is_caught_or_named")),
    (r"make load LOAD='--messages 100 --frames 1.*'", InTest("tests/test_load.py", "test_a_run_with_frames")),
    (r"make load LOAD='--chaos.*'", InTest("tests/test_load.py", "test_a_chaotic_run_stands_beside_a_clean_one")),
    (
        r"make bench( BENCH=--quick)?",
        _make("bench", "BENCH=--quick --clients 100 --repetitions 1 --peers direct-posts --json {scratch}/bench.json"),
    ),
    (r"make pictures", InTest("tests/browser/test_in_a_browser.py", "test_the_documents_pictures_can_be_made")),
    (r"make long-tasks", CannotRun("it measures for twenty seconds, and no test is timed")),
    (r"make cold", _make("cold", "COLD=--launches 1 --zip off")),
    (r"make build", _ZIP),
    (r"make release( PYTHON=python3\.13)?", _RELEASE),
    (r"sha256sum --check SHA256SUMS", _RELEASE),
    (r"make demo DEMO='--once --release dist'", _ONE_ROUND),
    (r"make lock( UPGRADE=1)?", CannotRun("it asks an index; that the lock is of the project is a test of its own")),
    (r"make audit", CannotRun("it installs checkov; what it makes of its tools' answers is in tests/test_release.py")),
    (r"make clean", InTest("tests/test_makefile.py", "test_clean_leaves_what_is_tracked_and_nothing_else")),
    (r"packaging/build\.py", _ZIP),
    (r"make build MODULES='.*'", _MODULES),
    (r"sam deploy --parameter-overrides (AuthMode|ConnectionsTableName)=.*", _ADOPTED),
    (r"aws lambda (list|update|delete)-event-source-mappings? .*", _ADOPTED),
    (r"aws dynamodb (describe|create|delete)-table .*", _ADOPTED),
    (r"aws dynamodb put-item .*", _ADOPTED),
    (r"aws cloudformation describe-stack-resource .*", _ADOPTED),
    (r"(\S+=\S+ )?sam build\b.*", _SAM),
    (r"sam deploy --parameter-overrides StreamShards=1", InTest("tests/test_runbook.py", "test_late")),
    (r"sam (deploy( .*)?|package|publish)", _SAM),
    (r"aws lambda \S+-event-source-mappings? .*", InTest("tests/test_runbook.py", "test_nothing_arrives")),
    (r"aws .*", _REAL_AWS),
    (
        r"pip install '\./async_relay-.*",
        CannotRun("it needs an index; that the wheel has its extras is a test of its own"),
    ),
    (r"pip install '\.\[\w+\]'", CannotRun("it needs an index; that the checkout has the extra is a test of its own")),
    (
        r"\.venv/bin/python -m pytest tests/wire/test_streams\.py",
        _python("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/wire/test_streams.py"),
    ),
    (r"\.venv/bin/python tests/simulate\.py", _python("tests/simulate.py", "--histories", "3")),
    (r"\.venv/bin/python tests/simulate_feed\.py", _python("tests/simulate_feed.py", "--histories", "3")),
    (r"\.venv/bin/python -m benchmarks\.rate", _python("-m", "benchmarks.rate", "--case", "2 full, 5 clients")),
    (r"\.venv/bin/python -m benchmarks\.bursts", InTest("tests/test_bursts.py", "test_a_small_burst")),
    (
        r"\.venv/bin/python -m benchmarks\.places",
        InTest("tests/test_bursts.py", "test_small_broadcasts_with_few_and_many_places"),
    ),
    (
        r"\.venv/bin/python -m benchmarks\.measurement",
        InTest("tests/planning/test_plan_simulation.py", "test_the_measurement_prints_a_line_a_way"),
    ),
    (r"async-relay( dead-letters)?", _relay("dead-letters", "--help")),
    (r"async-relay dead-letters list", _relay("dead-letters", "list")),
    (
        r"async-relay dead-letters list --reason .*",
        _relay("dead-letters", "list", "--reason", "attempts_exhausted", "--older-than", "2h", "--json"),
    ),
    (r"async-relay dead-letters show \w+", _relay("dead-letters", "show", "{letter}")),
    (
        r"async-relay dead-letters redrive --incident i-17 --dry-run",
        _relay("dead-letters", "redrive", "--incident", "i-17", "--dry-run"),
    ),
    (
        r"async-relay dead-letters redrive --incident i-17",
        _relay("dead-letters", "redrive", "--incident", "i-17", answers="y\n"),
    ),
    (
        r"async-relay dead-letters redrive --all",
        InTest("tests/cli/test_fifo_dead_letters.py", "test_a_redrive_moves_every_group_in_order"),
    ),
    (
        r"async-relay dead-letters discard .*",
        _relay("dead-letters", "discard", "--reason", "refused", "--save", "{scratch}/refused.jsonl", answers="y\n"),
    ),
    (
        r"PYTHONPATH=\. MESSAGE_FORMATTER=\S+ async-relay dead-letters redrive …",
        InTest("tests/cli/test_dead_letters.py", "test_with_the_relays_own_formatter"),
    ),
    (r"async-relay backfill( --table TABLE --shards N)?", _relay("backfill", "--table", "{table}", "--shards", "8")),
    (
        r"async-relay backfill --table connections --shards 8 --dry-run",
        _relay("backfill", "--table", "{table}", "--shards", "8", "--dry-run"),
    ),
    (
        r"async-relay backfill --table connections --shards 8 --rate 500",
        _relay("backfill", "--table", "{table}", "--shards", "8", "--rate", "500"),
    ),
    (
        r"async-relay disconnect --principal '.*' --dry-run",
        _relay(
            *(
                "disconnect",
                "--table",
                "{table}",
                "--endpoint",
                "http://localhost:9/prod",
                "--principal",
                "auth0|5f7c8ec7",
            ),
            "--dry-run",
        ),
    ),
    (
        r"async-relay disconnect --principal( .*)?",
        InTest("tests/cli/test_disconnect.py", "test_a_principal_is_logged_out_everywhere_and_nobody_else"),
    ),
    (
        r"async-relay disconnect --anonymous",
        InTest("tests/cli/test_disconnect.py", "test_who_came_without_a_token_is_logged_out"),
    ),
    (
        r"async-relay disconnect( --everybody)?",
        InTest("tests/cli/test_disconnect.py", "test_everybody_is_logged_out"),
    ),
    (
        r"async-relay doctor( --stack STACK)?",
        InTest("tests/cli/test_doctor.py", "test_a_deployed_stack_is_in_order_and_only_read"),
    ),
    (r"async-relay connections --table connections", _relay("connections", "--table", "{table}")),
    (
        r"async-relay replay --all --dry-run",
        InTest("tests/cli/test_replay.py", "test_a_dry_run_sends_and_deletes_nothing"),
    ),
    (
        r"async-relay replay --(since 2h|incident i-17)",
        InTest("tests/cli/test_replay.py", "test_only_what_is_chosen_is_sent"),
    ),
    (
        r"async-relay replay( --all --delete)?",
        InTest("tests/cli/test_replay.py", "test_nothing_is_deleted_unless_asked"),
    ),
    (r"async-relay plan", _relay("plan", "--clients", "1k")),
    (
        r"async-relay plan --clients 100k --messages-per-second 0\.01",
        _relay("plan", "--clients", "100k", "--messages-per-second", "0.01"),
    ),
    (
        r"async-relay plan --clients 100k --messages-per-second 0\.01 --burst 100 --frames 1",
        _relay("plan", "--clients", "100k", "--messages-per-second", "0.01", "--burst", "100", "--frames", "1"),
    ),
    (
        r"async-relay plan --clients 100k --messages-per-second 0\.01 --groups-per-batch 8",
        _relay("plan", "--clients", "100k", "--messages-per-second", "0.01", "--groups-per-batch", "8"),
    ),
    (
        r"async-relay plan --table .*",
        InTest("tests/cli/test_plan_tables.py", "test_the_document_has_what_the_command_prints"),
    ),
    (
        r"async-relay plan --clients 10k --messages-per-second 0\.01 .*--plot docs/scaling/\w+\.svg",
        InTest("tests/cli/test_plan_tables.py", "test_the_documents_plots_are_of_what_the_command_draws"),
    ),
    (
        r"async-relay plan --clients 1M .* --simulate",
        _relay(
            *("plan", "--clients", "1k", "--messages-per-second", "0.01", "--quota", "100000"),
            *("--shards", "20", "--workers", "20", "--concurrency", "200", "--simulate"),
        ),
    ),
    (
        r"async-relay plan --clients 10k --messages-per-second 0\.01 --stream-shards 4 --others 2000",
        InTest("tests/cli/test_plan_tables.py", "test_the_templates_share_is_as_the_document_says"),
    ),
    (r"async-relay plan --clients 10k --feed", _relay("plan", "--clients", "10k", "--feed")),
    (r"async-relay plan --clients 10k --json", _relay("plan", "--clients", "10k", "--json")),
    (
        r"async-relay plan --clients 10k --plot plan\.svg",
        _relay("plan", "--clients", "10k", "--plot", "{scratch}/plan.svg"),
    ),
)


def commands_in(text: str) -> Iterator[str]:
    """The commands that a document names."""
    for language, code in _BLOCK.findall(text):
        if not language:
            lines = (_COMMENT.sub("", line) for line in code.replace("\\\n", " ").splitlines())
            yield from (" ".join(line.split()) for line in lines if line.strip() and not line.startswith("export "))
    variables = set(_VARIABLES.findall((ROOT / "Makefile").read_text()))
    for paragraph in re.split(r"\n\s*\n|\n(?=\|)", _BLOCK.sub("\n\n", text)):
        made = ""
        for span in (" ".join(each.split()) for each in _SPAN.findall(paragraph)):
            if _PROGRAM.match(span):
                yield span
                made = span if span.startswith("make ") else made
            elif made and span.partition("=")[0] in variables and "=" in span:
                yield f"{made} {span}"


def entry(command: str) -> Run | InTest | CannotRun | None:
    """What stands for a command, if anything does."""
    return next((found for pattern, found in COMMANDS if re.fullmatch(pattern, command)), None)
