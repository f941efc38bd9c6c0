"""mlx-lm, here on the CPU: ``KVCache``, concatenated with 256 more tokens whenever it is full."""

from __future__ import annotations

import copy
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models import cache as caches
from mlx_lm.models.llama import Model, ModelArgs

from bench.context import models
from bench.context.engines import CHUNK_TOKENS, Ids, Logits


class Context:
    def __init__(self, engine: Engine, cache: list[Any]) -> None:
        self.engine, self.cache = engine, cache
        engine.contexts.append(self)

    @property
    def position(self) -> int:
        return int(self.cache[0].offset)

    def feed(self, ids: Ids) -> Logits:
        for at in range(0, ids.size, CHUNK_TOKENS):
            found = self.engine.model(mx.array(ids[at : at + CHUNK_TOKENS])[None], cache=self.cache)[0, -1]
            mx.eval(found, [layer.state[:2] for layer in self.cache])
            if ids.size > 1:
                mx.clear_cache()  # as mlx-lm's own generate does after each part of a prompt
        return np.array(found.astype(mx.float32))

    def fill_random(self, n: int) -> None:
        """Random K/V through the cache's own update, in the steps that a prompt would take."""
        config = self.engine.config
        for at in range(0, n, CHUNK_TOKENS):
            shape = (1, config.n_kv_heads, min(CHUNK_TOKENS, n - at), config.head_dim)
            for layer in self.cache:
                layer.update_and_fetch(*(mx.random.normal(shape, self.engine.dtype) for _ in "kv"))
            mx.eval([layer.state[:2] for layer in self.cache])

    def rewind(self, position: int) -> None:
        caches.trim_prompt_cache(self.cache, self.position - position)

    def fork(self) -> Context:
        forked = copy.deepcopy(self.cache)
        mx.eval([layer.state[:2] for layer in forked])
        return Context(self.engine, forked)

    def save(self, path: Path) -> None:
        caches.save_prompt_cache(str(path), self.cache)

    def load(self, path: Path) -> None:
        self.cache = caches.load_prompt_cache(str(path))

    def close(self) -> None:
        self.engine.contexts.remove(self)
        self.cache = []


class Engine:
    version = f"{version('mlx-lm')}, mlx {version('mlx')}"
    grows_every, regrows, suffix = 256, False, ".safetensors"
    computes_prompts = mx.metal.is_available()
    ways = {"fork": "copy.deepcopy", "rewind": "trim_prompt_cache", "save": "save/load_prompt_cache"}  # noqa: RUF012

    def __init__(self, path: Path, threads: int, dtype: str) -> None:
        self.dtype = getattr(mx, dtype)
        self.config = models.read_config(path)
        self.model = Model(ModelArgs.from_dict(self.config.hugging_face()))
        weights = models.read_weights(path, self.config)
        self.model.load_weights([(name, mx.array(values).astype(self.dtype)) for name, values in weights])
        mx.eval(self.model.parameters())
        mx.clear_cache()
        self.weights = f"dequantised, {dtype}"
        self.kv_dtype, self.element_bytes = dtype, self.dtype.size
        self.contexts: list[Context] = []

    def open(self, n_tokens: int) -> Context:
        return Context(self, caches.make_prompt_cache(self.model))

    def kv_bytes(self) -> int:
        return sum(layer.nbytes for context in self.contexts for layer in context.cache)

    def update_seconds(self) -> float:
        return 0.0
