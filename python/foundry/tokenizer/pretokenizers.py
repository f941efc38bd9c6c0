r"""What ``tokenizer.ggml.pre`` stands for: how BPE splits a text, and what holds where the file does not say.

A table, and nothing else: rules by their own names, and llama.cpp's names of them. Names, rules and flags are those of
llama.cpp (src/llama-vocab.cpp, src/unicode.cpp: llm_tokenizer_bpe, llama_vocab::impl::load). Where its expression
differs from that of a model's own tokenizer, llama.cpp's is what stands here: its \p{Lu} and the like are all letters,
its \d is ASCII's, letters other than ASCII's have no case,
and no range of characters has a space in it.
"""

from __future__ import annotations

from dataclasses import dataclass

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|" + _SPACES
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_LLAMA3 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTION}|{_WORD}|\p{{N}}|{_REST}"
_ASCII_THEN_LETTERS = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
_DEEPSEEK3 = rf"{_ASCII_THEN_LETTERS}| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}"
_CJK = "[一-龥\u3040-ゟ゠-ヿ]+"
_CJK_DEEPSEEK = r"[[一-龥ࠀ-一가-퟿]&&\S]+"
# Threes of digits from the right; what is before the first of them goes with it.
_DIGITS_FROM_THE_RIGHT = r"\P{N}*\p{N}{1,3}(?=(?:\p{N}{3})*(?!\p{N}))"
_ANY_LETTERS = r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]*[\p{L}\p{M}]+"
_SENTENCES = r" ?[^(\s|.,!?…。，、।۔،)]+"


def _cased(letters: str) -> str:
    """Words that are split where lower case becomes upper case."""
    upper, lower = rf"[{letters}&&[^a-z]]", rf"[{letters}&&[^A-Z]]"
    first = r"[^\r\n\p{L}\p{N}]?"
    return rf"{first}{upper}*{lower}+%s|{first}{upper}+{lower}*%s"


_TEKKEN = _cased(r"\p{L}") % ("", "") + r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
_GPT4O_REST = r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + _SPACES
_MAY_CONTRACT = _CONTRACTION + "?"
_HAN = (
    "一-\u9fff㐀-䶿\U00020000-\U0002a6df\U0002a700-\U0002b73f\U0002b740-\U0002b81f\U0002b820-\U0002ceaf"
    "\U0002ceb0-\U0002ebef\uf900-\ufaff\U0002f800-\U0002fa1f"
)
# Letters of Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee, Glagolitic, Coptic and Deseret that have case.
_CASED_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ"
    "\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ"
    "𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)

RULES: dict[str, tuple[str, ...]] = {
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]"),
    "gpt-2": (_GPT2,),
    "digits, gpt-2": (r"\p{N}", _GPT2),
    "llama-3": (_LLAMA3,),
    "qwen2": (_QWEN2,),
    "qwen3.5": (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}|"
        rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_SPACES}",
    ),
    "jais-2": (
        rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|"
        + "|".join(rf"\s{{{n}}}(?!\S)" for n in ("512", "256", "128", "64", "32", "16", "8", "4", "1,2"))
        + r"|\s",
    ),
    "deepseek-llm": (
        r"[\r\n]",
        rf"\s?[{_CASED_LETTERS}]+",
        "\\s?[!-/:-~！-／：-～‘-‟\u3001-。]+",
        r"\s+\z",
        _CJK_DEEPSEEK,
        r"\p{N}+",
    ),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _CJK_DEEPSEEK, r"\p{N}"),
    "deepseek-3": (r"\p{N}{1,3}", _CJK, _DEEPSEEK3),
    "spark-2.5": (
        r"\p{N}{1,3}",
        _CJK,
        rf"{_ASCII_THEN_LETTERS}| ?[\p{{P}}\p{{S}}]+|[\r\n]|\s+(?!\S)|\s+",
        r"\p{N}",
    ),
    "youtu": (
        "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + _CJK,
        rf"{_ANY_LETTERS}{_MAY_CONTRACT}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
    ),
    "falcon": (r"[\p{P}\$\+<=>\^~\|`]+", _GPT2, "[0-9][0-9][0-9]"),
    "sentences": (_SENTENCES,),
    "sentences, digits": (_SENTENCES, r"\p{N}"),
    "tekken": (_TEKKEN,),
    "chameleon": (
        "<sentinel:[0-9]+>",
        "IMGIMG[A-I]{1,4}Z",
        r"[\t\n]|    |  ",
        r"\p{N}",
        r"[\p{P}!-/:-@\[-`{-~]",
        _GPT2,
    ),
    "gpt-4o": (_cased(r"\p{L}") % (_MAY_CONTRACT, _MAY_CONTRACT) + _GPT4O_REST,),
    "granite-embedding": (_cased(r"\p{L}\p{M}") % (_MAY_CONTRACT, _MAY_CONTRACT) + _GPT4O_REST,),
    "tiny-aya": (_DIGITS_FROM_THE_RIGHT, _ANY_LETTERS + _MAY_CONTRACT + _GPT4O_REST),
    "kimi-k2": (rf"[{_HAN}]+|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}&&[^{_HAN}]]+{_MAY_CONTRACT}|\p{{N}}{{1,3}}|{_REST}",),
    "superbpe": (r"\p{N}+", r"(?=(?:[0-9]{3})+(?![0-9]))"),
    "bailing": (
        rf"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]|"
        r"\s+(?!\S)|\s+",
    ),
    "seed-coder": (rf"{_CONTRACTION}|{_WORD}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_SPACES}",),
    "ufakzeka": (rf"{_WORD}|\p{{N}}|{_REST}",),
    "afmoe": (
        _DIGITS_FROM_THE_RIGHT,
        "[一-鿿㐀-䶿\u8c48-\ufaff\u3040-ゟ゠-ヿ･-ﾟ⼀-\u2fdf\u0e40-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+",
        _DEEPSEEK3,
    ),
    "lines, qwen2": (r"[^\n]+|\n+", _QWEN2),
    "exaone-moe": (
        rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+|\p{{N}}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
    ),
    "lines": (r"[^\n]+|\n+",),
    "threes, qwen2 with numbers": (r"\p{N}{1,3}", rf"{_CONTRACTION}|{_WORD}|\p{{N}}+|{_REST}"),
    "no whitespace": (r"\S+",),
}


@dataclass(frozen=True)
class PreTokenizer:
    """Attributes:

    splits: regular expressions that split a text, one after the other; what none of them matches is a part too.
    ignores_merges: a part that is a token needs no merges.
    adds_bos: a text begins with BOS where ``tokenizer.ggml.add_bos_token`` is missing.
    byte_level: characters are spelled as bytes; else as they are, with <0xXX> for what has no token.
    escapes_spaces: a space is spelled as SentencePiece does, where ``tokenizer.ggml.escape_whitespaces`` is missing.
    needs_merges: a file without them is damaged.
    always_bos: a text begins with BOS, whatever the file says.
    whole_newlines: newlines that are a token together need no merges.
    """

    splits: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False
    byte_level: bool = True
    escapes_spaces: bool = False
    needs_merges: bool = True
    always_bos: bool = False
    whole_newlines: bool = False


# Rule, llama.cpp's names of it, and flags that are not PreTokenizer's defaults.
_NAMES: list[tuple[str, str, dict[str, bool]]] = [
    ("default", "default", {}),
    (
        "gpt-2",
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code "
        "roberta-bpe mpt olmo jais trillion granite-docling exaone4",
        {},
    ),
    ("digits, gpt-2", "starcoder refact command-r smollm codeshell exaone minerva-7b mellum2", {}),
    (
        "llama-3",
        "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
        {"ignores_merges": True, "adds_bos": True},
    ),
    ("llama-3", "dbrx smaug-bpe chatglm-bpe", {}),
    ("llama-3", "glm4 glm5", {"ignores_merges": True}),
    ("qwen2", "qwen2 deepseek-r1-qwen kormo f2llmv2 stablelm2 megrez hunyuan solar-open grok-2", {}),
    ("qwen3.5", "qwen35", {}),
    ("jais-2", "jais-2", {}),
    ("deepseek-llm", "deepseek-llm", {}),
    ("deepseek-coder", "deepseek-coder", {}),
    ("deepseek-3", "deepseek-v3 hunyuan-dense joyai-llm hy_v4", {}),
    ("spark-2.5", "spark2_5", {}),
    ("youtu", "youtu", {"ignores_merges": True}),
    ("falcon", "falcon", {}),
    ("sentences", "poro-chat bloom gpt3-finnish", {}),
    ("sentences, digits", "viking", {}),
    ("tekken", "tekken", {"ignores_merges": True, "adds_bos": True}),
    ("chameleon", "chameleon", {"adds_bos": True}),
    ("gpt-4o", "gpt-4o llama4 kanana2 talkie minimax-m2", {}),
    ("granite-embedding", "granite-embed-multi-97m", {"ignores_merges": True}),
    ("tiny-aya", "tiny_aya cohere2moe", {}),
    ("kimi-k2", "kimi-k2", {"needs_merges": False}),
    ("superbpe", "superbpe", {}),
    ("bailing", "bailingmoe bailingmoe2 llada-moe", {}),
    ("seed-coder", "seed-coder", {}),
    ("ufakzeka", "ufakzeka", {}),
    ("afmoe", "afmoe", {}),
    ("lines, qwen2", "laguna", {}),
    ("exaone-moe", "exaone-moe", {}),
    (
        "lines",
        "gemma4 granite-embed-multi-311m",
        {"byte_level": False, "escapes_spaces": True, "always_bos": True, "whole_newlines": True},
    ),
    ("lines", "sarvam-moe", {"byte_level": False, "escapes_spaces": True}),
    ("threes, qwen2 with numbers", "minicpm5", {"ignores_merges": True}),
    ("no whitespace", "whitespace", {"byte_level": False}),
]
PRE_TOKENIZERS = {
    name: PreTokenizer(RULES[rule], **flags) for rule, names, flags in _NAMES for name in names.split(" ")
}
