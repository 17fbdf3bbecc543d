"""Learn real tasks one after another and print what each scored, and what the earlier ones scored then.

    python -m benchmarks.learning --data DIR [--tasks trec antonym sst2] [--catalog FILE] [--json FILE]

DIR holds a folder a task with its task.yaml. Each task is learned with the default recipe (at most 150 steps).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

import multiprompt as mp
from multiprompt.cli.output import print_learned, print_matrix, progress_bars


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=["trec", "antonym", "sst2"])
    parser.add_argument("--catalog", type=Path, default=Path("learning.db"))
    parser.add_argument("--base-model", default="smollm2-135m")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    with progress_bars() as progress:
        workspace = mp.open(arguments.catalog, arguments.base_model, progress=progress)
        reports = []
        for name in arguments.tasks:
            workspace.add_task(arguments.data / name / "task.yaml")
            reports.append(workspace.learn(name))
            print_learned(reports[-1])
    print_matrix(workspace.matrix())
    print(
        f"{workspace.base_model().record}; {platform.processor() or platform.machine()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    if arguments.json:
        result = {"at": datetime.now(UTC).isoformat(), "reports": [asdict(report) for report in reports]}
        arguments.json.write_text(json.dumps(result, indent=2), encoding="utf-8")
    return 0 if all(report.published for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
