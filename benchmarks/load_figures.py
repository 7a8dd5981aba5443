"""A load test's figures in plain values: for its JSON file, its page, its summary, and a run to compare it with."""

from __future__ import annotations

import resource
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from .against import Run, run_of
from .load_options import in_words
from .load_run import Load
from .verdict import Ending, problems

_POINTS = ("p50", "p95", "p99")


def summary(load: Load, ending: Ending | None, facts: Mapping[str, str]) -> dict[str, Any]:
    """Everything; ``facts`` are the machine's, taken before the run."""
    watch = load.watch
    seconds, cpu = watch.seconds, watch.cpu
    tally = load.tally
    figures = {
        "options": asdict(load.options),
        "seconds": round(seconds, 3),
        "batches": load.batches,
        "clients": load.clients,
        "messages": load.last,
        "posts": watch.sent,
        "delivered": watch.delivered,
        "outcomes": dict(watch.outcomes),
        "posts_a_second": round(watch.sent / seconds, 1) if seconds else 0.0,
        "cpu_us_a_message": round(cpu / watch.delivered * 1e6, 2) if watch.delivered else 0.0,
        "cpu_us_a_post": round(cpu / watch.sent * 1e6, 2) if watch.sent else 0.0,
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        "post_seconds": dict(zip(_POINTS, watch.posts.percentiles(), strict=True)),
        "delivery_seconds": {
            **dict(zip(_POINTS, watch.deliveries.percentiles(), strict=True)),
            "last": watch.deliveries.longest,
        },
        "arrived": asdict(tally) if tally else None,
        "ending": asdict(ending) if ending else None,
        "problems": problems(ending) if ending else ["the run was stopped before its end"],
        "moments": [asdict(each) for each in watch.moments],
    }
    run = run_of("load", facts, in_words(load.options), measures(figures), whole=ending is not None)
    return {**figures, "run": asdict(run)}


def this_run(figures: Mapping[str, Any]) -> Run:
    """The part that is compared with another run's."""
    return Run(**figures["run"])


def measures(figures: Mapping[str, Any]) -> dict[str, float]:
    """The figures that two runs are compared by, each with its unit in its name."""
    times = {"a post": figures["post_seconds"], "event to delivery": figures["delivery_seconds"]}
    return {
        "batches": figures["batches"],
        "posts": figures["posts"],
        "posts refused with 429": figures["outcomes"].get("throttled", 0),
        "posts cut off": figures["outcomes"].get("disconnected", 0),
        "posts a second": figures["posts_a_second"],
        **{f"{what}, {point}, ms": took * 1000 for what, points in times.items() for point, took in points.items()},
        "CPU a post, µs": figures["cpu_us_a_post"],
        "CPU a message, µs": figures["cpu_us_a_message"],
        "peak memory, MB": figures["peak_memory_mb"],
    }
