"""The most memory that a new process holds at once: bare, with an analyzer, and while it analyses."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch

from facekit.benchmarking.measuring import Case, Figure, Setting, UnavailableError, value
from facekit.benchmarking.pictures import write_album
from facekit.benchmarking.processes import ask
from facekit.benchmarking.stages import automatic, stage_calls
from facekit.benchmarking.throughput import batches

PROGRAMS = {
    "import facekit": "import facekit\n",
    "import torch and torchvision": "import torch, torchvision\n",
    "analyzer": "from facekit import FaceAnalyzer\nFaceAnalyzer(sys.argv[1], weights=sys.argv[2])\n",
}
ANALYSIS = """
from facekit import FaceAnalyzer
analyzer = FaceAnalyzer(sys.argv[1], weights=sys.argv[2], batch_size=int(sys.argv[3]))
for _ in analyzer.stream(sys.argv[4:]):
    pass
"""
END = "tell(peak=peak_mebibytes())"


def cases(setting: Setting) -> list[Case]:
    """Give the processes, and on an accelerator its own memory by batch."""
    quick = setting.quick
    processes = Case("processes", 15 if quick else 45, partial(_processes, setting))
    if setting.device.type != "cuda":
        return [processes]
    return [processes, Case("accelerator", 20 if quick else 60, partial(_accelerator, setting))]


def _processes(setting: Setting) -> list[Figure]:
    figures = [
        value(name, ask(program + END, setting.device, setting.weights)["peak"], "MiB")
        for name, program in PROGRAMS.items()
    ]
    with tempfile.TemporaryDirectory() as folder:
        for batch in (1, 32) if setting.quick else (1, 8, 32, 128):
            album = write_album(Path(folder), batch)
            told = ask(ANALYSIS + END, setting.device, setting.weights, batch, *album)
            figures.append(value("analysis", told["peak"], "MiB", batch=batch, picture="640x480"))
    return figures


def _accelerator(setting: Setting) -> list[Figure]:
    """Measure what both stages allocate on an accelerator at once, weights and crops included."""
    figures = []
    for batch in batches(setting):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(setting.device)
        try:
            stage_calls(setting.weights, automatic(setting.device), batch, setting.device)["both"]()
        except UnavailableError:
            break  # nor do larger ones fit
        peak = torch.cuda.max_memory_allocated(setting.device) / 2**20
        figures.append(value("both stages", peak, "MiB", batch=batch, where="accelerator"))
    return figures
