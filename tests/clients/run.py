"""Real clients against a running server, each in a virtual environment of its own: ``tests/clients/run.py [name ...]``.

A client is a file here, run with the server's address, and the requirement that stands in its first line. Environments
are kept under build/clients.
"""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import foundry

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
MODEL = "smollm2"
EMBEDDING = "embedding"  # a tiny model beside it, by this name for every client
SCORED = {  # contexts, and continuations of each
    "The capital of France is": [" Paris, and that of Norway is Oslo.", " Oslo.", " made of stone"],
    "Two and two are": [" four", " five, for we say so: 日本 é"],
}


def write_embedding_model(folder: Path) -> None:
    sys.path.insert(0, str(ROOT / "tests" / "python"))
    import families

    families.write(folder / f"{EMBEDDING}.gguf", families.FAMILIES["qwen3"], {"pooling_type": 3}, around=(False, True))


@contextmanager
def server(folder: Path) -> Iterator[str]:
    write_embedding_model(folder)
    command = [sys.executable, "-m", "foundry", "serve", "--alias", MODEL, "--port", "0", "--json", "--models", folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()


def environment(client: Path) -> Path:
    """The Python of the client's own environment, made where there is none."""
    folder = ROOT / "build" / "clients" / client.stem
    python = folder / "bin" / "python"
    requirement = client.read_text().splitlines()[0].removeprefix("# requires: ")
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", requirement], check=True)
    return python


def expected() -> list[tuple[str, dict[str, float]]]:
    """The log-likelihoods that lm-eval must find: ``Session.score`` of each continuation, behind its context."""
    model = foundry.CompiledModel.load(foundry.pull())

    def scored(context: str, continuation: str) -> float:
        begun = model.tokenizer.encode_prompt(context)
        whole = model.tokenizer.encode_prompt(context + continuation)
        with model.session() as session:
            return float(session.score(whole)[len(begun) :].sum(dtype=float))

    return [(context, {one: scored(context, one) for one in several}) for context, several in SCORED.items()]


def main() -> int:
    clients = sorted(path for path in HERE.glob("*.py") if path.name != "run.py")
    if names := sys.argv[1:]:
        clients = [path for path in clients if path.stem in names]
    failed = []
    score = json.dumps(expected())
    with TemporaryDirectory() as folder, server(Path(folder)) as url:
        for client in clients:
            found = subprocess.run([environment(client), "-I", client, url, MODEL, score], cwd=ROOT / "build")
            print(f"{client.stem}: {'ok' if found.returncode == 0 else 'FAILED'}", flush=True)
            if found.returncode != 0:
                failed.append(client.stem)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
