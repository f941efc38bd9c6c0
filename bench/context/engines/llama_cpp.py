"""llama.cpp through llama-cpp-python's C interface; its K/V are allocated for all of n_ctx when a context opens."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np

from bench.context.engines import CHUNK_TOKENS, Ids, Logits

SEQUENCES = 2  # one and its fork, in one unified K/V
log: list[str] = []


@lib.llama_log_callback
def keep_log(level: int, text: bytes, data: Any) -> None:
    log.append(text.decode(errors="replace").strip())


lib.llama_log_set(keep_log, ctypes.c_void_p(0))


class Held:
    """A llama_context, which a history and its fork share, and the bytes that its log says its K/V have."""

    def __init__(self, engine: Engine, n_ctx: int) -> None:
        params = lib.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch = n_ctx, CHUNK_TOKENS, CHUNK_TOKENS
        params.n_threads = params.n_threads_batch = engine.threads
        params.n_seq_max, params.kv_unified = SEQUENCES, True
        del log[:]
        self.raw = lib.llama_init_from_model(engine.model, params)
        if not self.raw:
            raise MemoryError("llama_init_from_model: " + log[-1])
        sizes = re.findall(r"KV buffer size = +([\d.]+) MiB", "\n".join(log))
        self.kv_bytes = round(sum(map(float, sizes)) * 2**20)
        self.memory = lib.llama_get_memory(self.raw)
        self.users = 0


class Context:
    def __init__(self, engine: Engine, held: Held, sequence: int, position: int) -> None:
        self.engine, self.held, self.sequence, self.position = engine, held, sequence, position
        self.batch = lib.llama_batch_init(CHUNK_TOKENS, 0, 1)
        held.users += 1

    def feed(self, ids: Ids) -> Logits:
        for at in range(0, ids.size, CHUNK_TOKENS):
            chunk = ids[at : at + CHUNK_TOKENS]
            self.batch.n_tokens = chunk.size
            for i, token in enumerate(chunk.tolist()):
                self.batch.token[i], self.batch.pos[i] = token, self.position + i
                self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, self.sequence
                self.batch.logits[i] = i == chunk.size - 1
            found = lib.llama_decode(self.held.raw, self.batch)
            if found != 0:
                raise RuntimeError(f"llama_decode returned {found}; log: {log[-1] if log else ''}")
            self.position += chunk.size
        logits = lib.llama_get_logits_ith(self.held.raw, -1)
        return np.ctypeslib.as_array(logits, (self.engine.n_vocab,)).copy()

    def rewind(self, position: int) -> None:
        lib.llama_memory_seq_rm(self.held.memory, self.sequence, position, -1)
        self.position = position

    def fork(self) -> Context:
        lib.llama_memory_seq_cp(self.held.memory, self.sequence, self.sequence + 1, -1, -1)
        return Context(self.engine, self.held, self.sequence + 1, self.position)

    def save(self, path: Path) -> None:
        tokens = (lib.llama_token * 1)()
        if lib.llama_state_seq_save_file(self.held.raw, str(path).encode(), self.sequence, tokens, 0) == 0:
            raise OSError("llama_state_seq_save_file returned 0")
        self.engine.saved[path] = self.position

    def load(self, path: Path) -> None:
        tokens, count = (lib.llama_token * 1)(), ctypes.c_size_t(0)
        read = lib.llama_state_seq_load_file(
            self.held.raw, str(path).encode(), self.sequence, tokens, 1, ctypes.byref(count)
        )
        if read == 0:
            raise OSError("llama_state_seq_load_file returned 0")
        self.position = self.engine.saved[path]

    def close(self) -> None:
        lib.llama_batch_free(self.batch)
        lib.llama_memory_seq_rm(self.held.memory, self.sequence, -1, -1)
        self.held.users -= 1
        if self.held.users == 0:
            lib.llama_free(self.held.raw)
            self.engine.contexts.remove(self.held)


class Engine:
    version = lib.__version__
    weights = "as in the file"
    kv_dtype, element_bytes = "f16", 2
    grows_every, regrows, computes_prompts, suffix = 0, True, True, ".bin"
    ways = {"fork": "seq_cp, unified", "rewind": "seq_rm", "save": "state_seq_save/load_file"}  # noqa: RUF012

    def __init__(self, path: Path, threads: int, dtype: str) -> None:
        self.threads = threads
        self.contexts: list[Held] = []
        self.saved: dict[Path, int] = {}
        self.model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
        if not self.model:
            raise ValueError("llama_model_load_from_file: " + log[-1])
        self.n_vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(self.model))

    def open(self, n_tokens: int) -> Context:
        held = Held(self, n_tokens)
        self.contexts.append(held)
        return Context(self, held, 0, 0)

    def kv_bytes(self) -> int:
        return sum(held.kv_bytes for held in self.contexts)

    def update_seconds(self) -> float:
        return 0.0
