"""The 320-entry byte-level BPE vocabulary that every tiny model shares."""

from __future__ import annotations

from gguf import TokenType
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from gguf_model import Vocabulary

SIZE = 320
# Ġ is the space byte in GPT-2's mapping. In rank order; every merge makes one new token.
MERGES = """
Ġ t|h e|Ġ a|i n|Ġt he|e r|o n|r e|Ġ s|a t|e n|o r|Ġ w|i s|Ġ c|in g|Ġ b|o u|a n|Ġ o
Ġ f|e s|l l|Ġ p|i t|Ġo f|e d|a r|Ġ in|Ġa n|Ġan d|a l|Ġ m|Ġt o|o m|Ġ d|i c|l e|Ġ h|Ġh e
r o|i on|v e|Ġ Ġ|ĠĠ ĠĠ|s e|d e|1 0|Ġw or|l d
""".strip().replace("\n", "|").split("|")
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
FIRST_CONTROL = 256 + len(MERGES)

# The split expressions the two families' own tokenizers use before the merges.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Marks are parts of words.
QWEN35_SPLIT = QWEN2_SPLIT.replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(
    r"\s\p{L}\p{N}", r"\s\p{L}\p{M}\p{N}")

TEXTS = [
    "The heat of the house",
    "He said: \"it's 1010 o'clock\", and then he'll go on.",
    "    for i in range(10):\n        total += weights[i]\n\n",
    "na\u00efve caf\u00e9 \u2014 \u4e16\u754c \U0001f525!",
    "<|im_start|>user\nhello world<|im_end|>\n",
    " \t\r\n  trailing  ",
    "",
]


def byte_tokens() -> list[str]:
    """GPT-2's printable stand-ins of the 256 bytes, printable bytes first: the ids 0 ..< 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + i) for i in range(len(others))]


def tokens() -> list[str]:
    """All 320 tokens: bytes, merge results, control tokens, padding."""
    known = byte_tokens() + [merge.replace(" ", "") for merge in MERGES] + CONTROLS
    return known + [f"[PAD{token}]" for token in range(len(known), SIZE)]


def gguf_vocabulary(pre: str) -> Vocabulary:
    """The vocabulary for GGUF, with `pre` as its pre-tokenizer."""
    control_end = FIRST_CONTROL + len(CONTROLS)
    types = [TokenType.NORMAL] * FIRST_CONTROL + [TokenType.CONTROL] * len(CONTROLS)
    types += [TokenType.UNUSED] * (SIZE - control_end)
    special_ids = {"eos": control_end - 1, "padding": FIRST_CONTROL}
    return Vocabulary(pre, tokens(), types, MERGES, special_ids, add_bos=False)


def tokenizer(pre: str) -> Tokenizer:
    """The same vocabulary in the `tokenizers` package, the oracle for the text cases."""
    ids = {token: index for index, token in enumerate(tokens()[:FIRST_CONTROL])}
    result = Tokenizer(models.BPE(ids, [tuple(merge.split(" ")) for merge in MERGES]))
    result.normalizer = normalizers.NFC()
    if pre.startswith("qwen"):
        pattern = QWEN2_SPLIT if pre == "qwen2" else QWEN35_SPLIT
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        result.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    else:
        result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    result.add_special_tokens(CONTROLS)
    return result


def text_cases(pre: str) -> list[dict]:
    """Texts and their token ids, control tokens recognised."""
    oracle = tokenizer(pre)
    return [{"text": text, "ids": oracle.encode(text).ids} for text in TEXTS]
