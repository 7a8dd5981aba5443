"""The machine that the figures depend on."""

from __future__ import annotations

import os
import platform
import ssl
from pathlib import Path


def machine() -> dict[str, str]:
    """The facts about this machine that the figures depend on."""
    model = "unknown processor"
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {
        "processor": f"{model}, {os.cpu_count()} CPUs",
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "tls": ssl.OPENSSL_VERSION.rpartition(" ")[0].rsplit(" ", 2)[0],
        "load before": f"{os.getloadavg()[0]:.1f}",
    }
