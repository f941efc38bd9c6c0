"""Text to tokens and back, from a GGUF file's own metadata, on the library ``tokenizers``."""

from foundry.tokenizer.codec import Tokenizer
from foundry.tokenizer.stream import StreamDecoder
from foundry.tokenizer.vocabulary import check_size

__all__ = ["StreamDecoder", "Tokenizer", "check_size"]
