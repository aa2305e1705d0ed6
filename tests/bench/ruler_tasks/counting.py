"""Aggregation: words that are frequent everywhere in the text, so that no one place tells them."""

from .prompt import Draw, Question

CONSONANTS, VOWELS = "bdfgklmnprstvz", "aeiou"
NUM_COMMON = 3
SHARE_COMMON = 0.6  # of all words, the common ones together


def _made_up_words(draw: Draw, count: int) -> list[str]:
    syllables = [c + v for c in CONSONANTS for v in VOWELS]
    every = [a + b + c for a in syllables for b in syllables for c in syllables]
    return draw.rng.sample(every, count)


def common_words(draw: Draw) -> Question:
    """The other words stand there once or twice. A model of half a billion parameters tells them
    apart mostly, and hardly where they come three times and the common ones half as often."""
    num_words = draw.length // 2  # a word has about three tokens: more than fit
    words = _made_up_words(draw, NUM_COMMON + min(num_words // 3, 100_000))
    common, rare = words[:NUM_COMMON], words[NUM_COMMON:]
    units = [draw.rng.choice(common if draw.rng.random() < SHARE_COMMON else rare) + " "
             for _ in range(num_words)]
    return Question(
        units=units,
        answer_tokens=64,
        opening="Read this coded text and note which words appear most often.\n\n",
        closing=(f"\n\nQuestion: Which {NUM_COMMON} words appear most often in the coded text"
                 " above? Answer with the words only."),
        expected=tuple(common),
    )
