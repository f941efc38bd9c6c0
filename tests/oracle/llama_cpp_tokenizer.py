"""llama.cpp's tokenizer, out of the ``xllamacpp`` wheel by ctypes: its Python interface has no such call."""

from __future__ import annotations

import ctypes as c
import importlib.util
from pathlib import Path


class _Params(c.Structure):
    """llama_model_params (include/llama.h)."""

    _fields_ = [
        ("devices", c.c_void_p),
        ("tensor_buft_overrides", c.c_void_p),
        ("n_gpu_layers", c.c_int32),
        ("split_mode", c.c_int),
        ("load_mode", c.c_int),
        ("lazy_mode", c.c_int),
        ("main_gpu", c.c_int32),
        ("tensor_split", c.c_void_p),
        ("progress_callback", c.c_void_p),
        ("progress_callback_user_data", c.c_void_p),
        ("kv_overrides", c.c_void_p),
        ("vocab_only", c.c_bool),
        ("other_flags", c.c_bool * 5),
    ]


def library() -> c.CDLL:
    found = importlib.util.find_spec("xllamacpp")
    assert found is not None and found.origin is not None
    library = c.CDLL(str(next(Path(found.origin).parent.glob("xllamacpp*.so"))))
    library.llama_model_default_params.restype = _Params
    library.llama_model_load_from_file.restype = c.c_void_p
    library.llama_model_load_from_file.argtypes = [c.c_char_p, _Params]
    library.llama_model_get_vocab.restype = c.c_void_p
    library.llama_model_get_vocab.argtypes = [c.c_void_p]
    library.llama_tokenize.argtypes = [
        *(c.c_void_p, c.c_char_p, c.c_int32, c.POINTER(c.c_int32)),
        *(c.c_int32, c.c_bool, c.c_bool),
    ]
    library.llama_model_free.argtypes = [c.c_void_p]
    log = c.CFUNCTYPE(None, c.c_int, c.c_char_p, c.c_void_p)
    library.silent = log(lambda *_: None)
    library.llama_log_set.argtypes = [log, c.c_void_p]
    library.llama_log_set(library.silent, None)
    library.llama_backend_init()
    return library


class Tokenizer:
    """Of a GGUF file, which needs no tensors."""

    def __init__(self, path: Path) -> None:
        self._library = library()
        params = self._library.llama_model_default_params()
        params.vocab_only = True
        self._model = self._library.llama_model_load_from_file(str(path).encode(), params)
        assert self._model, f"{path} was refused"
        self._vocab = self._library.llama_model_get_vocab(self._model)

    def encode(self, text: str, parse_special: bool) -> list[int]:
        data = text.encode()
        ids = (c.c_int32 * (len(data) + 16))()
        n = self._library.llama_tokenize(self._vocab, data, len(data), ids, len(ids), False, parse_special)
        assert n >= 0
        return list(ids[:n])

    def close(self) -> None:
        self._library.llama_model_free(self._model)
