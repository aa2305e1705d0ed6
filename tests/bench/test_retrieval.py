"""The retrieval benchmark's own prompts and scoring: python3 -m pytest tests/bench"""

import re

import pytest

from retrieval_prompts import ANSWER_TOKENS, TASKS, Prompt, is_hit, make_prompt, read_words

WORDS = read_words()


def count_tokens(text: str) -> int:
    """Stands in for the tokenizer: digits count one by one, as they do there."""
    return len(re.findall(r"[0-9]|[A-Za-z]{1,4}|[^\sA-Za-z0-9]", text))


def prompt_of(task: str, length: int = 8192, index: int = 0) -> Prompt:
    return make_prompt(task, length, index, WORDS, count_tokens)


def test_haystack_is_words_enough_for_the_longest_prompt():
    assert not any(re.search(r"\s", word) or not word for word in WORDS)
    assert sum(len(word) for word in WORDS) > 500_000


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [8192, 16384, 32768])
def test_prompt_fills_its_length_and_leaves_room_for_the_answer(task, length):
    prompt = prompt_of(task, length)
    assert prompt.num_tokens == count_tokens(prompt.text)
    assert length - ANSWER_TOKENS - 200 < prompt.num_tokens <= length - ANSWER_TOKENS
    assert count_tokens(prompt.answer) < ANSWER_TOKENS


@pytest.mark.parametrize("task", TASKS)
def test_same_seed_same_prompt_and_other_index_another(task):
    assert prompt_of(task) == prompt_of(task)
    assert prompt_of(task).text != prompt_of(task, index=1).text
    assert prompt_of(task).expected != prompt_of(task, index=1).expected


@pytest.mark.parametrize("task", TASKS)
def test_prompt_has_the_form_of_the_chat_template(task):
    text = prompt_of(task).text
    assert text.startswith("<|im_start|>user\n")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("<|im_start|>") == 2


@pytest.mark.parametrize(
    "task, kind, needles",
    [("one UUID in text", "uuid", 1), ("one of 64 numbers", "number", 64),
     ("one of 40 UUIDs", "uuid", 40)],
)
def test_needles_have_distinct_keys_and_the_asked_one_has_the_value(task, kind, needles):
    prompt = prompt_of(task)
    found = re.findall(rf"One of the special magic {kind}s for (\S+) is: (\S+)\.", prompt.text)
    assert len(found) == needles == len(dict(found))
    asked = re.search(rf"\nWhat is the special magic {kind} for (\S+) mentioned", prompt.text)[1]
    assert prompt.expected == (dict(found)[asked],)


def test_chain_leads_from_the_value_to_every_variable():
    prompt = prompt_of("chain of 4 hops")
    value = re.search(r"assigned the value (\d+) in the text above\.", prompt.text)[1]
    chain = re.findall(rf"\nVAR (\w+) = {value} ", prompt.text)
    hops = dict(
        (before, name) for name, before in re.findall(r"\nVAR (\w+) = VAR (\w+) ", prompt.text)
    )
    while chain[-1] in hops:
        chain.append(hops[chain[-1]])
    assert tuple(chain) == prompt.expected
    assert len(set(chain)) == 5


@pytest.mark.parametrize("task", TASKS)
def test_the_right_answer_is_a_hit_and_another_prompts_is_not(task):
    prompt = prompt_of(task)
    assert is_hit(prompt, prompt.answer)
    assert not is_hit(prompt, prompt_of(task, index=1).answer)
    assert not is_hit(prompt, "")


def test_a_value_inside_a_longer_word_is_no_hit():
    prompt = Prompt("", "", 0, ("4726193",), "")
    assert is_hit(prompt, "It is 4726193.")
    assert not is_hit(prompt, "It is 94726193.")
    assert not is_hit(prompt, "It is 4726193-0.")


def test_a_chain_needs_every_variable_and_no_other():
    prompt = Prompt("", "", 0, ("ABCDE", "FGHIJ"), "")
    assert is_hit(prompt, "they are: FGHIJ ABCDE.")
    assert not is_hit(prompt, "they are: ABCDE.")
    assert not is_hit(prompt, "they are: ABCDE FGHIJ KLMNO.")


def test_a_length_too_short_for_the_needles_is_an_error():
    with pytest.raises(ValueError, match="do not hold"):
        prompt_of("one of 40 UUIDs", length=1000)
