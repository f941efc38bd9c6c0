"""Makes tokenizers.json with llama.cpp: ``python tests/oracle/make_tokenizers.py``, in an environment with Foundry and
``xllamacpp``. Run once; the values are committed.

Hashes of the ids of seeded texts (tests/python/tokenizer_cases.py), with control tokens found and with control tokens
as text: for each vocabulary that llama.cpp keeps for its tests, and for each of its pre-tokenizers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "python")]

from foundry import _core  # noqa: E402
from llama_cpp_files import REQUIREMENT, models, vocabularies  # noqa: E402
from llama_cpp_tokenizer import Tokenizer  # noqa: E402
from tokenizer_cases import distinct_pres, hashes, pre_texts, vocabulary_texts, with_pre  # noqa: E402


def ids_of(path: Path, texts: list[str]) -> list[str]:
    tokenizer = Tokenizer(path)
    found = [hashes(tokenizer.encode(text, special) for text in texts) for special in (True, False)]
    tokenizer.close()
    return found


def main() -> None:
    paths = {name: models() / f"ggml-vocab-{name}.gguf" for name in vocabularies()}
    values = {
        "made_with": f"xllamacpp {version('xllamacpp')}",
        "vocabularies_of": REQUIREMENT,
        "vocabularies": {
            name: ids_of(path, vocabulary_texts(_core.GgufFile(str(path)).metadata)) for name, path in paths.items()
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        values["pre_tokenizers"] = {
            pre: ids_of(with_pre(paths[vocabulary], pre, Path(folder) / "vocabulary"), pre_texts())
            for pre, vocabulary in distinct_pres()
        }
    (HERE / "tokenizers.json").write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
