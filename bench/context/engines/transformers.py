"""Hugging Face transformers on torch's CPU: ``DynamicCache``, whose every token concatenates K and V anew."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from bench.context import models
from bench.context.engines import CHUNK_TOKENS, Ids, Logits


class TimedCache(transformers.DynamicCache):
    """DynamicCache, with the seconds that its updates took."""

    seconds = 0.0

    def update(self, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        found = super().update(*args, **kwargs)
        TimedCache.seconds += time.perf_counter() - began
        return found


class Context:
    def __init__(self, engine: Engine, cache: TimedCache, position: int = 0) -> None:
        self.engine, self.cache, self.position = engine, cache, position
        engine.contexts.append(self)

    @torch.inference_mode()
    def feed(self, ids: Ids) -> Logits:
        for at in range(0, ids.size, CHUNK_TOKENS):
            chunk = torch.from_numpy(ids[at : at + CHUNK_TOKENS].astype(np.int64))[None]
            found = self.engine.model(chunk, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
            self.position += chunk.shape[1]
        logits: Logits = found.logits[0, -1].float().numpy()
        return logits

    def rewind(self, position: int) -> None:
        self.cache.crop(position - self.position)
        self.position = position

    def fork(self) -> Context:
        return Context(self.engine, copy.deepcopy(self.cache), self.position)

    def save(self, path: Path) -> None:
        torch.save(self.cache, path)

    def load(self, path: Path) -> None:
        self.cache = torch.load(path, weights_only=False)
        self.position = int(self.cache.get_seq_length())

    def tensors(self) -> list[torch.Tensor]:
        layers: list[Any] = self.cache.layers
        return [t for layer in layers if layer.is_initialized for t in (layer.keys, layer.values)]

    def close(self) -> None:
        self.engine.contexts.remove(self)
        self.cache = TimedCache()


class Engine:
    version = f"{transformers.__version__}, torch {torch.__version__.split('+')[0]}"
    grows_every, regrows, computes_prompts, suffix = 1, True, True, ".pt"
    ways = {"fork": "copy.deepcopy", "rewind": "crop", "save": "torch.save, load"}  # noqa: RUF012

    def __init__(self, path: Path, threads: int, dtype: str) -> None:
        torch.set_num_threads(threads)
        kind = getattr(torch, dtype)
        config = models.read_config(path)
        fields = config.hugging_face()
        del fields["model_type"]
        self.model: Any = transformers.LlamaForCausalLM(transformers.LlamaConfig(**fields)).to(kind).eval()
        state = {name: torch.from_numpy(values).to(kind) for name, values in models.read_weights(path, config)}
        absent = self.model.load_state_dict(state, strict=False)
        if absent.unexpected_keys or set(absent.missing_keys) - {"lm_head.weight"}:
            raise ValueError(f"weights that don't fit: {absent}")
        self.model.tie_weights()
        self.weights = f"dequantised, {dtype}"
        self.kv_dtype, self.element_bytes = dtype, kind.itemsize
        self.contexts: list[Context] = []

    def open(self, n_tokens: int) -> Context:
        return Context(self, TimedCache())

    def kv_bytes(self) -> int:
        """Whole storages: a cropped tensor is a view that keeps all of its own alive."""
        storages = [t.untyped_storage() for context in self.contexts for t in context.tensors()]
        return sum({s.data_ptr(): s.nbytes() for s in storages}.values())

    def update_seconds(self) -> float:
        return TimedCache.seconds
