"""Grid files: the paper study is what it says, and every mistake is one sentence with file, line, key and remedy."""

import re

import pytest

from flows.selection import Narrowing, select
from tasks.grids.grid import GRIDS, known_models, load_grid
from tasks.runtime.errors import BadInput
from tasks.spec import MOST_EXPERIMENTS, Grid, experiments
from tests.test_spec import COSTS

SMOKE = (GRIDS / "smoke.toml").read_text()
# name: kind, learning rate, batch, rank, scale, dropout, iterations, target ED recall: the table of the study's protocol.
RECIPES = {
    "baseline": ("standard", 3e-5, 4, 8, 20, 0, 800, None),
    "high_precision": ("standard", 1e-5, 4, 16, 25, 0.05, 1000, None),
    "fast": ("standard", 5e-5, 8, 8, 20, 0, 600, None),
    "conservative": ("standard", 1e-5, 2, 4, 15, 0.1, 1200, None),
    "high_capacity": ("standard", 2e-5, 4, 32, 30, 0.05, 800, None),
    "triage_optimized": ("standard", 4e-5, 6, 12, 22, 0.02, 800, None),
    "ultra_safe": ("safety", 5e-6, 2, 4, 2, 0.15, 1500, 0.98),
    "balanced_safe": ("safety", 1e-5, 4, 8, 8, 0.10, 1200, 0.96),
    "performance_safe": ("safety", 2e-5, 6, 12, 12, 0.08, 1000, 0.95),
    "high_capacity_safe": ("safety", 8e-6, 2, 16, 8, 0.12, 1400, 0.98),
}


def test_paper_is_exactly_sixty_distinct_experiments_with_the_recipes_and_settings_of_the_protocol():
    paper = load_grid("paper")
    ids = [cell.cell_id for cell in experiments(paper, known_models(paper))]
    models = ("smollm2-135m", "smollm2-360m", "gemma-3-270m")
    assert len(ids) == 60
    assert set(ids) == {f"{m}-{bits}bit-{recipe}-s42" for m in models for bits in (4, 8) for recipe in RECIPES}
    assert {
        r.name: (r.kind, r.learning_rate, r.batch_size, r.rank, r.scale, r.dropout, r.iterations, r.target_ed_recall)
        for r in paper.recipes
    } == RECIPES
    for recipe in paper.recipes:
        expected = (COSTS, {"ED": 5, "GP": 2, "HOME": 1}) if recipe.kind == "safety" else (None, None)
        assert (recipe.cost_matrix, recipe.class_weights) == expected
    assert paper.scoring.cost_matrix == COSTS, "decisions of standard recipes are priced too"
    assert paper.training.model_dump() == {
        "group_size": 64, "num_layers": 16, "target_modules": ("self_attn.q_proj", "self_attn.v_proj"),
        "optimizer": "adamw", "weight_decay": 0.01, "warmup_ratio": 0.1, "max_tokens": 2048, "mask_prompt": True,
        "report_every": 50, "evaluate_every": 200,
        "decay": "none", "max_gradient_norm": None, "patience": None, "memory": None,
    }  # fmt: skip
    assert paper.scoring.mc_cases == "all"


def test_every_key_is_described_and_those_of_the_top_level_stand_in_the_readme():
    schema = Grid.model_json_schema(by_alias=True)
    tables = {"Grid": schema, **schema["$defs"]}
    without = [
        f"{name}.{key}"
        for name, table in tables.items()
        for key, entry in table["properties"].items()
        if not entry.get("description")
    ]
    assert without == []
    readme = (GRIDS / "README.md").read_text(encoding="utf-8")
    assert [key for key in [*schema["properties"], "safety"] if not re.search(rf"`\[*{key}\]*`", readme)] == []


def test_the_recipes_of_the_ablation_differ_in_the_parts_of_the_safety_loss_alone():
    grid = load_grid("ablation")
    assert {r.name: (r.class_weights["ED"], r.cost_weight) for r in grid.recipes} == {
        "plain": (1, 0), "weights": (5, 0), "cost": (1, 1), "both": (5, 1),
    }  # fmt: skip
    parts = {"name", "class_weights", "cost_weight"}
    assert len({str(r.model_dump(exclude=parts)) for r in grid.recipes}) == 1

    strict = {path.stem for path in GRIDS.glob("*.toml") if not load_grid(path.stem).any_weights}
    assert strict == {"paper", "study", "study_gemma"}
    study, gemma = load_grid("study"), load_grid("study_gemma")
    assert (gemma.data, gemma.scoring.cost_matrix) == (study.data, study.scoring.cost_matrix)


@pytest.fixture
def grid_file(tmp_path):
    path = tmp_path / "mine.toml"

    def write(text: str) -> str:
        path.write_text(text)
        return str(path)

    return write


def refusal(name: str, *sets: str) -> str:
    with pytest.raises(BadInput) as caught:
        load_grid(name, list(sets))
    text = str(caught.value)
    assert "\n" not in text and text.endswith(".") and "Traceback" not in text
    return text


@pytest.mark.parametrize(
    ("old", "new", "marked", "parts"),
    [
        ("seeds = [42]", 'seeds = [42]\ncolour = "red"', "colour", ["unknown key 'colour'; allowed", "recipe, safety, scoring"]),
        (
            "dropout = 0.1", "droput = 0.1", "droput",
            ["unknown key 'recipe[2].droput'; did you mean 'dropout'? Allowed are ", "dropout, evaluate_every, iterations"],
        ),
        ("train = 48", "trian = 48", "trian", ["data.limits.trian", "'train', 'valid', 'calibration' or 'test'"]),
        ("GP = 2, HOME = 1 }", "GP = 2 }", "class_weights", ["safety.class_weights", "one for each of ED, GP, HOME"]),
        ("ED = 1, GP = 100", "ED = 200, GP = 100", "cost_matrix", ["safety.cost_matrix", "right decision costs more"]),
        ("dropout = 0.1", "dropout = 1.0", "dropout = 1.0", ["recipe[2].dropout = 1", "less than 1"]),
        ('"tiny-gemma3"]', '"no-such"]', "models =", ["unknown base model 'no-such'", "known are", "smollm2-135m"]),
        ('name = "balanced_safe"', 'name = "baseline"', 'name = "baseline"\nkind = "safety"', ["duplicate name baseline"]),
        ("bits = [4, 8]", "bits = [5]", "bits", ["bits[1] = 5 is not allowed", "4 or 8"]),
        ("seeds = [42]", "seeds = []", "seeds", ["at least one entry"]),
        ("num_layers = 2", 'num_layers = "two"', "num_layers", ['"two" is not allowed', "valid integer"]),
        (
            "[safety]", "[prompt]\nanswers = { ED = 'a', GP = 'doctor', HOME = 'A' }\n[safety]", "answers",
            ["prompt.answers", "the answer 'a' for ED is that for HOME ('A')"],
        ),
        (
            "[safety]", "[prompt]\nanswers = { ED = 'home visit', GP = 'doctor', HOME = 'home' }\n[safety]", "answers",
            ["prompt.answers", "the answer 'home' for HOME starts that for ED ('home visit')"],
        ),
        ("mc_cases = 6", "mc_cases = 0", "mc_cases", ["scoring.mc_cases = 0", "equal to 3 or", "'all'"]),
        ("dropout = 0.0", "dropout = 0.0\ntarget_ed_recall = 0.9", "[[recipe]]", ["recipe[1]", "kind = 'safety'"]),
        ("target_ed_recall = 0.9", "", '[[recipe]]\nname = "balanced_safe"', ["recipe[2]", "needs target_ed_recall"]),
        ("learning_rate = 1e-3\n", "", "[[recipe]]", ["recipe[1] has no 'learning_rate'"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_grid_names_file_line_key_and_what_is_allowed(old, new, marked, parts, grid_file):
    text = SMOKE.replace(old, new, 1)
    assert text != SMOKE
    message = refusal(path := grid_file(text))
    line = text[: text.index(marked)].count("\n") + 1
    assert message.startswith(f"{path}, line {line}: ")
    assert [part for part in parts if part not in message] == []


CLAIM = '[primary]\nrecipe = "balanced_safe"\nbase_model = "tiny-llama"\n'
CLAIMING = SMOKE.replace("seeds = [42]", "seeds = [42, 43]").replace("[safety]", f"{CLAIM}[safety]", 1)


@pytest.mark.parametrize(
    ("old", "new", "marked", "parts"),
    [
        ('recipe = "balanced', 'recipe = "balance', "recipe =", ["no recipe 'balance_safe'; name one of baseline, bal"]),
        ('base_model = "tiny', 'base_model = "tin', "base_model =", ["no base model 'tin-llama'; name one of tiny-llama, "]),
        ("[42, 43]", "[42]", "[primary]", ["primary.seeds", "two or more", "chance in training", "leave out [primary]"]),
        ("[safety]", "seeds = [43, 44]\n[safety]", "seeds = [43,", ["two or more seeds", "trained with (42, 43)"]),
        ("bits = [4, 8]", "bits = [8]", "[primary]", ["['4bit', '8bit'] cannot be compared", "grid trains at (8bit)"]),
        ("[safety]", 'sides = ["mxfp4", "8bit"]\n[safety]', "sides =", ["['mxfp4', '8bit'] cannot", "scoring.move_adapters"]),
        ("[safety]", 'figures = ["recall"]\n[safety]', "figures =", ['primary.figures[1] = "recall"', "'accuracy', 'ed_recall'"]),
    ],
)  # fmt: skip
def test_a_mistake_in_a_primary_claim_names_its_line_and_what_to_do(old, new, marked, parts, grid_file):
    text = CLAIMING.replace(old, new, 1)
    assert text != CLAIMING
    place = text.index("[primary]")
    message = refusal(path := grid_file(text))
    assert message.startswith(f"{path}, line {text[: text.index(marked, place)].count(chr(10)) + 1}: ")
    assert [part for part in parts if part not in message] == []


def test_a_primary_claim_takes_its_recipes_seeds_and_adapters_that_the_grid_moves(grid_file):
    grid = load_grid(grid_file(CLAIMING))
    claim = grid.primary_claim
    assert (claim.seeds, claim.sides, claim.margin) == ((42, 43), ("4bit", "8bit"), 0.02)
    assert claim.figures == ("accuracy", "ed_recall")
    spelled_out = load_grid(grid_file(CLAIMING.replace("[safety]", "margin = 0.02\nseeds = [42, 43]\n[safety]", 1)))
    assert spelled_out.registration == grid.registration, "the same claim"

    moved = CLAIMING.replace("[safety]", 'sides = ["mxfp4", "8bit"]\n[safety]', 1)
    moves = load_grid(grid_file(moved), ['scoring.move_adapters=["mxfp4"]'])
    assert moves.registration != grid.registration and moves.primary_claim.threshold == "kept"
    spelled_out = load_grid(grid_file(moved), ['scoring.move_adapters=["mxfp4"]', "primary.threshold=kept"])
    assert spelled_out.registration == moves.registration
    both = load_grid(grid_file(moved), ['scoring.move_adapters=["mxfp4"]', "primary.threshold=both"])
    assert both.registration != moves.registration
    with pytest.raises(BadInput, match="primary.threshold: the grid trains at 4bit, so no adapter that is moved there"):
        load_grid(grid_file(CLAIMING), ["primary.threshold=chosen_again"])
    with pytest.raises(BadInput, match=r"trains at \(4bit, 8bit\), or leave out \[primary\] \(--set primary=false\)"):
        load_grid(grid_file(moved), ["scoring.move_adapters=false"])
    assert load_grid(grid_file(moved), ["scoring.move_adapters=false", "primary=false"]).primary is None
    joining_sets = ["primary.further_seeds=[44]", "primary.adjust=holm", "primary.sealed=true"]
    joining = load_grid(grid_file(CLAIMING), joining_sets)
    more = load_grid(grid_file(CLAIMING), [*joining_sets, "seeds=[42, 43, 44]", "primary.seeds=[42, 43]"])
    assert more.registration == joining.registration != grid.registration, "seeds that join change no claim"
    with pytest.raises(BadInput, match="primary.further_seeds: seeds join a claim by what its seal shows alone; add"):
        load_grid(grid_file(CLAIMING), joining_sets[:1])
    alone = load_grid(grid_file(moved), ['scoring.move_adapters=["mxfp4"]', "seeds=[7]"])
    assert alone.primary_claim.seeds == (7,), "an adapter and the same one moved need no second training"
    cells = [list(experiments(g, known_models(g))) for g in (grid, load_grid(grid_file(SMOKE), ["seeds=[42, 43]"]))]
    assert cells[0] == cells[1], "it decides no experiment"


@pytest.mark.parametrize(
    ("override", "decides"),
    [
        ("recipe.learning_rate=0.5", True),
        ("training.group_size=32", True),
        ("prompt.version=2", True),
        ("data.seed=7", True),
        ("scoring.passes=9", True),
        ("training.memory='1GB'", False),
        ("scoring.moved_seeds=[42]", False),
        ("time_limit.factor=2", False),
    ],
)
def test_a_claim_is_registered_with_what_decides_its_trainings_and_how_they_are_judged(override, decides, grid_file):
    path = grid_file(CLAIMING)
    assert (load_grid(path, [override]).registration != load_grid(path).registration) == decides


def test_a_further_seed_leaves_a_claim_that_names_its_seeds_as_it_was_registered(grid_file):
    path = grid_file(CLAIMING.replace("[safety]", "seeds = [42, 43]\n[safety]", 1))
    claim = load_grid(path).primary_claim
    for override in ("seeds=[51]", "recipe.seeds=[51]"):
        grid = load_grid(path, [override])
        assert grid.primary_claim == claim and {cell.seed for cell in experiments(grid, known_models(grid))} == {51}
    with pytest.raises(BadInput, match="two or more seeds"):
        load_grid(path, ["seeds=[51]", "primary.seeds=[51]"])


def test_a_grid_may_bring_its_own_base_model_and_name_it(grid_file):
    source = '\n[[base_model]]\nname = "mine"\nlicence = "x"\nsources = [{ kind = "random", shape = "tiny-llama" }]\n'
    path = grid_file(SMOKE.replace('"tiny-llama"', '"mine"', 1) + source)
    assert known_models(load_grid(path))["mine"].sources[0].kind == "random"
    with pytest.raises(BadInput, match="training.num_layers = 8, but mine has 4 blocks; give at most 4"):
        select(path, ["training.num_layers=8"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"bits = [4]\nbits = [8]\n", "line 2"),
        (b"# caf\xe9\n", "not valid TOML"),
        (b"", "the grid has no 'name'; add it"),
    ],
)
def test_what_is_not_toml_is_refused_with_its_place(content, words, tmp_path):
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    message = refusal(str(path))
    assert message.startswith(str(path)) and words in message
    path.write_bytes(b"\xef\xbb\xbf" + SMOKE.encode())
    assert load_grid(str(path)).name == "smoke", "a byte order mark is no mistake"


@pytest.mark.parametrize("name", ["demoo", "", "no/such.toml", "g" * 300])
def test_an_unknown_grid_lists_the_known_ones(name):
    assert "demo, paper, registered, smoke, study, study_gemma, tuned" in refusal(name) and len(refusal(name)) < 400


def test_a_recipe_may_have_seeds_of_its_own_which_change_no_other_id(grid_file):
    first = load_grid("smoke").recipes[0].name
    text = SMOKE.replace(f'name = "{first}"', f'name = "{first}"\nseeds = [42, 43, 44]')
    cells = select(grid_file(text)).cells
    assert sum(cell.recipe.name == first for cell in cells) == 3 * sum(cell.recipe.name != first for cell in cells)
    before = select(grid_file(SMOKE)).cells
    assert [cell for cell in cells if cell.seed == 42] == before, "nothing else of an experiment changes"


SOURCES = "base_model=[{{name='mine', licence='x', sources=[{}]}}]"


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("", "not of the form key=value"),
        ("training.num_layers=abc", "--set training.num_layers=abc: training.num_layers"),
        ("training.bogus=3", "--set training.bogus=3: unknown key 'training.bogus'; allowed are decay, evaluate_every"),
        ("scoring.move_adapters=3", "scoring.move_adapters = 3 is not allowed: input should be true or false or"),
        (f"name={'n' * 300}", "at most 60 characters"),
        (f"seeds={list(range(100_000))}", "makes 800,000 experiments, and may have 10,000"),
        (f"seeds={[1, 1] * 50_000}", "seeds: duplicate name 1; each may appear once"),
        (SOURCES.format('{kind="ftp"}'), "sources[1]"),
        (SOURCES.format('{kind="folder", path="x", foo=1}'), "sources[1].foo'; allowed are kind, path"),
        (SOURCES.format('{kind="hub", repo="abc"}'), 'repo = "abc" is not allowed'),
    ],
    ids=lambda text: text[:40],
)
def test_a_bad_override_is_blamed_on_the_override(item, words):
    message = refusal("smoke", item)
    assert words in message and len(message) < 600


def test_overrides_reach_every_recipe_and_may_make_new_keys():
    grid = load_grid("smoke", ["recipe.iterations=3", "training.group_size=32", "seeds=[1, 2]", "name=other"])
    assert [r.iterations for r in grid.recipes] == [3, 3] and grid.training.group_size == 32
    assert grid.seeds == (1, 2) and grid.name == "other"
    assert len(select("smoke", [f"seeds={list(range(MOST_EXPERIMENTS // 8))}"]).cells) == MOST_EXPERIMENTS


def test_a_built_in_grid_can_be_taken_to_cases_of_ones_own():
    grid = load_grid("tuned", ["data.source=my_cases.csv", "data.limits={}"])
    built_in = load_grid("tuned")
    assert grid.recipes == built_in.recipes and grid.training == built_in.training
    assert grid.data.source == "my_cases.csv" and grid.data.set_shares == built_in.data.set_shares
    assert not grid.data.sizes and not grid.data.contrast_share and not grid.data.further_share
    for setting in ("data.train_cases=2000", "data.further_share=0.5"):
        with pytest.raises(BadInput, match="for source = 'embedded' only"):
            load_grid("tuned", ["data.source=my_cases.csv", setting])


EXAMPLE = str(GRIDS.parent / "examples/my_grid.toml")


@pytest.mark.parametrize(("grid", "names"), [("study", ("tuned", "tuned_safe")), (EXAMPLE, ("standard", "safe"))])
def test_the_recipes_of_tuned_are_the_same_in_every_grid(grid, names):
    def training(source: str, recipe: str) -> tuple:
        (cell, *_) = select(source, only=Narrowing(models=["smollm2-135m"], bits=[4], recipes=[recipe])).cells
        return cell.training, cell.prompt, cell.recipe.model_copy(update={"name": ""})

    for name, other in zip(("tuned", "tuned_safe"), names, strict=True):
        assert training("tuned", name) == training(grid, other)


def test_a_selection_narrows_in_the_order_of_the_grid():
    chosen = select("paper", only=Narrowing(models=["gemma-3-270m"] * 2, bits=[8], recipes=["fast", "baseline"]))
    assert [c.cell_id for c in chosen.cells] == ["gemma-3-270m-8bit-baseline-s42", "gemma-3-270m-8bit-fast-s42"]
    assert len(select("paper", only=Narrowing(limit=7)).cells) == 7
    unlisted = select("smoke", only=Narrowing(models=["smollm2-135m"])).cells
    assert {cell.model.name for cell in unlisted} == {"smollm2-135m"}, "it may be asked for"


@pytest.mark.parametrize(
    ("narrowing", "words"),
    [
        ({"models": ["no-such"]}, "has no model no-such; there are gemma-3-270m"),
        ({"bits": [3]}, "no bits 3; there are 4, 8"),
        ({"recipes": ["no-such"]}, "no recipe no-such; there are baseline, balanced_safe"),
        ({"seeds": [7]}, "no seed 7; there are 42"),
        ({"cells": ["no-such"]}, "no experiment no-such; `triage sweep smoke --plan` names them"),
    ],
)
def test_a_selection_of_what_is_not_there_says_what_is(narrowing, words):
    with pytest.raises(BadInput, match=re.escape(words)):
        select("smoke", only=Narrowing(**narrowing))


def test_modules_that_a_model_of_known_shape_does_not_have_are_refused_before_anything_starts():
    with pytest.raises(BadInput, match="not fit tiny-llama: training.target_modules names 'self_attn.x'"):
        select("smoke", ["training.target_modules=['self_attn.x']"])
    assert select("smoke", ["training.num_layers=4"], Narrowing(models=["tiny-llama"])).cells


def test_one_line_of_a_grid_allows_the_open_mirrors_of_every_model(tmp_path):
    assert not any(model.allow_mirror for model in known_models(load_grid("smoke")).values())
    (tmp_path / "own.toml").write_text("allow_mirror = true\n" + SMOKE)
    outcome = known_models(load_grid(str(tmp_path / "own.toml")))
    gemma = outcome["gemma-3-270m"]
    assert gemma.allow_mirror and gemma.sources[0].mirror == "unsloth/gemma-3-270m-it"
