"""Makes tokens.json, scores.json and answers.json with llama.cpp: ``python tests/oracle/make.py`` (extra ``oracle``).

Run once; the values are committed. Scores and answers come from the same weights written out in F32: beside quantised
weights llama.cpp rounds activations to 8 bits, which alone moves SmolLM2's log-probabilities by 0.06 on average, more
than what is to be seen. The whole text goes in one window of 4,096 with f16 K/V.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "python"))

import foundry  # noqa: E402
from real_text import real_text  # noqa: E402

POSITIONS = 4000
TEXT_CHARACTERS = 24_000
PROMPTS = [
    "Why is the sky blue?",
    "What is the capital of Italy?",
    "Write a haiku about rain.",
    "Explain photosynthesis to a child.",
    "Give me three tips for learning to cook.",
    "What is 12 plus 30?",
    "Translate 'good morning' into French.",
    "Who wrote Romeo and Juliet?",
    "Write a Python function that adds two numbers.",
    "Name the planets of the solar system.",
]
TEXTS = [
    "Hello, world!",
    " leading and trailing  ",
    "tabs\tand\nnew lines\r\n\r\nand more\n\n\n",
    "In 1969, 3 astronauts flew 384,400 km: 100%!",
    "don't, won't, I'll, we've, they're, he'd, I'm, it's — DON'T",
    "snake_case, camelCase, kebab-case, x**2 != y//3",
    "def f(x):\n    return x + 1  # a comment\n",
    "naïve café, coöperate, Ångström, señor",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם. مرحبا بالعالم",
    "日本語のテキスト、中文文本，한국어 텍스트",
    "emoji: 🙂👩‍👩‍👧‍👦🇫🇷👍🏽",
    "<|im_start|>user\nHi<|im_end|>\n",
    "<|im_start|> spaced <|im_end|>",
    "a<|endoftext|>b",
    "x" * 100,
    "1234567890" * 5,
    "...!?!?;;--==>>",
    "\u00a0non-breaking\u2003em space\u200bzero width",
    "e\u0301 and é; ﬁ ligature; Ⅷ; ½; ²",
    "https://example.org/a?b=c&d=%20e#f",
    "   ",
    "\n",
    "The quick brown fox jumps over the lazy dog.",
    "SHOUTING AND whispering AnD mIxEd",
]


def about(path: Path) -> dict[str, Any]:
    return {
        "made_with": f"llama-cpp-python {llama_cpp.__version__} (llama.cpp), {platform.machine()}",
        "model": f"{path.name}, dequantised to F32",
        "model_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def in_f32(path: Path, to: Path) -> Path:
    """The model with every tensor dequantised (by ``gguf``'s numpy), its metadata as it was."""
    reader = gguf.GGUFReader(str(path))
    writer = gguf.GGUFWriter(str(to), reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


def save(name: str, values: dict[str, Any]) -> None:
    (HERE / name).write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    path = foundry.pull()
    with tempfile.TemporaryDirectory() as folder:
        make(path, in_f32(path, Path(folder) / "f32.gguf"))


def make(path: Path, f32: Path) -> None:
    model = llama_cpp.Llama(str(f32), n_ctx=4096, n_batch=512, logits_all=True, verbose=False, n_threads=2)

    def ids(text: str) -> list[int]:
        return model.tokenize(text.encode(), add_bos=False, special=True)

    save("tokens.json", about(path) | {"cases": [{"text": t, "ids": ids(t)} for t in TEXTS]})

    text = real_text()[:TEXT_CHARACTERS]
    tokens = ids(text)[: POSITIONS + 1]
    model.eval(tokens[:-1])
    logits = model.scores[:POSITIONS].astype(np.float64)
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    scores = {
        "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "tokens_sha256": hashlib.sha256(np.asarray(tokens, "<i4").tobytes()).hexdigest(),
        "most_likely": log_p.argmax(1).tolist(),
        "log_p": [round(float(log_p[i, tokens[i + 1]]), 5) for i in range(POSITIONS)],
    }
    save("scores.json", about(path) | scores)

    answers = []
    for prompt in PROMPTS:
        model.reset()
        chat = model.create_chat_completion([{"role": "user", "content": prompt}], temperature=0, max_tokens=64)
        answers.append({"prompt": prompt, "text": chat["choices"][0]["message"]["content"]})
    save("answers.json", about(path) | {"max_new_tokens": 64, "answers": answers})


if __name__ == "__main__":
    main()
