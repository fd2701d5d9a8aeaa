"""The micro-batch is the largest that fits, and neither it nor checkpointed blocks change what is learned."""

from pathlib import Path

import pytest

from tasks.runtime.backend import CPU, METAL
from tasks.runtime.device import total_memory
from tasks.runtime.errors import BadInput, OutOfMemory
from tasks.spec import Training
from tasks.tuning import job, memory, rows
from tasks.tuning.data import TOKENS_AT_ONCE
from tasks.tuning.memory import SMALLEST, MemoryChoice, budget, choose_memory, read_choice, write_choice
from tasks.tuning.step import score_cases
from tests.tuning import tiny


@pytest.mark.parametrize(("architecture", "dense"), [("llama", True), ("gemma3_text", False)])
def test_checkpointed_blocks_give_the_same_gradients_with_dropout(architecture, dense):
    a_recipe = tiny.safety(dropout=0.1)
    adapted = tiny.adapted(architecture, 4, dense, a_recipe, Training(num_layers=4))
    some = tiny.cases(4)
    prefix = tiny.no_store(adapted, some)
    both = adapted, adapted.with_checkpoints(True)
    plain, again = (tiny.gradients(one, some, a_recipe, key=(42, 1), prefix=prefix) for one in both)
    assert tiny.largest_difference(again[2], plain[2]) <= 1e-6
    assert again[0] == pytest.approx(plain[0], rel=1e-6)


def test_the_micro_batch_is_the_largest_that_fits_and_checkpointing_comes_only_where_one_case_does_not(monkeypatch):
    def peak(checkpointing, count):
        return 5 + 5 * count if checkpointing else 60 + 40 * count

    events = []
    chosen = {limit: choose_memory(peak, 50, 8, 30, limit, events.append) for limit in (2000, 460, 150, 149, 80)}
    assert {limit: (c.micro_batch, c.checkpointing) for limit, c in chosen.items()} == {
        2000: (8, False), 460: (7, False), 150: (1, False), 149: (8, True), 80: (3, True),
    }  # fmt: skip
    assert [chosen[limit].cache_bytes for limit in (2000, 460, 150, 149, 80)] == [250, 57, 0, 18, 10]
    assert "micro-batch 7 of 8." in events[1].message and "blocks checkpointed" in events[-1].message

    with pytest.raises(BadInput, match="is less than one case needs"):
        choose_memory(peak, 50, 8, 30, 59, events.append)

    monkeypatch.setattr(memory, "backend", lambda: METAL)
    assert choose_memory(peak, 50, 8, 30, 460, events.append).tokens_at_once == 7 * 30
    monkeypatch.setattr(memory, "backend", lambda: CPU)
    monkeypatch.setattr(memory, "cores", lambda: 4)
    assert choose_memory(peak, 50, 8, 30, 460, events.append).tokens_at_once == 7 * 30 // 4, "side by side"
    assert choose_memory(peak, 50, 8, 30, 10**6, events.append).tokens_at_once == TOKENS_AT_ONCE


def test_the_budget_is_the_grids_or_a_share_of_the_machine():
    assert budget(tiny.experiment(tiny.recipe(), memory="1.5GB")) == 1_500_000_000
    assert budget(tiny.experiment(tiny.recipe())) > 1 << 30
    with pytest.raises(ValueError, match="'lots' is not a number of bytes"):
        Training(memory="lots")


@pytest.mark.parametrize(
    ("chosen", "attempts", "memory", "most"),
    [
        (MemoryChoice(4, limit=7), [None, (2, False), (1, False), (1, True)], "1.5GB", 1_500_000_000),
        # before anything was chosen
        (None, [None, (SMALLEST.micro_batch, SMALLEST.checkpointing)], "900TB", total_memory()),
    ],
)
def test_out_of_memory_halves_the_micro_batch_then_checkpoints(chosen, attempts, memory, most, tmp_path, monkeypatch):
    tried = []
    events = []

    def child(function, args, folder: Path, on_event, at_most, *, memory_budget):
        choice = args["choice"] and MemoryChoice(**args["choice"])
        if chosen:
            write_choice(folder, choice or chosen)
        tried.append(choice)
        assert memory_budget == most
        raise OutOfMemory("no more")

    monkeypatch.setattr(rows, "run_step", child)
    spec = tiny.experiment(tiny.recipe(), memory=memory)
    with pytest.raises(OutOfMemory):
        rows.train_experiment(spec, tmp_path / "x", tmp_path, tmp_path, tmp_path, events.append)

    assert [choice and (choice.micro_batch, choice.checkpointing) for choice in tried] == attempts
    assert events[-1].message == "Out of memory: retrying with micro-batch 1 and checkpointed blocks."
    least = MemoryChoice(1, True, 7, TOKENS_AT_ONCE // 4) if chosen else SMALLEST
    assert tried[-1] == least and (not chosen or read_choice(tmp_path / "x") == least)


def test_a_training_in_small_pieces_learns_what_a_whole_batch_learns(tmp_path, monkeypatch):
    a_recipe = tiny.safety(dropout=0.1, iterations=4)
    tokens = []
    monkeypatch.setattr(job, "score_cases", lambda *args: tokens.append(args[2]) or score_cases(*args))

    choices = [None, MemoryChoice(1, True, tokens_at_once=64)]
    whole, pieces = (tiny.train(a_recipe, tmp_path / str(how), tiny.cases(9), choice=how).best for how in choices)
    assert tiny.largest_difference(tiny.flat(pieces), tiny.flat(whole)) <= 1e-4
    assert tokens == [TOKENS_AT_ONCE] * 2 + [64] * 2
