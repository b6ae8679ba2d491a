"""What a result says about where it was measured: machine, versions, threads, BLAS kernels. No path, no host name."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import threadpoolctl

PACKAGES = (
    *("fastfactor", "numba", "llvmlite", "numpy", "scipy", "scikit-learn"),
    *("libmf", "cmfrec", "implicit", "primme", "threadpoolctl", "matplotlib", "pytest-benchmark"),
)

# Older OpenBLAS builds want these set on some processors; they pick a slower kernel than the processor can run.
_BLAS_OVERRIDES = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the settings that slow a current BLAS."""
    return {key: value for key, value in os.environ.items() if key not in _BLAS_OVERRIDES}


def n_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Machine, versions and thread pools, ready for JSON. BLAS pools are those loaded by now, so call it at the end."""
    return {
        "machine": {
            "processor": _processor(),
            "architecture": platform.machine(),
            "cores": n_cores(),
            "caches": _caches(),
            "memory_gib": _memory_gib(),
            "system": platform.system(),
        },
        "versions": {"python": platform.python_version(), **_versions()},
        "thread_pools": _thread_pools(),
    }


def _processor() -> str:
    """Model name with family and stepping, which tell apart what a hypervisor gives the same name."""
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor()
    lines = (line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in lines}
    name = fields.get("model name", platform.processor())
    return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')})"


def _caches() -> dict[str, str]:
    """Sizes of the caches that the first core sees, as the system prints them."""
    caches = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind = (folder / "level").read_text().strip(), (folder / "type").read_text().strip()
        if kind != "Instruction":
            caches[f"L{level}"] = (folder / "size").read_text().strip()
    return caches


def _memory_gib() -> float:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _thread_pools() -> list[dict[str, Any]]:
    wanted = ("user_api", "prefix", "version", "architecture", "threading_layer", "num_threads")
    found = [
        pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] in ("blas", "openmp")
    ]  # scipy.io has one
    return sorted(({key: pool[key] for key in wanted if pool.get(key)} for pool in found), key=str)
