"""Makes the tokenizer fixtures: small vocabularies and what Hugging Face makes of awkward text.

Made with Python 3.11 and tokenizers 0.23.3; the seed below fixes the random cases.

    python Tests/Fixtures/make_tokenizer_fixtures.py --shared ../shared

Writes tokenizer-unicode.json (character classes and normalization, one entry per fact) and
tokenizer-{qwen2,qwen35,olmo,llama-bpe,refact,gpt-4o,kimi-k2,deepseek-v3,deepseek-llm,spm,demo}.json beside itself, and of Kimi-K2's the folder
tiktoken in the form of the package of that name. A fixture of the latter kind holds the vocabulary as a
GGUF file states it (tokens, types, merges, pre) and cases: text as UTF-8 in hexadecimal, the ids of
`encode(add_special_tokens=False)` and, where the vocabulary normalizes, the normalized text.
"""

import argparse
import json
import pathlib
import random
import unicodedata

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, trainers

SEED = 20261121
VOCABULARY_SIZE = 1200
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{DIGITS}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN35 = CL100K.replace("{DIGITS}", "").replace(r"?\p{L}+", r"?[\p{L}\p{M}]+").replace(
    r"\s\p{L}\p{N}", r"\s\p{L}\p{M}\p{N}")
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*{CONTRACTIONS}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK3 = (
    r"\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]" r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
# Letters with case, as the rule spells them out: code points, as some look like others.
DEEPSEEK_LLM_LETTERS = (
    "A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-\u0373"
    "\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481\u048A-\u052F"
    "\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B\u1D6B-\u1D77"
    "\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B\u1F5D"
    "\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB"
    "\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128"
    "\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4"
    "\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF"
    "\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\U00010400-\U0001044F\U000104B0-\U000104D3"
    "\U000104D8-\U000104FB\U00010C80-\U00010CB2\U00010CC0-\U00010CF2\U000118A0-\U000118DF\U0001E900-\U0001E943"
)
DEEPSEEK_LLM = (
    "[\r\n]", rf"\s?[{DEEPSEEK_LLM_LETTERS}]+",
    "\\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+", r"\s+$",
    "[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+",
)
# As o200k, with runs of ideographs by themselves; `&&` is the intersection of classes.
KIMI = "|".join((
    r"[\p{Han}]+",
    *(part.replace(r"\p{M}]", r"\p{M}&&[^\p{Han}]]") for part in O200K.split(r"|\p{N}{1,3}")[:1]),
    r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+",
))

LANGUAGES = """
Der Übergang über die Brücke wäre größer, müßte man nicht über sieben Flüsse gehen.
L'été dernier, où étions-nous ? À l'hôtel, près de la forêt, à côté de l'église.
El niño pequeño soñó con pingüinos; ¿quién lo creería? ¡Nadie, mañana!
Příliš žluťoučký kůň úpěl ďábelské ódy. Zażółć gęślą jaźń.
Съешь же ещё этих мягких французских булок, да выпей чаю. Ещё раз!
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία, είπε ο άνθρωπος.
私は毎朝七時に起きて、駅まで歩きます。東京の夏は暑いですね。カタカナも少し。
我们明天去北京,然后再去上海。你好,世界!一二三四五。
나는 내일 학교에 갑니다. 안녕하세요, 세계!
नमस्ते दुनिया। यह एक परीक्षा है और हम सीख रहे हैं।
السلام عليكم، هذا نص قصير باللغة العربية. رقم ١٢٣.
שלום עולם, זהו טקסט קצר בעברית.
สวัสดีชาวโลก นี่คือข้อความสั้น ๆ
Tôi đang học tiếng Việt, và tôi thấy nó rất thú vị.
Türkçe'de ı ve İ harfleri farklıdır; ğ yumuşaktır.
def encode(text: str) -> list[int]:\n    return [ord(c) for c in text if c != '\\n']
""" * 12

AWKWARD = [
    "", " ", "  ", "\n", "\t", "\r\n", "\r", "a", " a", "a ", "  a", "\n\na", "\t\ta", " \n a",
    "Hello, world!", "I'm you're they'll we've he'd it's don't",
    "I'M YOU'RE THEY'LL WE'VE HE'D IT'S DON'T", "I'm'll'ret've 'S 'T's'", "'sabc 'Sabc ''s '' '",
    "'\u017f '\u017fa x'\u017fy \u017f's", "'LL'Ll'lL 're'Re'rE've'Ve'vE", "l\u2019\u00e9t\u00e9 it\u2019s",
    "1 12 123 1234 12345 1234567890", " 1 22  333\t4444\n55555", "3.14159e-10 0x1F600 1,000,000",
    "\u0661\u0662\u0663\u0664 \u0967\u0968\u0969\u096a \uff11\uff12\uff13\uff14 \u2160\u2161\u2162\u2163 \u00bd\u00bc\u00b2\u00b3",
    "\u4e00\u4e8c\u4e09 \u3007 \U0001d7d8\U0001d7d9\U0001d7da a1b22c333",
    "e\u0301 \u00e9 o\u0302\u0323 \u1ed9 A\u030a \u00c5 \u212b n\u0303o", "\u0301abc \u0301 a\u0301\u0316\u0301",
    "q\u0307\u0323 q\u0323\u0307 s\u0323\u0307 \u1e69 \u1e9b\u0323", "\u1112\u1161\u11ab\u1100\u1173\u11af \ud55c\uae00 \uac00\u11a8",
    "\u0958 \u0915\u093c \u2126 \u03a9 \u037e \u0340\u0341\u0344 \ufb1d \uf900 \uf951", "\U0001d15e \U0001d157\U0001d165 \U000110ab\U00011099",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family", "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 flags",
    "\U0001f44d\U0001f3fd\u2764\ufe0f\u2603\ufe0e 1\ufe0f\u20e3", "smile \U0001f600\U0001f600\U0001f600!",
    "a\u00a0b \u00a0c\u00a0\u00a0d", "a\u200bb \u200b\u200bc \ufeffd \u2060e", "\u2028a\u2029\u2028b \u0085c\u0085\u0085",
    "\u1680\u2000\u2003a\u202f\u205f\u3000b\u180ec", "\x00\x01\x02 a\x00b \x7f\x1b[0m \x0b\x0c\x1c\x1d\x1e\x1f z",
    "line one\r\nline two\r\n\r\nline three\r\r\n\n\r", "x \n y  \n  z \r\n w\t\n", "...\n\n!!!\r\n ???\n \n;;; \n",
    "    if (x == 0) {\n\t\treturn -1; // no\n    }\n\n\n", "for i in range(10):\n        print(f\"{i:>3}\")   \n",
    "<|endoftext|>", "a<|endoftext|>b", "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|<|im_end|>|>", "<|endoftext|><|endoftext|> <|endoftext|>", "<|endoftext", "<|im_end|>\u0338\u0301",
    "  <|im_end|>  x", "<tool_call>{\"a\": 1}</tool_call> <tool_call", "\u212b<|im_end|>\u212b",
    "caf\u00e9\u00e9\u00e9 na\u00efve \u00fcber", "STRASSE stra\u00dfe \u0130\u0131 \u01c5 \ufb01\ufb02",
    "(((((((((())))))))))", "a_b-c.d/e\\f@g#h$i%j^k&l*m", "https://example.org/a?b=c&d=%20#e", "\u201cquoted\u201d \u2014 dash\u2026",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0627\u0644\u0633\u064e\u0651\u0644\u064e\u0627\u0645",
    "\ue000\uf8ff\U000f0000 private", "\ufffd\ufffe\uffff\U0010ffff", "\u0378\u0379 unassigned",
    "the " * 60, "a" * 300, " " * 100 + "x", "\n" * 50, "ab" * 100, "\u00e9" * 90, "\u6f22" * 40, "0" * 100,
]


def runs_of_white_space():
    for character in (" ", "\t", "\n", "\r\n", "\u00a0", "\u3000"):
        for length in (1, 2, 3, 4, 7, 8, 15, 16, 17, 33):
            run = character * length
            yield f"a{run}b{run}"
            yield f"{run}1{run}!{run}\n{run}"


def random_texts(generator, corpus, count):
    ranges = [
        (0x20, 0x7e), (0x00, 0x1f), (0xa0, 0x17f), (0x2b0, 0x36f), (0x370, 0x3ff), (0x400, 0x4ff),
        (0x590, 0x6ff), (0x900, 0x97f), (0xe00, 0xe7f), (0x1100, 0x11ff), (0x1e00, 0x1fff),
        (0x2000, 0x206f), (0x2070, 0x218f), (0x3040, 0x30ff), (0x4e00, 0x4eff), (0xac00, 0xacff),
        (0xf900, 0xfaff), (0xff00, 0xff5e), (0x1d400, 0x1d7ff), (0x1f300, 0x1f64f),
    ]
    snippets = [" ", "  ", "\n", "\r\n", "\t", "'s", "'LL", "'", "1", "23", "e\u0301", "\u0323", "\u0307",
                "<|im_end|>", "<|endoftext|>", "<tool_call>", "...", "the", " the", " and", "A", "\u00e9"]
    for index in range(count):
        parts = []
        for _ in range(generator.randint(1, 14)):
            kind = generator.random()
            if kind < 0.45:
                parts.append(generator.choice(snippets))
            elif kind < 0.65:
                start = generator.randrange(len(corpus) - 30)
                parts.append(corpus[start:start + generator.randint(1, 30)])
            else:
                low, high = generator.choice(ranges)
                for _ in range(generator.randint(1, 5)):
                    character = chr(generator.randint(low, high))
                    # What a later Unicode assigned is no fact about the tokenizer.
                    if unicodedata.category(character) != "Cn":
                        parts.append(character)
        yield "".join(parts)


def make_tokenizer(name, corpus):
    if name == "spm":
        return make_sentencepiece(corpus)
    tokenizer = Tokenizer(models.BPE(ignore_merges=name == "llama-bpe"))
    if name == "refact":
        splitter = pre_tokenizers.Sequence([
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ])
    elif name == "deepseek-v3":
        splitter = pre_tokenizers.Sequence([
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in DEEPSEEK3),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
    elif name == "deepseek-llm":
        splitter = pre_tokenizers.Sequence([
            *(pre_tokenizers.Split(Regex(pattern), behavior="isolated") for pattern in DEEPSEEK_LLM),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
    elif name == "olmo":
        splitter = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    else:
        pattern = CL100K.replace("{DIGITS}", "" if name == "qwen2" else "{1,3}")
        pattern = {"qwen35": QWEN35, "gpt-4o": O200K, "kimi-k2": KIMI}.get(name, pattern)
        splitter = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ])
    tokenizer.pre_tokenizer = splitter
    if name not in ("llama-bpe", "refact", "gpt-4o", "kimi-k2", "deepseek-v3", "deepseek-llm"):
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.train_from_iterator(corpus.splitlines(keepends=True), trainer)
    tokenizer.add_tokens([
        AddedToken(text, normalized=False)
        for text in ("<tool_call>", "</tool_call>", "<tool", "   ", "     ")
        if name == "olmo" or not text.isspace()])
    if name == "llama-bpe":
        tokenizer = without_some_merges(tokenizer)
    return tokenizer


def make_sentencepiece(corpus):
    """Merges over characters with bytes for those that are missing, as Mixtral's tokenizer.json has it."""
    added = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE, show_progress=False, special_tokens=added, limit_alphabet=120)
    trained.train_from_iterator(corpus.splitlines(keepends=True), trainer)
    ids = trained.get_vocab()
    # All pairs that make a token, as the conversion from SentencePiece writes them.
    merges = [
        (token[:cut], token[cut:])
        for token in sorted(ids, key=ids.get)[len(added):]
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids]
    tokenizer = Tokenizer(models.BPE(
        ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([
        normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.add_special_tokens(added[:3])
    return tokenizer


def without_some_merges(tokenizer):
    """Drops merges so that some tokens can be had only whole, which is what the flag is for."""
    data = json.loads(tokenizer.to_str())
    merges = data["model"]["merges"]
    used = {part for merge in merges for part in merge}
    data["model"]["merges"] = [
        merge for index, merge in enumerate(merges)
        if index % 3 or "".join(merge) in used]
    assert len(data["model"]["merges"]) < len(merges)
    return Tokenizer.from_str(json.dumps(data))


def fixture(name, pre, tokenizer, texts):
    data = json.loads(tokenizer.to_str())
    added = {token["id"]: token for token in data["added_tokens"]}
    tokens = [tokenizer.id_to_token(index) for index in range(tokenizer.get_vocab_size())]
    types = [
        1 if index not in added else 3 if added[index]["special"] else 4
        for index in range(len(tokens))]
    cases = []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text.encode().hex(), "ids": ids}
        if tokenizer.normalizer is not None and name != "spm":
            normalized = tokenizer.normalizer.normalize_str(text)
            if normalized != text:
                case["normalized"] = normalized.encode().hex()
        cases.append(case)
    if name == "spm":
        types = [6 if token.startswith("<0x") else kind for token, kind in zip(tokens, types)]
        return {
            "name": name, "model": "llama", "pre": "", "tokens": tokens, "types": types, "merges": [],
            "scores": [-float(index) for index in range(len(tokens))], "bos": 1, "eos": 2,
            "cases": cases,
        }
    return {
        "name": name, "pre": pre, "tokens": tokens, "types": types,
        "merges": [" ".join(merge) for merge in data["model"]["merges"]],
        "bos": 0, "eos": 0, "cases": cases,
    }


def write_tiktoken(folder, tokenizer, texts):
    """The vocabulary of `tokenizer` as Kimi-K2's folders have it, and what the tiktoken package makes of texts."""
    import base64

    import tiktoken
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {text: byte for byte, text in bytes_to_unicode().items()}
    added = {entry["id"] for entry in json.loads(tokenizer.to_str())["added_tokens"]}
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    tokens = [bytes(byte_of[c] for c in text) for text, index in vocabulary if index not in added]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    first = len(ranks)
    special = {first: "[BOS]", first + 1: "[EOS]", first + 2: "<|im_end|>", first + 7: "<|tool|>"}
    names = {i: special.get(i, f"<|reserved_token_{i}|>") for i in range(first, first + 256)}
    encoding = tiktoken.Encoding(
        "kimi", pat_str=KIMI, mergeable_ranks=ranks,
        special_tokens={name: index for index, name in names.items()})
    folder.mkdir(exist_ok=True)
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items()]
    (folder / "tiktoken.model").write_text("".join(lines))
    config = {"added_tokens_decoder": {
        str(index): {"content": name, "special": name != "<|tool|>"}
        for index, name in special.items()}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    texts = texts + [f"a {name} b{name}" for name in list(special.values()) + [names[first + 9]]]
    cases = [
        {"text": text.encode().hex(), "ids": encoding.encode(text, allowed_special="all")}
        for text in texts]
    (folder / "cases.json").write_text(
        json.dumps({"tokens": first + 256, "cases": cases}, separators=(",", ":")) + "\n")
    print("tiktoken:", first, "tokens,", len(cases), "cases")


def unicode_facts():
    """How the regular expressions classify each assigned scalar, and what NFC makes of each."""
    scalars = [
        chr(value) for value in range(0x110000)
        if unicodedata.category(chr(value)) not in ("Cn", "Cs")]
    text = "".join(scalars)
    kinds = ["O"] * len(text)
    for kind, pattern in (("L", r"\p{L}"), ("N", r"\p{N}"), ("S", r"\s")):
        split = pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True)
        for piece, (start, end) in split.pre_tokenize_str(text):
            for index in range(start, end):
                kinds[index] = kind
    ranges = []
    for scalar, kind in zip(scalars, kinds):
        value = ord(scalar)
        if ranges and ranges[-1][2] == kind and ranges[-1][1] == value - 1:
            ranges[-1][1] = value
        else:
            ranges.append([value, value, kind])
    normalizer = normalizers.NFC()
    changes = []
    for scalar in scalars:
        decomposed = unicodedata.normalize("NFD", scalar)
        if 0xac00 <= ord(scalar) <= 0xd7a3 and ord(scalar) % 97:
            continue  # Hangul composes by arithmetic; a sample of it is enough.
        for form in {scalar, decomposed}:
            normalized = normalizer.normalize_str(form)
            if normalized != form:
                changes.append([form.encode().hex(), normalized.encode().hex()])
    # Stacks of marks of many classes; some decompose, some end in class 0.
    marks = (
        "\u0301\u0316\u0344\u0f73\u0f71\u0f75\u0f81\u094d\u0327\u0345\u093e\u20dd\u09be\u0307\u0323")
    generator = random.Random(SEED)
    for _ in range(200):
        form = "s\u1ed9" + "".join(generator.choices(marks, k=generator.randint(1, 90))) + "a"
        changes.append([form.encode().hex(), normalizer.normalize_str(form).encode().hex()])
        assert normalizer.normalize_str(form) == unicodedata.normalize("NFC", form)
    return {
        "ranges": [
            {"first": first, "last": last, "kind": kind} for first, last, kind in ranges],
        "normalized": [{"text": text, "normalized": normal} for text, normal in sorted(changes)],
    }


def main():
    here = pathlib.Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=pathlib.Path, default=here.parents[2] / "shared")
    arguments = parser.parse_args()
    demo = arguments.shared / "models" / "demo"
    corpus = (demo / "fit.txt").read_text(encoding="utf-8")[:200_000] + LANGUAGES
    generator = random.Random(SEED)
    texts = AWKWARD + list(runs_of_white_space()) + list(random_texts(generator, corpus, 700))
    facts = json.dumps(unicode_facts(), separators=(",", ":")) + "\n"
    (here / "tokenizer-unicode.json").write_text(facts, encoding="utf-8")
    sources = [("qwen2", "qwen2"), ("qwen35", "qwen35"), ("olmo", "olmo"),
               ("llama-bpe", "llama-bpe"), ("refact", "refact"),
               ("gpt-4o", "gpt-4o"), ("kimi-k2", "kimi-k2"),
               ("deepseek-v3", "deepseek-v3"), ("deepseek-llm", "deepseek-llm"),
               ("spm", ""), ("demo", "gpt-2")]
    rules = {}
    for name, pre in sources:
        if name == "demo":
            tokenizer = Tokenizer.from_file(str(demo / "hf" / "tokenizer.json"))
        else:
            tokenizer = make_tokenizer(name, corpus)
        if name == "kimi-k2":
            write_tiktoken(here / "tiktoken", tokenizer, texts)
        if pre:
            data = json.loads(tokenizer.to_str())
            rules[pre] = {key: data[key] for key in ("normalizer", "pre_tokenizer")}
        result = fixture(name, pre, tokenizer, texts)
        path = here / f"tokenizer-{name}.json"
        path.write_text(
            json.dumps(result, ensure_ascii=True, separators=(",", ":")) + "\n", encoding="utf-8")
        print(path.name, path.stat().st_size, "bytes,", len(result["cases"]), "cases")
    # Kimi-K2 has no tokenizer.json, and Llama 3 differs from DBRX by what its model says.
    del rules["kimi-k2"], rules["llama-bpe"]
    (here / "tokenizer-rules.json").write_text(json.dumps(rules, indent=1) + "\n")


if __name__ == "__main__":
    main()
