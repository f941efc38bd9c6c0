"""CompiledModel: a model file, ready to run on a device."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from foundry import _core, embedding, machine
from foundry.capacity import CapacityDecision, CapacityPolicy
from foundry.checks import MOST_BYTES, is_default, text, whole
from foundry.errors import ModelFormatError
from foundry.files import ModelFiles, open_model
from foundry.hardware import compiler_for
from foundry.hub import kernel_library, kernels_dir, telling_how_to_mend
from foundry.memory import MemoryPlan, default_memory_limit, estimated_bytes
from foundry.models import build_graph
from foundry.models.overrides import override
from foundry.models.pooling import pooling_of
from foundry.session import Progress, Session
from foundry.token_ids import TokenIds, as_ids, named
from foundry.tokenizer import Tokenizer, check_size

DEFAULT_NEW_TOKENS = 256
STATE_CACHE_BYTES = 256 << 20
_MEMORY = (
    "weights_mapped",
    "weights_private",
    "kv",
    "page_tables",
    "workspace",
    "logits",
    "sampling",
    "total",
    "prefix_cache",
    "promised",
    "limit",
)


def existing(path: str | os.PathLike[str]) -> str:
    """The path as the core takes it; OSError by its cause for one that leads nowhere."""
    name = text("path", os.fsdecode(path))
    os.stat(name)
    return name


def kv_types(kv_dtype: str | tuple[str, str]) -> tuple[str, str]:
    """Of K and of V."""
    pair = (kv_dtype, kv_dtype) if isinstance(kv_dtype, str) else kv_dtype
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise ValueError(f"kv_dtype: expected a type or a pair of them for K and V, found {kv_dtype!r}")
    return text("kv_dtype", pair[0]), text("kv_dtype", pair[1])


_Context = tuple[str | Mapping[str, Any] | None, float | None, int | None]  # rope_scaling, rope_base, max_seq_len


def opened(
    path: str | os.PathLike[str],
    device: str,
    memory_limit: int | None,
    kv_dtype: str | tuple[str, str],
    threads: int | None,
    page_tokens: int,
    chunk_tokens: int,
    prefix_cache_bytes: int = 0,
    header_only: bool = False,
    context: _Context = (None, None, None),
    state_cache_bytes: int = STATE_CACHE_BYTES,
    expert_cache_bytes: int | None = None,
) -> tuple[ModelFiles, _core.Graph, _core.ModelOptions]:
    """A file, its graph and how to load it: what a plan and a load both begin with."""
    limit = 0 if memory_limit is None else whole("memory_limit", memory_limit, 1, MOST_BYTES)
    k_type, v_type = kv_types(kv_dtype)
    name = existing(path)
    files = open_model(name, header_only)
    spare = default_memory_limit()  # before the metadata, which is part of the estimate
    metadata = files.metadata
    quantised = any(kind.startswith("q") for kind in (k_type, v_type))
    graph = build_graph(
        override(metadata, *context), files.shapes, 32 if quantised else 8, files.tables, files.reordered
    )
    check_size(metadata, graph.arch.vocab_size)
    device = text("device", device)
    options = _core.ModelOptions(
        device=device,
        threads=machine.threads() if is_default(threads) else whole("threads", threads, 1),
        memory_limit=limit,
        machine_limit=spare,
        estimated_bytes=estimated_bytes(metadata, graph.arch.vocab_size if files.folder is not None else None),
        cache_dir=str(kernels_dir()),
        kernel_library=kernel_library(),
        compiler=compiler_for(device),
        k_type=k_type,
        v_type=v_type,
        page_tokens=whole("page_tokens", page_tokens, 1),
        chunk_tokens=whole("chunk_tokens", chunk_tokens, 1),
        prefix_cache_bytes=whole("prefix_cache_bytes", prefix_cache_bytes, 0, MOST_BYTES),
        state_cache_bytes=whole("state_cache_bytes", state_cache_bytes, 1, MOST_BYTES),
        expert_cache_bytes=(
            0 if expert_cache_bytes is None else whole("expert_cache_bytes", expert_cache_bytes, 1, MOST_BYTES)
        ),
    )
    return files, graph, options


def _decide(
    arch: _core.Arch, policy: CapacityPolicy | None, prompt_tokens: int, max_new_tokens: int | None
) -> CapacityDecision:
    """New tokens of None or -1 are all that the context has."""
    most = arch.max_seq_len
    new = most if max_new_tokens is None or is_default(max_new_tokens) else max_new_tokens
    return (policy or CapacityPolicy()).decide(prompt_tokens, new, most)


class CompiledModel:
    """Load with ``CompiledModel.load``; open sessions with ``session``.

    Attributes:
        arch: name, n_layers, n_heads, n_kv_heads, head_dim, hidden_size, vocab_size, max_seq_len.
        check_every_step: compare all globals before every step, not only before those that grow a session.
    """

    def __init__(self, files: ModelFiles, core: _core.Model, estimated: int, check_every_step: bool) -> None:
        self._files = files
        self._core = core
        self._estimated = estimated
        self.check_every_step = check_every_step

    @property
    def check_every_step(self) -> bool:
        return self._core.check_every_step

    @check_every_step.setter
    def check_every_step(self, on: bool) -> None:
        self._core.check_every_step = on

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        device: str = "auto",
        memory_limit: int | None = None,
        kv_dtype: str | tuple[str, str] = "f16",
        threads: int | None = None,
        *,
        page_tokens: int = 64,
        chunk_tokens: int = 512,
        prefix_cache_bytes: int = 0,
        state_cache_bytes: int = STATE_CACHE_BYTES,
        expert_cache_bytes: int | None = None,
        rope_scaling: str | Mapping[str, Any] | None = None,
        rope_base: float | None = None,
        max_seq_len: int | None = None,
        check_every_step: bool = False,
        progress: Callable[[float], None] | None = None,
    ) -> CompiledModel:
        """Maps a model's files and prepares its weights.

        Args:
            path: the GGUF file; of a split model any part, and all are opened; or a directory in Hugging Face's form,
                with config.json, safetensors in F32, F16 or BF16, and tokenizer.json.
            device: "auto" (an NVIDIA GPU where there is one, its compiler and room for the model; else "cpu"), "cuda"
                (the first NVIDIA GPU; Ampere and later), "cuda:1" (the second), "metal" (M1 and later), each with
                ":strict" behind it (the same bits however a prompt is cut into steps), "metal:any" (another of
                Apple's GPUs, untried), "cpu", "cpu:<instruction set>" or "reference". ``foundry.devices()`` lists them.
            memory_limit: bytes for weights, workspace, all sessions and what is estimated for tokenizer and Python
                (``MemoryPlan.estimated``). By default what machine, container and `ulimit` can spare
                (``memory.default_memory_limit``), on Metal at most the working set that the GPU recommends, and on
                CUDA what the card has free when the model is loaded.
            kv_dtype: "f32", "f16", "bf16", "q8_0" or "q4_0", or a pair for K and V apart. Pages hold the dims of a head
                in whole eights, and, where K or V is quantised, in whole blocks of 32.
            threads: of the device; by default (None or -1) the processors that this process may run on, and no
                more than its container's share of them.
            page_tokens: tokens of a page, a divisor of 256.
            chunk_tokens: rows of one step; prefill goes in chunks of this.
            prefix_cache_bytes: pages of finished prompts kept for sessions that begin alike, at most this.
            state_cache_bytes: of recurrent layers' states that a session holds, so that it can go back without
                computing all again (``Session.replay``); at least six and at most 36 states are held.
            expert_cache_bytes: for experts that are packed at once, of all layers; on "cpu" they are packed when rows
                are first routed to them, and those used longest ago make room. By default for all of them where a
                session of 4,096 tokens fits beside them into the memory limit, else for as many as leave such a session
                room, and contexts a fourth of what the rest of the model leaves: a file may be larger than memory.
                Results are the same to the bit.
            rope_scaling: how the context is stretched, in place of the file's way: "none", "linear:2", "yarn:4",
                "yarn:4:32768" (factor and original context) or a mapping with type, factor, original_context_length,
                attention_factor, beta_fast and beta_slow. The context then is the original one times the factor.
            rope_base: in place of the file's.
            max_seq_len: the context in place of the file's. A longer one is warned of. Models with LongRoPE take their
                short factors where it is within the original context.
            progress: called with the share of weights prepared, 0 to 1.

        Raises:
            OSError: there is no such file (FileNotFoundError), or the system refused a descriptor, a read or a thread;
                it has errno and the file's name.
            ModelFormatError: the file is damaged or not supported.
            MemoryLimitError: weights and workspace do not fit, and nothing was allocated; or the system has no memory.
            ValueError: an argument makes no sense.
        """
        with telling_how_to_mend(path):
            files, graph, options = opened(
                path,
                device,
                memory_limit,
                kv_dtype,
                threads,
                page_tokens,
                chunk_tokens,
                prefix_cache_bytes,
                context=(rope_scaling, rope_base, max_seq_len),
                state_cache_bytes=state_cache_bytes,
                expert_cache_bytes=expert_cache_bytes,
            )
            core = _core.Model(files.weights, graph, options, progress)
        return CompiledModel(files, core, options.estimated_bytes, check_every_step)

    @staticmethod
    def plan_file(
        path: str | os.PathLike[str],
        prompt_tokens: int = 0,
        max_new_tokens: int | None = DEFAULT_NEW_TOKENS,
        policy: CapacityPolicy | None = None,
        all_logits: bool = False,
        *,
        device: str = "auto",
        memory_limit: int | None = None,
        kv_dtype: str | tuple[str, str] = "f16",
        threads: int | None = None,
        page_tokens: int = 64,
        chunk_tokens: int = 512,
        state_cache_bytes: int = STATE_CACHE_BYTES,
        expert_cache_bytes: int | None = None,
        rope_scaling: str | Mapping[str, Any] | None = None,
        rope_base: float | None = None,
        max_seq_len: int | None = None,
    ) -> MemoryPlan:
        """What ``load`` and then such a run take, to the byte, from the file's header alone: nothing is allocated and
        no weight is read, so it answers as fast for a file of any size. Arguments are those of ``load`` and ``plan``.

        A run that does not fit is no error: the plan says what is needed and what is available.

        Raises:
            OSError: as ``load``.
            ModelFormatError: the header is damaged, or asks for what is not supported.
            ContextOverflowError: the prompt passes the model's ``max_seq_len``.
            ValueError: an argument makes no sense.
        """
        with telling_how_to_mend(path):
            files, graph, options = opened(
                path,
                device,
                memory_limit,
                kv_dtype,
                threads,
                page_tokens,
                chunk_tokens,
                header_only=True,
                context=(rope_scaling, rope_base, max_seq_len),
                state_cache_bytes=state_cache_bytes,
                expert_cache_bytes=expert_cache_bytes,
            )
            decision = _decide(graph.arch, policy, prompt_tokens, max_new_tokens)
            rows = prompt_tokens if all_logits else 0
            found = _core.plan_file(files.weights, graph, options, decision.initial, decision.reserved, rows)
        return MemoryPlan.of(found, decision.reserved, options.estimated_bytes)

    @property
    def arch(self) -> _core.Arch:
        return self._core.arch

    @property
    def device(self) -> str:
        """The device and its instruction set or GPU, "cpu:avx512", "metal:Apple M3", "cuda:NVIDIA H100 80GB HBM3"."""
        return f"{self._core.device}:{self._core.isa}"

    @property
    def threads(self) -> int:
        return self._core.threads

    @cached_property
    def tokenizer(self) -> Tokenizer:
        tokenizer = Tokenizer(self._files.metadata, self._files.folder)
        if tokenizer.vocab_size > self.arch.vocab_size:  # of GGUF files that is refused before they are loaded
            raise ModelFormatError(
                f"{self._files.folder}: tokenizer.json: expected at most {self.arch.vocab_size} tokens, the rows of the"
                f" embedding, found {tokenizer.vocab_size}"
            )
        return tokenizer

    def plan(
        self,
        prompt_tokens: int = 0,
        max_new_tokens: int | None = DEFAULT_NEW_TOKENS,
        policy: CapacityPolicy | None = None,
        all_logits: bool = False,
    ) -> MemoryPlan:
        """What such a run takes, to the byte; allocates nothing. ``all_logits`` counts [prompt_tokens, vocab] f32."""
        decision = _decide(self.arch, policy, prompt_tokens, max_new_tokens)
        found = self._core.plan(decision.initial, decision.reserved, prompt_tokens if all_logits else 0)
        return MemoryPlan.of(found, decision.reserved, self._estimated)

    def memory(self) -> dict[str, int]:
        """Bytes allocated now: weights_mapped, weights_private, kv, page_tables, workspace, logits, sampling (as in
        ``MemoryPlan``), total; promised (of kv), limit, estimated (beside the total), and prefix_cache, which is a part
        of kv."""
        found = self._core.memory()
        return {name: getattr(found, name) for name in _MEMORY} | {"estimated": self._estimated}

    def drop_prefixes(self) -> int:
        """Lets go of the prefix cache, but for pages that sessions hold too. Returns the bytes given back.

        What this process has freed, and its C library keeps for the next who asks, goes back to the system with it.
        """
        return self._core.drop_prefixes()

    def prefixes(self) -> list[dict[str, int]]:
        """The prefix cache as runs of pages without a branch, each behind the one that it goes on from: ``parent`` (its
        place in this list, -1 for none), pages, tokens, bytes, and ``shared``, the pages that sessions hold too."""
        runs: list[dict[str, int]] = []
        path: list[int] = []  # by depth, the run that the last page of that depth is in
        goes_on = False
        for page in self._core.prefix_pages():
            if not goes_on:
                parent = path[page.depth - 1] if page.depth else -1
                runs.append({"parent": parent, "pages": 0, "tokens": 0, "bytes": 0, "shared": 0})
            runs[-1]["pages"] += 1
            runs[-1]["tokens"] += page.tokens
            runs[-1]["bytes"] += page.bytes
            runs[-1]["shared"] += page.shared
            path[page.depth :] = [len(runs) - 1]
            goes_on = page.children == 1
        return runs

    def session(
        self,
        prompt_tokens: int = 0,
        max_new_tokens: int | None = DEFAULT_NEW_TOKENS,
        policy: CapacityPolicy | None = None,
    ) -> Session:
        """A session that is promised prompt + new tokens + headroom (at most ``max_seq_len``, and that where the new
        tokens are None or -1); past that it grows on demand, as far as model and memory go.

        Raises:
            MemoryLimitError: that can't be promised; the message has the figures.
            ValueError: a directory of an embedding model that has no weights for text.
        """
        self._require_text()
        decision = _decide(self.arch, policy, prompt_tokens, max_new_tokens)
        session = Session(self, self._core.session(decision.initial, decision.reserved, decision.step))
        session.check_consistency()
        return session

    def restore(
        self,
        path: str | os.PathLike[str],
        max_new_tokens: int | None = DEFAULT_NEW_TOKENS,
        policy: CapacityPolicy | None = None,
    ) -> Session:
        """The session that ``Session.save`` wrote, promised its tokens, the new ones and headroom.

        It is ready at once: the step that first needs its pages reads and checks them. Until then the file stays open:
        what is read is the file that was checked, whatever has its name by then. The first save or restore of a model
        reads the model's file once, to tell its weights from others.

        Raises:
            FileNotFoundError: there is no such file.
            OSError: the system refused a descriptor or a read.
            ModelFormatError: another model, device or layout, or damaged; a page that is damaged or cut off is found by
                that step. Or the model's own file was written to since it was loaded.
            MemoryLimitError: its pages can't be promised.
        """
        self._require_text()
        path = existing(path)
        decision = _decide(self.arch, policy, 0, max_new_tokens)
        session = Session(self, self._core.restore(path, decision.reserved, decision.step))
        session.check_consistency()
        return session

    def forward(
        self, batch: Sequence[tuple[Session, TokenIds]], *, allow_nonfinite: bool = False
    ) -> list[npt.NDArray[np.float32]]:
        """One step over several sessions, ragged; all or none. Returns each one's last logits, [vocab] float32.

        Raises:
            ValueError: a session twice, or one of another model.
            NumericError: logits with a NaN or +infinity, or nothing but -infinity, unless ``allow_nonfinite``.
        """
        sessions = [session for session, _ in batch]
        with named(*sessions):
            return self._core.forward([(session._core, as_ids(ids)) for session, ids in batch], allow_nonfinite)

    @property
    def pooling(self) -> str | None:
        """How the files say that embeddings are pooled: "mean", "cls" or "last"; None where they do not."""
        return pooling_of(self._files.metadata)

    def embed(
        self,
        texts: embedding.Texts,
        *,
        normalize: bool | None = None,
        dimensions: int | None = None,
        pooling: str | None = None,
        progress: Progress | None = None,
    ) -> npt.NDArray[np.float32]:
        """A row of numbers for each text, pooled of the hidden states behind the last norm: [texts, hidden] float32.

        A row depends on its text alone, and not on the texts beside it; on GPUs as logits do. Texts run together, in
        steps shared with all sessions: a long one alone, of short ones as many as a step has rows and memory has room
        for. What they hold of it is given back.

        Args:
            texts: a text, token ids, or a list of either. A text gets BOS and EOS as its file says, token ids nothing.
            normalize: rows are 1 long. By default as the files say: they are, but for a directory whose modules.json
                has no Normalize.
            dimensions: of each row the first so many, normalised without the others, as Matryoshka models are trained.
            pooling: "mean", "cls" (the first token's) or "last" in place of the files', of any model here.
            progress: called with (tokens done, tokens in all) as they run.

        Raises:
            ValueError: the model names no pooling, or a text has no token, or an id outside the vocabulary.
            ContextOverflowError: a text is longer than ``max_seq_len``. Nothing is cut.
            MemoryLimitError: the pages of a text can't be had.
            NumericError: a hidden state is not finite; ``session`` is the text's place.
        """
        how = embedding.pooling_for(self._files.metadata, pooling)
        if dimensions is not None:
            whole("dimensions", dimensions, 1, self.arch.hidden_size)
        rows = self._core.embed(embedding.ids_of(texts, lambda: self.tokenizer), how, progress)
        return embedding.finished(rows, dimensions, self._files.normalises if normalize is None else normalize)

    def _require_text(self) -> None:
        if not self._files.makes_text:
            raise ValueError(
                "session: expected a model that makes text, found one that makes embeddings alone: it has no"
                " lm_head.weight, and by config.json the output's weights are not the embedding's"
            )

    def __repr__(self) -> str:
        return f"CompiledModel({self.arch!r}, device='{self.device}', threads={self.threads})"
