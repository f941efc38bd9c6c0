"""llama.cpp through llama-cpp-python's low-level bindings: llama_decode on batches, one context for each setup.

Several histories are as its batched bench has them by default: each in a K/V stream of its own.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import llama_cpp as lib
import numpy as np

from bench.peers.engines import CHUNK_TOKENS, Ids, Setup, random_ids
from bench.peers.tiling import tile_state

KV_TYPES = {"f16": lib.GGML_TYPE_F16, "q8_0": lib.GGML_TYPE_Q8_0}
log: list[str] = []


@lib.llama_log_callback
def keep_log(level: int, text: bytes, data: Any) -> None:
    log.append(text.decode(errors="replace").strip())


lib.llama_log_set(keep_log, ctypes.c_void_p(0))


class Engine:
    def __init__(self, folder: Path) -> None:
        lib.llama_backend_init()
        self._loaded: tuple[str, bool] | None = None
        self._context: Any = None
        self._seeds: dict[Setup, bytes] = {}

    def versions(self) -> dict[str, str]:
        info = lib.llama_print_system_info().decode()
        return {"llama-cpp-python": lib.__version__, "llama.cpp was built with": info.strip(" |")}

    def open(self, setup: Setup) -> str:
        if self._context:
            lib.llama_batch_free(self._batch)
            lib.llama_free(self._context)
            self._context = None
        if self._loaded != (setup.path, setup.gpu):
            if self._loaded:
                lib.llama_model_free(self._model)
            params = lib.llama_model_default_params()
            params.n_gpu_layers = 999 if setup.gpu else 0
            self._model = lib.llama_model_load_from_file(setup.path.encode(), params)
            if not self._model:
                self._loaded = None
                raise ValueError(f"llama_model_load_from_file: {log[-1]}")
            self._loaded = (setup.path, setup.gpu)
            self._seeds.clear()
        self._depth, self._sequences = setup.depth, setup.sequences
        self._context = self._new_context(setup)
        self._memory = lib.llama_get_memory(self._context)
        self._batch = lib.llama_batch_init(CHUNK_TOKENS, 0, 1)
        self._positions = [0] * setup.sequences
        self._kept: bytes | None = None  # the first history, where it can't be cut
        return self._fill(setup)

    def forward(self, ids: Ids) -> None:
        for at in range(0, ids.size, CHUNK_TOKENS):
            chunk = ids[at : at + CHUNK_TOKENS].tolist()
            self._decode([(token, 0, i == len(chunk) - 1) for i, token in enumerate(chunk)])

    def step(self, ids: Ids) -> None:
        self._decode([(token, sequence, True) for sequence, token in enumerate(ids.tolist())])

    def generate(self, n: int) -> None:
        """Given tokens, none of them drawn: what its own bench counts as generation."""
        for ids in random_ids(n * self._sequences, 5).reshape(n, self._sequences):
            self.step(ids)

    def rewind(self) -> None:
        for sequence in range(self._sequences):
            if self._kept is None or not self._depth:
                lib.llama_memory_seq_rm(self._memory, sequence, self._depth, -1)
                continue
            lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)  # a state can't be cut
            self._restore(self._kept)
        self._positions = [self._depth] * self._sequences

    def first_token(self, text: str) -> None:
        vocab, data = lib.llama_model_get_vocab(self._model), text.encode()
        tokens = (lib.llama_token * (len(data) + 8))()
        n = lib.llama_tokenize(vocab, data, len(data), tokens, len(tokens), True, True)
        self.forward(np.array(tokens[:n], np.int32))
        logits = lib.llama_get_logits_ith(self._context, -1)
        np.ctypeslib.as_array(logits, (lib.llama_vocab_n_tokens(vocab),)).argmax()

    def _new_context(self, setup: Setup) -> Any:
        params = lib.llama_context_default_params()
        params.n_ctx = setup.context * setup.sequences
        params.n_batch = params.n_ubatch = CHUNK_TOKENS
        params.n_threads = params.n_threads_batch = setup.threads
        params.n_seq_max, params.kv_unified = setup.sequences, False
        params.type_k = params.type_v = KV_TYPES[setup.kv]
        params.flash_attn_type = 1 if setup.flash_attention else 0
        context = lib.llama_init_from_model(self._model, params)
        if not context:
            raise ValueError(f"llama_init_from_model: {log[-1]}")
        return context

    def _fill(self, setup: Setup) -> str:
        """The histories, and how they came about."""
        if setup.depth == 0:
            return "empty"
        computed = setup.computed
        if setup.depth == computed:
            self.forward(random_ids(computed, 1))
            for sequence in range(1, setup.sequences):
                lib.llama_memory_seq_cp(self._memory, 0, sequence, -1, -1)
            self._positions = [computed] * setup.sequences
            if setup.whole:
                self._kept = self._state()
            return "computed" if setup.sequences == 1 else "computed once, copied"
        self._restore(tile_state(self._seed(setup, computed), setup.depth))
        self._positions = [setup.depth]
        return f"tiled from {computed:,}"

    def _seed(self, setup: Setup, computed: int) -> bytes:
        """The state of the first tokens, as llama_state_seq_get_data has it; computed once for each kind of K/V."""
        key = Setup(setup.path, setup.kv, flash_attention=setup.flash_attention, gpu=setup.gpu)
        if key not in self._seeds:
            self.forward(random_ids(computed, 1))
            self._seeds[key] = self._state()
            lib.llama_memory_seq_rm(self._memory, 0, -1, -1)
        return self._seeds[key]

    def _state(self) -> bytes:
        state = bytearray(lib.llama_state_seq_get_size(self._context, 0))
        if lib.llama_state_seq_get_data(self._context, as_bytes(state), len(state), 0) != len(state):
            raise ValueError(f"llama_state_seq_get_data: {log[-1]}")
        return bytes(state)

    def _restore(self, state: bytes) -> None:
        if lib.llama_state_seq_set_data(self._context, as_bytes(state), len(state), 0) == 0:
            raise ValueError(f"llama_state_seq_set_data: {log[-1]}")

    def _decode(self, rows: list[tuple[int, int, bool]]) -> None:
        """A step over rows of token, history, and whether its logits are wanted."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for i, (token, sequence, wanted) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, self._positions[sequence]
            batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = 1, sequence, wanted
            self._positions[sequence] += 1
        if (found := lib.llama_decode(self._context, batch)) != 0:
            raise ValueError(f"llama_decode: expected 0, found {found}; {log[-1] if log else ''}")
        lib.llama_synchronize(self._context)


def as_bytes(data: bytes | bytearray) -> Any:
    """As the bindings take a buffer; bytes are only read."""
    if isinstance(data, bytes):
        return ctypes.cast(data, ctypes.POINTER(ctypes.c_uint8))
    return (ctypes.c_uint8 * len(data)).from_buffer(data)
