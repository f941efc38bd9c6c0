"""``foundry embed``: a line of numbers for each text."""

from __future__ import annotations

import argparse
import json

import numpy as np
import numpy.typing as npt

from foundry.cli import standard_input
from foundry.cli.opening import load_file, path_of
from foundry.cli.progress import prefilling


def embed(arguments: argparse.Namespace) -> int:
    texts = _lines() if arguments.texts == ["-"] else arguments.texts
    model = load_file(arguments, path_of(arguments.model))
    with prefilling() as progress:
        rows = model.embed(
            texts,
            normalize=False if arguments.no_normalize else None,
            dimensions=arguments.dimensions,
            pooling=arguments.pooling,
            progress=progress,
        )
    if arguments.json:
        pooling = arguments.pooling or model.pooling
        print(json.dumps({"pooling": pooling, "dimensions": rows.shape[1], "embeddings": [*map(_numbers, rows)]}))
    else:
        for row in rows:
            print(json.dumps(_numbers(row)))
    return 0


def _numbers(row: npt.NDArray[np.float32]) -> list[float]:
    """As short as they can be and still be these."""
    return [float(str(value)) for value in row]


def _lines() -> list[str]:
    lines, found = standard_input.Lines(), []
    while (line := lines.next()) is not None:
        found.append(line)
    return found
