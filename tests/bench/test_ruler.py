"""The long-prompt evaluation's own prompts, scores and tables: python3 -m pytest tests/bench"""

import ast
import re
from collections import Counter

import pytest

from ruler_tasks import AGREE_TOKENS, TASKS, agreement, make_prompt, make_question, score
from ruler_tasks.prompt import COUNTS_MAX, Prompt, render

ASKING = [task for task in TASKS if task != "agree"]
LENGTH = 8192


def count_tokens(text: str, is_chat: bool) -> int:
    """Stands in for the tokenizer: digits count one by one, as in most, and a template a little."""
    return 20 * is_chat + len(re.findall(r"[0-9]|[A-Za-z]{1,4}|[^\sA-Za-z0-9]", text))


def prompt_of(task: str, length: int = LENGTH, index: int = 0, seed: str = "1") -> Prompt:
    return make_prompt(seed, task, length, index, count_tokens)


def asked_for(pattern: str, prompt: Prompt) -> tuple[str, ...]:
    """What the question, which is the prompt's last line, names."""
    return re.search(pattern, prompt.text.splitlines()[-1]).groups()


@pytest.mark.parametrize("task", TASKS)
def test_a_prompt_follows_from_seed_task_length_and_index(task):
    prompt = prompt_of(task)
    assert prompt == prompt_of(task)
    for other in (prompt_of(task, seed="2"), prompt_of(task, index=1), prompt_of(task, 4096)):
        assert other.digest != prompt.digest
        assert task == "agree" or other.expected != prompt.expected


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("length", [2048, 8192, 65536])
def test_prompt_and_answer_fill_the_length_after_few_counts(task, length):
    counts = []

    def count(text: str, is_chat: bool) -> int:
        counts.append(count_tokens(text, is_chat))
        return counts[-1]

    for index in range(4):
        counts.clear()
        prompt = make_prompt("1", task, length, index, count)
        assert prompt.num_tokens == count_tokens(prompt.text, prompt.is_chat)
        assert length - 400 < prompt.num_tokens + prompt.answer_tokens <= length
        assert len(counts) < COUNTS_MAX


def test_a_length_that_does_not_hold_the_needles_is_an_error():
    with pytest.raises(ValueError, match="mk16: 400 tokens do not hold"):
        prompt_of("mk16", length=400)


@pytest.mark.parametrize("task", [task for task in ASKING if task != "common"])
def test_needles_stand_once_and_at_their_depth(task):
    for index in range(8):
        question = make_question("1", task, LENGTH, index)
        prompt = prompt_of(task, index=index)
        assert prompt.text.startswith(question.opening) and prompt.text.endswith(question.closing)
        size = len(prompt.text) - len(question.opening) - len(question.closing)
        for depth, needle in question.needles:
            assert prompt.text.count(needle) == 1
            at = prompt.text.index(needle) - len(question.opening)
            assert at / size == pytest.approx(depth, abs=0.06)


def test_without_filler_nothing_but_the_needles_is_left():
    question = make_question("1", "mk4", LENGTH, 0)
    needles = [needle for _, needle in sorted(question.needles)]
    assert render(question, 0) == "".join([question.opening, *needles, question.closing])


@pytest.mark.parametrize("task", ["single", "mk16", "code"])
@pytest.mark.parametrize("first", [0, 5])
def test_consecutive_indices_visit_all_depths(task, first):
    depths = sorted(make_question("1", task, LENGTH, index).needles[0][0]
                    for index in range(first, first + 16))
    gaps = [high - low for low, high in zip([0, *depths], [*depths, 1])]
    assert max(gaps) < 2.7 / 16


@pytest.mark.parametrize("task, kind, count", [("single", "number", 1), ("mk4", "number", 4),
                                               ("mk16", "number", 16), ("uuid", "uuid", 1)])
def test_the_key_asked_for_has_the_value_expected(task, kind, count):
    prompt = prompt_of(task)
    pairs = re.findall(rf"One of the special magic {kind}s for (\S+) is: (\S+)\. ", prompt.text)
    assert len(pairs) == count == len(dict(pairs))
    (key,) = asked_for(rf"is the special magic {kind} for (\S+) mentioned", prompt)
    assert prompt.expected == (dict(pairs)[key],)


def test_multi_asks_for_every_key():
    prompt = prompt_of("multi")
    pairs = dict(re.findall(r"magic numbers for (\S+) is: (\S+)\. ", prompt.text))
    keys = asked_for(r"numbers for (\S+), (\S+), (\S+), and (\S+) mentioned", prompt)
    assert prompt.expected == tuple(pairs[key] for key in keys)


def test_code_is_python_whose_function_returns_the_value():
    prompt = prompt_of("code")
    module = ast.parse(re.search(r"```python\n(.*)```", prompt.text, re.S)[1])
    functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
    (name,) = asked_for(r"`(\w+)`", prompt)
    assert (str(functions[name].body[-1].value.value),) == prompt.expected
    assert len(module.body) > 20


def test_chain_leads_from_the_value_to_every_variable():
    prompt = prompt_of("chain")
    (value,) = asked_for(r"set to (\d+),", prompt)
    before = dict(re.findall(r"The variable (\w+) is set to (?:the variable )?(\w+)\. ",
                             prompt.text))
    assert tuple(before) == prompt.expected
    for name in prompt.expected:
        while name in before:
            name = before[name]
        assert name == value


def test_common_words_are_far_more_frequent_everywhere():
    prompt = prompt_of("common")
    words = re.findall(r"^(?:[a-z]{6} ){100,}", prompt.text, re.M)[0].split()
    for part in (words, words[:len(words) // 4], words[-len(words) // 4:]):
        counts = Counter(part).most_common(len(prompt.expected) + 1)
        assert {word for word, _ in counts[:-1]} == set(prompt.expected)
        assert counts[-2][1] > 3 * counts[-1][1]


def test_agree_is_prose_or_code_alone():
    prompts = [prompt_of("agree", index=index) for index in range(8)]
    assert len({"\ndef " in prompt.text for prompt in prompts}) == 2
    for prompt in prompts:
        assert not prompt.is_chat and not prompt.expected
        assert prompt.answer_tokens == AGREE_TOKENS


@pytest.mark.parametrize("task", ASKING)
def test_the_right_answer_scores_1_and_others_0(task):
    prompt = prompt_of(task)
    assert score(prompt.expected, f"It is: {', '.join(prompt.expected)}.") == 1
    assert score(prompt.expected, ", ".join(prompt_of(task, index=1).expected)) == 0
    assert score(prompt.expected, "I cannot find that in the text.") == 0
    assert score(prompt.expected, "") == 0


def test_a_score_is_the_share_found():
    expected = ("1111111", "2222222", "3333333", "4444444")
    assert score(expected, "1111111 and 3333333") == 0.5
    assert score(expected, "1111111 and 1111111") == 0.25


def test_a_score_is_lenient_about_form_and_strict_about_the_value():
    assert score(("4726193",), "**4,726,193**") == 1
    assert score(("4726193",), "return 4_726_193") == 1
    assert score(("4726193",), "`x_4726193`") == 1
    assert score(("4726193",), "14726193") == 0
    assert score(("4726193",), "47261930") == 0
    assert score(("4726193",), "4726 193") == 0
    assert score(("ABCDE",), "VAR abcde") == 1
    assert score(("ABCDE",), "ABCDEF") == 0


def test_agreement_counts_equal_places():
    assert agreement([1, 2, 3, 4], [1, 2, 3, 4]) == 1
    assert agreement([1, 2, 3, 4], [1, 9, 3, 9]) == 0.5
    assert agreement([1, 2, 3, 4], [1, 2]) == 0.5
    assert agreement([1, 2], [3, 4]) == 0
    assert agreement([], []) == 1
