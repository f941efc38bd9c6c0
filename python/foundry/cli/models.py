"""``foundry pull``."""

from __future__ import annotations

import argparse
import json

from foundry.cli.opening import path_of


def pull(arguments: argparse.Namespace) -> int:
    path = path_of(arguments.model, verify=True)
    print(json.dumps({"path": str(path), "bytes": path.stat().st_size}) if arguments.json else path)
    return 0
