"""The strings of the tokenizer fixtures: prose in many scripts, code, emoji, spaces, numbers,
special-token text, combining marks, and long runs (as generators). Deterministic."""

import random
import unicodedata

PROSE = [
    "The quick brown fox jumps over the lazy dog.",
    "Ελληνική γλώσσα: τρέχει γρήγορα.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "שלום עולם, מה שלומך היום?",
    "السلام عليكم ورحمة الله وبركاته",
    "نَصٌّ مُشَكَّلٌ",
    "यह एक हिन्दी वाक्य है।",
    "এটি একটি বাংলা বাক্য।",
    "இது ஒரு தமிழ் வாக்கியம்.",
    "ఇది తెలుగు వాక్యం.",
    "ಇದು ಕನ್ನಡ ವಾಕ್ಯ.",
    "ഇത് മലയാളം ആണ്.",
    "આ ગુજરાતી છે.",
    "ਇਹ ਪੰਜਾਬੀ ਹੈ।",
    "මෙය සිංහල වාක්‍යයකි.",
    "นี่คือประโยคภาษาไทย",
    "ນີ້ແມ່ນພາສາລາວ",
    "នេះជាភាសាខ្មែរ",
    "ဒါက မြန်မာစာ ဖြစ်ပါတယ်။",
    "བོད་སྐད་ཀྱི་ཚིག",
    "ეს ქართული წინადადებაა.",
    "Սա հայերեն նախադասություն է։",
    "ይህ የአማርኛ ዓረፍተ ነገር ነው።",
    "이것은 한국어 문장입니다.",
    "これは日本語の文章です。カタカナも。",
    "这是一个中文句子，没有空格。",
    "這是繁體中文。",
    "ᠮᠣᠩᠭᠣᠯ ᠬᠡᠯᠡ",
    "ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ",
    "ⵜⴰⵎⴰⵣⵉⵖⵜ",
    "ᐃᓄᒃᑎᑐᑦ",
    "ᚠᚢᚦᚨᚱᚲ",
    "𐌲𐌿𐍄𐌹𐍃𐌺",
    "ߒߞߏ",
    "ꦧꦱꦗꦮ",
    "ᬩᬮᬶ",
    "Türkçe: İstanbul'da ışık",
    "Tiếng Việt có dấu thanh điệu",
    "Zażółć gęślą jaźń",
    "Příliš žluťoučký kůň",
    "Ça va? L'été, c'est où naïve cœur",
    "Straße, größer, ẞ",
    "¿Qué tal, señor? ¡Olé!",
    "O'zbek tili",
]

CODE = [
    "def f(x):\n    return x ** 2  # square\n",
    'int main() {\n\tstd::cout << "hi\\n";\n\treturn 0;\n}\n',
    "for (let i = 0; i < 10; ++i) { console.log(`${i}`); }",
    "SELECT * FROM t WHERE a='b' AND c<>3;",
    '<div class="a">&nbsp;<br/></div>\r\n',
    '{"key": [1, 2.5e-3, null, true]}',
    "#!/bin/sh\nset -euo pipefail\n",
    "if __name__ == '__main__':\n        main()\n\n\n",
    "a->b.c[d]::e<f>(g...) && h || !i;",
    "\\frac{a}{b} + \\sum_{i=0}^{n}",
    "x = 'it''s'; y = \"don't\"",
    "fn main<'a>(s: &'a str) -> Result<(), Box<dyn Error>> {}",
    "0xDEADBEEF 0b1010 1_000_000 3.14f",
    "// ----------------------------------------\n/* ======== */",
    "\tif\t(x)\t{\t}\n\n\t\t\n",
    "@decorator\nclass A(B, metaclass=C): ...",
    "https://example.com/a/b?c=d&e=f#g",
    "user@example.org",
    "C:\\Windows\\System32",
    "2>&1 | grep -v '^$' | wc -l",
]

EMOJI = [
    "😀",
    "👍🏽",
    "👨‍👩‍👧‍👦",
    "🏳️‍🌈",
    "🇩🇪🇫🇷",
    "❤️‍🔥",
    "☃️",
    "1️⃣",
    "🧑🏿‍🚀",
    "🫠",
    "🪿",
    "©️®️™",
    "→⇒∑∞≠",
    "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "👩‍❤️‍💋‍👨",
]

CONTRACTIONS = [
    "I'm you're he's we've they'll I'd don't",
    "I'M YOU'RE HE'S WE'VE THEY'LL I'D DON'T",
    "it'ſ 'ſ 'K 'S'T'RE'VE'M'LL'D",
    "o'clock 'tis ''s 'sx 'lll 'rere",
    "’s ’t it’s",
    "'\n's '  't",
    "x's's't",
]

NUMBERS = [
    "1",
    "12",
    "123",
    "1234",
    "1234567890",
    "3.14159",
    "1,000,000",
    "٠١٢٣٤",
    "१२३",
    "①②③ Ⅷ ½ ²³",
    "1e10 -5 +7",
    "2024-01-31T23:59:59Z",
    "𝟘𝟙𝟚",
    "〇一二三",
    "1st 2nd 3rd",
    "1 2  3   4",
    "x1y22z333",
    "৪৫৬७८",
    "0" * 40,
]

MARKS = [
    "e\u0301 \u00e9",
    "a\u0327\u0301 a\u0301\u0327",
    "\u1100\u1161\u11a8 \uac00\u11a8",
    "\u212b \u2126 \u00c5",
    "q\u0307\u0323",
    "\u0958 \u0915\u093c",
    "\u0344",
    "o\u0302\u0301 \u1ed1",
    "\u0301start",
    "n\u0303o",
    "\ufb01 \ufb20",
    "\u2adc \u2add\u0338",
    "Z\u0351\u036b\u0343a\u0323\u0300l\u0334g\u0321o\u0489",
    "\u0b47\u0b56 \u09c7\u09be",
    "\U0001109a \U00011099\U000110ba",
    "\U0001d15e",
    "\u1fc1 \u00a8\u0342",
    "\uf900 \u8c48",
    "\u0374 \u037e \u0387",
    "c\u0338\u0327 c\u0327\u0338",
    "\u0f73\u0f71\u0f72",
]

SPACES = [
    " ",
    "  ",
    "   ",
    "\t",
    "\n",
    "\r\n",
    "\n\n",
    " \n ",
    "\n \n",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u200b",
    "\u180e",
    "\u0085",
    "\u2028",
    "\x0b",
    "\x0c",
    "\x1c",
    "\ufeff",
    "\u1680",
    " \t \r\n\t ",
    "    \n        ",
    "\r",
    "\r\r\n",
]

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_10|>",
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_response>",
    "<s>",
    "</s>",
    "<unk>",
    "<0x0A>",
    "<|im_start",
    "|im_end|>",
    "<|im_end|",
    "<<|im_end|>>",
    "<|im_<|im_end|>",
    "<|IM_END|>",
    "<|object_ref_start|>",
    "<|fim_prefix|>",
]

CHAT = [
    "<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>",
    "<think>\n\n</think>\n\nAnswer: 42<|im_end|>",
    "<s>[INST] Hi [/INST] Hello </s><s>",
]

# Letters, digits and marks that Unicode gained after version 14.
LATE = [
    "\U00031350\U000323af",
    "\U0002ebf0x",
    "a\U00011f04\U00011f50",
    "\ua7cb\ua7da",
    "\U00010d50\U00010d70",
    "\u0897a",
    "\U0001e4d01",
    "x\U00011839\u031e",
    "!\u1acc\u0325",
    "\U00011935\U00011930",
    "a\u1df7\u0334\u0301",
]

SCRIPT_RANGES = [
    (0x21, 0x7E),
    (0xA1, 0x17F),
    (0x180, 0x24F),
    (0x370, 0x3FF),
    (0x400, 0x52F),
    (0x531, 0x58F),
    (0x591, 0x5F4),
    (0x600, 0x6FF),
    (0x700, 0x74F),
    (0x780, 0x7B1),
    (0x7C0, 0x7FA),
    (0x900, 0x97F),
    (0x980, 0x9FE),
    (0xA01, 0xA76),
    (0xA81, 0xAFF),
    (0xB01, 0xB77),
    (0xB82, 0xBFA),
    (0xC00, 0xC7F),
    (0xC80, 0xCF2),
    (0xD00, 0xD7F),
    (0xD81, 0xDF4),
    (0xE01, 0xE5B),
    (0xE81, 0xEDF),
    (0xF00, 0xFDA),
    (0x1000, 0x109F),
    (0x10A0, 0x10FF),
    (0x1100, 0x11FF),
    (0x1200, 0x139F),
    (0x13A0, 0x13FD),
    (0x1400, 0x167F),
    (0x16A0, 0x16F8),
    (0x1780, 0x17F9),
    (0x1800, 0x18AA),
    (0x1E00, 0x1FFF),
    (0x2000, 0x206F),
    (0x20A0, 0x214F),
    (0x2150, 0x23FF),
    (0x2460, 0x27BF),
    (0x2D30, 0x2D7F),
    (0x3001, 0x30FF),
    (0x3105, 0x33FF),
    (0x4E00, 0x9FFF),
    (0xA000, 0xA4C6),
    (0xAC00, 0xD7A3),
    (0xF900, 0xFAD9),
    (0xFB00, 0xFDFF),
    (0xFE20, 0xFF5E),
    (0x10330, 0x1034A),
    (0x12000, 0x12399),
    (0x1D100, 0x1D1E8),
    (0x1D400, 0x1D7FF),
    (0x1F300, 0x1F9FF),
    (0x20000, 0x2A6DF),
    (0x300, 0x36F),
]

# [unit, count]: the string is the unit, count times. A megabyte of one character, then shorter
# runs.
MEGA = 1 << 20
RUNS = (
    [
        ("a", MEGA),
        (" ", MEGA),
        ("\n", MEGA),
        ("\u0301", MEGA // 2),
        ("1", MEGA),
        ("=", MEGA),
        ("中", MEGA // 3),
        ("😀", MEGA // 4),
    ]
    + [
        (unit, 100000 // len(unit))
        for unit in (
            "ab",
            "\t",
            "é",
            "\r\n",
            " \n",
            "\u0323\u0301",
            "e\u0301",
            "abcdefghijklmnopqrstuvwxyz",
            "'s",
            "x ",
            "<|im_end|>",
            "<|im_end",
            "\u1100\u1161",
            "0123456789abcdef",
            "!?",
            " a",
            "\u3000",
            "\u00a0 ",
            "a\u0301\u0327",
        )
    ]
    + [("A", 1000), (" ", 1000)]
)


def assigned(low, high):
    return [
        chr(c)
        for c in range(low, high + 1)
        if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")
    ]


def strings():
    rng = random.Random(20240607)
    out = (
        [""]
        + PROSE
        + CODE
        + EMOJI
        + CONTRACTIONS
        + NUMBERS
        + MARKS
        + SPACES
        + SPECIAL
        + CHAT
        + LATE
    )
    for text in PROSE + CODE + EMOJI:
        out += [" " + text, text + "\n", "\n\n" + text.upper(), unicodedata.normalize("NFD", text)]
    for token in SPECIAL:
        out += ["a" + token + "b", " " + token + " ", token * 2, token + "\n" + token]
    for low, high in SCRIPT_RANGES:
        pool = assigned(low, high)
        for length in (1, 2, 5, 12, 20):
            out.append("".join(rng.choices(pool, k=length)))
        words = ["".join(rng.choices(pool, k=rng.randint(1, 7))) for _ in range(5)]
        out += [
            " ".join(words),
            rng.choice(pool) + " " + rng.choice(pool),
            "a" + rng.choice(pool) + "1",
        ]
    for left in SPACES:
        out += [left + "x", "x" + left, "x" + left + "y", left * 3, "1" + left + "!"]
    words = " ".join(PROSE[:1] + CONTRACTIONS + CODE).split(" ")
    pools = [
        words,
        SPACES,
        EMOJI,
        NUMBERS,
        MARKS,
        SPECIAL,
        PROSE,
        ["'", '"', "-", "_", ".", ",", "(", ")", "\\", "/"],
        list("abcXYZé中ſ"),
    ]
    weights = [8, 8, 1, 2, 2, 1, 1, 4, 6]
    while len(out) < 2300:
        parts = rng.choices(pools, weights, k=rng.randint(2, 10))
        out.append("".join(rng.choice(part) for part in parts))
    return list(dict.fromkeys(out)) + [{"repeat": list(run)} for run in RUNS]


def text_of(entry):
    return entry if isinstance(entry, str) else entry["repeat"][0] * entry["repeat"][1]
