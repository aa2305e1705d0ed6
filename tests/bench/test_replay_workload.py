"""The sessions that replay.py draws: fixed by the seed, with the published medians."""

from dataclasses import replace
from statistics import fmean, median

import pytest

from replay_workload import Workload, seen_share

NO_LIMIT = 10**9
LARGE = Workload(max_model_len=NO_LIMIT, num_sessions=3000)


@pytest.fixture(scope="module")
def sample():
    return LARGE.sessions()


def test_medians_are_those_of_agents(sample):
    turns = [turn for session in sample for turn in session.turns]
    prompts = [session.prompt_tokens(LARGE.system_tokens) for session in sample]
    assert median(len(session.turns) for session in sample) == pytest.approx(43, rel=0.04)
    assert median(lengths[-1] for lengths in prompts) == pytest.approx(142_000, rel=0.04)
    assert median(length for lengths in prompts for length in lengths) == pytest.approx(
        142_000, rel=0.1)
    assert median(turn.output_tokens for turn in turns) == pytest.approx(444, rel=0.02)
    assert median(turn.new_tokens + turn.output_tokens for turn in turns) > 2000
    assert {session.num_cut for session in sample} == {0}


def test_over_96_percent_was_seen_before(sample):
    each = [seen_share([session], LARGE.system_tokens) for session in sample]
    assert 0.96 < median(each) < 0.99
    assert 0.96 < seen_share(sample, LARGE.system_tokens) < 0.995


def test_an_answer_and_a_shared_system_prompt_were_seen_before():
    plain = Workload(max_model_len=NO_LIMIT, num_sessions=2, num_system_prompts=1, turns=2)
    sessions = plain.sessions()
    new = sum(turn.new_tokens for session in sessions for turn in session.turns) + 1000
    total = sum(sum(session.prompt_tokens(1000)) for session in sessions)
    assert seen_share(sessions, 1000) == pytest.approx(1 - new / total)


def test_prompts_grow_by_answers_and_new_tokens(sample):
    session = next(session for session in sample if len(session.turns) >= 3)
    first, second, third = session.turns[:3]
    lengths = session.prompt_tokens(100)
    assert lengths[0] == 100 + first.new_tokens
    assert lengths[1] == lengths[0] + first.output_tokens + second.new_tokens
    assert lengths[2] == lengths[1] + second.output_tokens + third.new_tokens


def test_arrivals_are_poisson(sample):
    times = [session.arrival_s for session in sample]
    gaps = [after - before for before, after in zip([0.0, *times], times)]
    assert min(gaps) > 0
    assert fmean(gaps) == pytest.approx(10, rel=0.05)
    assert median(gaps) == pytest.approx(6.93, rel=0.07), "ln 2 of the mean: exponential"


def test_pauses_come_before_every_turn_but_the_first(sample):
    assert {session.turns[0].think_s for session in sample} == {0}
    pauses = [turn.think_s for session in sample for turn in session.turns[1:]]
    assert median(pauses) == pytest.approx(4, rel=0.02)
    assert max(pauses) < 400


def test_the_seed_decides(sample):
    assert LARGE.sessions() == sample
    assert replace(LARGE, num_sessions=10).sessions() == sample[:10]
    assert replace(LARGE, num_sessions=10, seed="2").sessions() != sample[:10]
    assert {session.system_prompt for session in sample} == set(range(4))


def test_time_scale_compresses_arrivals_and_pauses(sample):
    fast = replace(LARGE, num_sessions=5, time_scale=0.1).sessions()
    for session, slow in zip(fast, sample):
        assert session.arrival_s == pytest.approx(slow.arrival_s / 10)
        assert [turn.think_s for turn in session.turns] == pytest.approx(
            [turn.think_s / 10 for turn in slow.turns])
        assert [turn.new_tokens for turn in session.turns] == [
            turn.new_tokens for turn in slow.turns]


def test_sessions_end_before_the_context_does(sample):
    limit = 65_536
    cut = replace(LARGE, max_model_len=limit).sessions()
    for session, whole in zip(cut, sample):
        ends = [length + turn.output_tokens for length, turn in zip(
            whole.prompt_tokens(LARGE.system_tokens), whole.turns)]
        kept = len(session.turns)
        assert session.turns == whole.turns[:kept] and session.num_cut == len(ends) - kept
        assert ends[kept - 1] <= limit
        assert kept == len(ends) or ends[kept] > limit
    assert any(session.num_cut for session in cut)
    assert any(session.num_cut == 0 for session in cut)


def test_a_context_without_room_for_a_turn_is_refused():
    with pytest.raises(ValueError, match="--max-model-len 16000: the first turn of session 0 takes"
                                         r" \d+ tokens, 16000 of them the system prompt's"):
        Workload(max_model_len=16_000).sessions()
