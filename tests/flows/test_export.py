"""`triage export`: a folder that stands alone, and whose example decides with stock mlx-lm as `triage predict` does."""

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from huggingface_hub import ModelCard
from mlx_lm import load

import tasks.bundle.export
from flows.cli.experiments import find_model
from flows.cli.main import app
from flows.report.card import model_card
from tasks.bundle import export_job
from tasks.bundle.asking import checked_text
from tasks.bundle.bundle import ExportAgreement, Rule, Scaling, read_bundle
from tasks.bundle.decide import decide
from tasks.bundle.export import export, leave_out_path
from tasks.bundle.loaded_model import load_model
from tasks.bundle.terms import render_example
from tasks.corpus.prompts import load_prompt
from tasks.landing import land_rows
from tasks.models.convert import run_quantize
from tasks.models.gguf_file import open_gguf
from tasks.models.sources.fetch import fetch_base
from tasks.precisions import BUILT_IN
from tasks.runtime.children import run_child
from tasks.runtime.errors import BadInput, Locked
from tasks.runtime.files import file_digest, read_lines
from tasks.runtime.home import home
from tasks.runtime.store import SEAL, read_manifest, refuse_while_working, seal, verify
from tasks.spec import LABELS
from tasks.tuning.lora import adapter_config, adapter_weights, add_lora, load_variant
from tests.place import Place, one_sentence
from tests.tuning.tiny import MODEL, TRAINING, recipe
from tests.warehouse.rows import training

LLAMA = "tiny-llama-4bit-balanced_safe"
GEMMA = "tiny-gemma3-8bit-balanced_safe"
COSTS = {  # of a decision for each true label; transposed, another matrix
    "ED": {"ED": 1.0, "GP": 10.0, "HOME": 10.0},
    "GP": {"ED": 2.0, "GP": 1.0, "HOME": 4.0},
    "HOME": {"ED": 2.0, "GP": 2.0, "HOME": 1.0},
}


@pytest.fixture(scope="module")
def place(used):
    with pytest.MonkeyPatch.context() as patch:
        used.use(patch)
        yield used


@pytest.fixture(autouse=True)
def own_home(place, monkeypatch):
    """The home of a sweep, instead of the empty one that every test has."""
    place.use(monkeypatch)


def exported(place: Place, name: str, folder: Path, **options: bool) -> dict[str, ExportAgreement]:
    """Write an export, whose job runs in this process; how what was written differs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks.bundle.export, "run_child", lambda function, args, *rest: export_job.run(args, print))
        return export(find_model(name), place.home, folder, model_card, **options)[1]


@pytest.fixture(scope="module")
def plain(place, tmp_path_factory) -> Path:
    """The adapter beside its weights."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    exported(place, LLAMA, folder, adapter=True)
    return folder


@pytest.fixture(scope="module")
def fused(place, tmp_path_factory) -> tuple[Path, dict[str, ExportAgreement]]:
    folder = tmp_path_factory.mktemp("fused") / "out"
    return folder, exported(place, LLAMA, folder, gguf=True)


def prompt_of(folder: Path) -> dict:
    return json.loads((folder / "prompt.json").read_text())


def texts(place: Place) -> list[str]:
    """Those of test, then of valid. None of calibration: the threshold is the probability of one of them, to the last bit."""
    (data,) = (place.home / "data").glob("embedded-*")
    cases = [line["text"] for name in ("test", "valid") for line in read_lines(data / f"{name}.jsonl")]
    return [text for text in cases if len(text) < 400]  # a longer one is shortened by `triage predict` alone


def by_example(folder: Path, cases: list[str], monkeypatch, capsys) -> list[tuple[str, list[float]]]:
    """What example.py prints in its folder; blank lines between the cases are none."""
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps({"text": text}) + "\n\n" for text in cases)))
    capsys.readouterr()
    runpy.run_path("example.py")
    lines = [line.split(" ", 1) for line in capsys.readouterr().out.splitlines()]
    return [(label, json.loads(p)) for label, p in lines]


def by_predict(folder: Path, cases: list[str]) -> list[tuple[str, list[float]]]:
    """What `triage predict` decides, in this process."""
    model = load_model(read_bundle(folder))
    scores = model.log_likelihoods([model.read(checked_text(text))[0] for text in cases])
    return [(one.label, list(one.probabilities)) for one in decide(read_bundle(folder).bundle, scores)]


def refuse_other_answers(folder: Path, cases: list[str], monkeypatch, capsys) -> None:
    example = by_example(folder, cases, monkeypatch, capsys)
    predicted = by_predict(folder, cases)
    assert [label for label, _ in example] == [label for label, _ in predicted]
    assert np.array([p for _, p in example]) == pytest.approx(np.array([p for _, p in predicted]), abs=1e-4)


def test_the_example_decides_as_predict_and_as_the_evaluation_did(place, plain, monkeypatch, capsys):
    cases = texts(place)
    refuse_other_answers(plain, cases, monkeypatch, capsys)
    bundle = read_bundle(plain).bundle
    landed = place.query(f"FROM prediction WHERE evaluation_id = '{bundle.judged_on.evaluation_id}'")
    (data,) = (place.home / "data").glob("embedded-*")
    decided = [label for label, _ in by_predict(plain, cases)]
    by_case = dict(zip(landed.case_id, landed.decision, strict=True))
    assert decided[:24] == [by_case[line["case_id"]] for line in read_lines(data / "test.jsonl")]
    assert bundle.rule.name == "target_recall"
    # Space around a text is none of it.
    refuse_other_answers(plain, [f" \n\t{text}\n " for text in cases[:12]], monkeypatch, capsys)


def test_the_fused_model_and_a_model_without_a_chat_template_do_so_too(place, fused, tmp_path, monkeypatch, capsys):
    cases = texts(place)[:24]
    refuse_other_answers(fused[0], cases, monkeypatch, capsys)
    gemma = tmp_path / "gemma"
    exported(place, GEMMA, gemma)
    assert "messages" in prompt_of(fused[0]) and "messages" not in prompt_of(gemma)
    refuse_other_answers(gemma, cases, monkeypatch, capsys)


@pytest.mark.parametrize("rule", ["argmax", "min_cost", "offsets", "none"])
def test_the_example_follows_every_rule(place, plain, rule, tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(plain, tmp_path / "copy")
    bundle = read_bundle(folder).bundle
    rules = {
        "argmax": Rule(name="argmax"),
        "min_cost": Rule(name="min_cost", costs=COSTS),
        "offsets": Rule(name="argmax", offsets=Scaling(temperature=0.5, biases=(-1.0, 2.0, 0.0))),
        "none": Rule(name="target_recall", note="not available: no ED case in the calibration set"),
    }
    scaling = Scaling(temperature=0.1, biases=(-1.0, 0.5, 0.0))
    changed = bundle.model_copy(update={"rule": rules[rule], "scaling": scaling})
    (folder / "bundle.json").write_text(changed.model_dump_json())
    (folder / "example.py").write_text(render_example(changed, prompt_of(folder)))
    cases = texts(place)[:12]

    if rule == "none":
        assert {label for label, _ in by_example(folder, cases, monkeypatch, capsys)} == {"None"}
    else:
        refuse_other_answers(folder, cases, monkeypatch, capsys)


def test_a_model_that_reads_vital_signs_in_words_is_exported_with_what_writes_them(
    place, plain, tmp_path, monkeypatch, capsys
):
    model = find_model(LLAMA)
    choice = model.bundle.prompt.model_copy(update={"vital_signs": True})
    in_words = {"prompt": choice, "prompt_digest": load_prompt(choice).digest}
    monkeypatch.setattr(tasks.bundle.export, "run_child", lambda function, args, *rest: export_job.run(args, print))
    changed = model.model_copy(update={"bundle": model.bundle.model_copy(update=in_words)})
    export(changed, place.home, tmp_path / "out", model_card, adapter=True)
    cases = ["I am 30. SpO2 85 %.", "9/12 F, HR 150, RR 70."]
    refuse_other_answers(tmp_path / "out", cases, monkeypatch, capsys)
    assert by_predict(tmp_path / "out", cases) != by_predict(plain, cases)


@pytest.mark.parametrize("line", ["I have a cough.", '{"message": "A cough."}', "3"])
def test_the_example_says_in_a_sentence_what_it_reads(plain, line, monkeypatch, capsys):
    monkeypatch.chdir(plain)
    monkeypatch.setattr(sys, "stdin", io.StringIO('{"text": "A rash."}\n' + line + "\n"))
    with pytest.raises(SystemExit) as refused:
        runpy.run_path("example.py")
    assert refused.value.code.startswith("A line of standard input is no JSON object with a text; write one a line,")
    assert capsys.readouterr().out == ""


def test_the_call_on_the_card_decides_a_text_in_fifteen_lines_that_need_stock_mlx_lm_alone(plain):
    card = (plain / "README.md").read_text()
    (command,) = [line for line in card.splitlines() if line.startswith("echo ")]
    own = command.replace("python example.py", f"'{sys.executable}' example.py")
    answer = subprocess.run(own, shell=True, cwd=plain, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split()[0] in LABELS and len(answer.stdout.splitlines()) == 1

    lines = (plain / "example.py").read_text().splitlines()
    code = [line for line in lines if line and not line.startswith("#")]
    imported = {line.split()[1] for line in code if line.startswith(("import", "from"))}
    assert len(code) <= 15 and imported == {"json,", "mlx.core", "mlx_lm.utils"}
    not_done = "loses its middle in `triage`, and chat markup in a message"
    assert not_done in " ".join(card.split()) and "`example.py` does neither" in " ".join(card.split())


def test_a_folder_is_whole_sealed_and_holds_no_text_of_a_case(place, plain, fused):
    ours = {"README.md", "Notice", "SHA256SUMS", "bundle.json", "prompt.json", "example.py"}
    model = {"model.safetensors", "model.safetensors.index.json", "config.json", "tokenizer.json",
             "tokenizer_config.json"}  # fmt: skip
    of_plain, of_fused = ({path.name for path in folder.glob("[!.]*")} for folder in (plain, fused[0]))
    assert of_plain == ours | {"adapters.safetensors", "adapter_config.json", "model"}
    assert of_fused == ours | model | {"manifest.json", "model.gguf", "example.mjs"}, "as the Hub's load() reads it"
    assert set(verify(plain / "model")["files"]) == set(verify(fused[0])["files"]) == model
    for folder in (plain, fused[0]):
        whole = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        assert not [text for text in texts(place) if text[:30].encode() in whole]
        assert str(place.folder).encode() not in whole, "no path of the machine that made it"
        files = {path for path in folder.rglob("[!.]*") if path.is_file()} - {folder / "SHA256SUMS"}
        sums = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
        assert {folder / name: digest for digest, name in sums} == {path: file_digest(path) for path in files}


def test_an_adapter_names_what_it_belongs_to_and_its_tensors_are_those_that_were_trained(place, plain):
    bundle = read_bundle(plain).bundle
    config = json.loads((plain / "adapter_config.json").read_text())
    assert config["precision"] == {"name": "4bit", "bits": 4, "group_size": 64, "mode": "affine"}
    assert (config["base_model_name_or_path"], config["revision"]) == ("tiny-llama", None)  # of no repository
    assert config["weights_source"] == "random weights of the shape tiny-llama, seed 0", "of a package, its version"
    assert config["lora_parameters"]["rank"] == bundle.recipe.rank

    tensors, metadata = mx.load(str(plain / "adapters.safetensors"), return_metadata=True)
    assert (metadata["weights_digest"], metadata["model_id"]) == (bundle.weights_digest, bundle.model_id)
    assert {"tokenizer_digest", "source_digest"} < set(metadata)
    trained = mx.load(str(find_model(LLAMA).adapter))
    assert tensors.keys() == trained.keys() and all(mx.array_equal(tensors[name], trained[name]) for name in trained)


@pytest.mark.parametrize("precision", ["bf16", "mixed_4_6", "nvfp4"])
def test_fused_weights_of_every_kind_of_precision_are_loaded_by_stock(precision, tmp_path):
    source = fetch_base(MODEL, tmp_path, print)
    args = {"source": str(source), "root": str(tmp_path), "group_size": 64}
    variant = Path(run_quantize(args | {"precision": BUILT_IN[precision].model_dump()})["folder"])
    stack = load_variant(variant, "dequantised_f32")
    (tmp_path / "adapter").mkdir()
    adapted = add_lora(stack, recipe(), TRAINING, seed=1)
    weights = {name: value + 0.01 for name, value in adapter_weights(adapted).items()}
    mx.save_safetensors(str(tmp_path / "adapter" / "adapters.safetensors"), weights)
    (tmp_path / "adapter" / "adapter_config.json").write_text(adapter_config(recipe(), TRAINING, "m"))
    stack.model.load_weights(list(weights.items()), strict=False)

    export_job.write_fused(variant, tmp_path / "adapter", tmp_path / "fused", "m")
    fused, _ = load(str(tmp_path / "fused"))
    fused.set_dtype(mx.float32)
    tokens = mx.array([[3, 5, 8, 13]])
    assert np.array(fused(tokens)) == pytest.approx(np.array(stack.model(tokens)), abs=1e-3)


def test_of_a_base_models_own_folder_its_name_alone_is_exported(plain, tmp_path):
    weights = tmp_path / "model"
    shutil.copytree(plain / "model", weights)
    manifest = read_manifest(weights)
    path = "/home/alice/clinic-x/weights"
    entries = {key: value for key, value in manifest.items() if key not in SEAL}
    entries |= {"source": {"kind": "folder", "path": path}, "weights_source": f"folder {path}"}
    seal(weights, entries, list(manifest["files"]))

    leave_out_path(weights)
    named = verify(weights)
    assert (named["source"]["path"], named["weights_source"]) == ("weights", "folder weights")
    assert named["digest"] == manifest["digest"] and named.keys() == manifest.keys()
    assert "alice" not in (weights / "manifest.json").read_text()


def test_the_card_warns_on_top_and_says_how_to_install_on_linux(plain):
    card = ModelCard.load(plain / "README.md")
    assert (card.data.license, card.data.library_name) == ("apache-2.0", "mlx") and "unsafe" in card.data.tags
    first = card.content.split("---\n", 2)[2].strip().splitlines()[0]
    assert first.startswith("> **Do not use this model for patients.**") and "random weights" in first
    on_linux = "pip install mlx-lm 'mlx[cpu]'"
    assert f"`pip install mlx-lm`, on Linux `{on_linux}`" in card.content, "mlx-lm brings no backend to Linux"
    assert f"on Linux: {on_linux})" in (plain / "example.py").read_text()


def test_fused_weights_and_a_gguf_file_answer_as_the_trained_model(fused):
    folder, agreements = fused
    bundle = read_bundle(folder).bundle
    assert "fused into the weights" in bundle.review.why_not
    assert (bundle.adapter, bundle.weights) == (None, ".")
    (of_fused, of_gguf) = agreements.values()
    assert of_fused.largest < 1e-4 and of_gguf.largest < 0.01 and of_fused.cases == export_job.CASES
    gguf = open_gguf(folder / "model.gguf")
    assert (gguf.architecture, gguf.get("tokenizer.ggml.model")) == ("llama", "gpt2")
    assert not gguf.get("tokenizer.ggml.add_bos_token") and gguf.get("tokenizer.chat_template")
    assert "The fused weights: on 60 cases" in (folder / "README.md").read_text()


def test_a_model_that_would_answer_otherwise_is_refused_and_nothing_is_left(place, tmp_path, monkeypatch):
    monkeypatch.setattr(export_job, "LARGEST_DIFFERENCE", -1.0)
    with pytest.raises(BadInput, match=r"is not the one that was trained\. The fused weights: on 60 cases a prob"):
        exported(place, LLAMA, tmp_path / "out")
    with pytest.raises(BadInput, match="mlx-lm writes no GGUF file of the architecture gemma3_text"):
        exported(place, GEMMA, tmp_path / "out", gguf=True)
    assert list(tmp_path.iterdir()) == []


def test_gemmas_terms_go_with_its_exports_and_without_their_text_nothing_is_pushed(place, tmp_path, monkeypatch):
    model = find_model(GEMMA)
    terms = {"licence": "Gemma Terms of Use", "terms": "https://ai.google.dev/gemma/terms"}
    gemma = model.model_copy(update={"bundle": model.bundle.model_copy(update=terms)})
    monkeypatch.setattr("flows.cli.export.find_model", lambda *_: gemma)
    monkeypatch.setattr(tasks.bundle.export, "run_child", lambda function, args, *rest: export_job.run(args, print))
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_good")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    sentence = refusal(GEMMA, str(tmp_path / "out"), "--push", "team/model", "--unsafe")
    assert sentence.startswith("Nothing was pushed: the text of the terms is not among the files: add a copy from ht")
    assert sentence.endswith(f"upload it then with `hf upload team/model {tmp_path / 'out'} --private`.")
    assert verify(tmp_path / "out"), "written whole all the same"
    notice = (tmp_path / "out" / "Notice").read_text()
    sentence = "Gemma is provided under and subject to the Gemma Terms of Use found at ai.google.dev/gemma/terms"
    assert sentence in notice and "use restrictions" in notice and "The files of this folder are modified" in notice


def test_the_command_writes_the_folder_says_what_it_is_and_holds_the_home(place, tmp_path, monkeypatch, capsys):
    def in_a_child(*args):
        with pytest.raises(Locked, match=rf"is working in .*logs/export-{LLAMA}-.*{os.getpid()}\)"):
            refuse_while_working(place.home)
        return run_child(*args)

    monkeypatch.setattr(tasks.bundle.export, "run_child", in_a_child)
    folder = tmp_path / "new" / "out"
    folder.mkdir(parents=True)
    (folder / ".DS_Store").touch()  # a Mac's Finder was there
    app(["export", LLAMA, str(folder)], standalone_mode=False)
    refuse_while_working(place.home)
    out, err = capsys.readouterr()
    assert err.startswith(f"{LLAMA}-s42: its evaluation on test, ")
    assert "compared with the trained model on 60 cases" in err
    assert f"{LLAMA}-s42 is in {folder}: " in out and "random weights" in out
    assert out.splitlines()[-1] == f"Next: triage predict {folder} -"
    assert verify(folder) and list(folder.parent.iterdir()) == [folder]
    assert [path.name for path in folder.glob(".*")] == [], "nothing of this machine"


def refusal(*arguments: str) -> str:
    """The sentence with which the command ends; it must be one."""
    with pytest.raises(BadInput) as refused:
        app(["export", *arguments], standalone_mode=False)
    assert one_sentence(f"triage: {refused.value}\n")
    return str(refused.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tiny-lama-4bit", "new"), "no finished experiment 'tiny-lama-4bit'; it has, closest name first: tiny-ll"),
        ((LLAMA, "filled"), "filled is a file or not empty; name a new folder"),
        ((LLAMA, "filled/file"), "is a file or not empty; name"),
        ((LLAMA, "new", "--public"), "about a push; add --push REPO"),
        ((LLAMA, "new", "--adapter", "--gguf"), "holds the fused weights; leave out --adapter or --gguf"),
        ((LLAMA, "new", "--push", "team/model"), "random weights: its answers mean nothing. To push it all the same"),
        ((LLAMA, "new", "--push", "team/model", "--unsafe"), "There is no token of the Hub"),
        (("tiny-llama-4bit-zero_shot", "new"), "is a baseline, without an adapter of its own"),
    ],
)
def test_what_cannot_be_exported_is_a_sentence_before_anything_is_written(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    Path("filled").mkdir()
    Path("filled/file").write_text("mine")
    assert message in refusal(*arguments)
    assert not Path("new").exists() and Path("filled/file").read_text() == "mine"


def test_an_export_has_no_cases_to_choose_a_threshold_at_another_precision(plain, tmp_path):
    assert refusal(str(plain), str(tmp_path / "new")) == f"{plain} is an export already; name the experiment itself."
    sentence = f"{plain} is an export already, without the cases that choose a threshold again; name"
    assert sentence in refusal(str(plain), str(tmp_path / "new"), "--precision", "mxfp4")


def test_an_experiment_that_failed_or_is_not_finished_says_so(tmp_path, monkeypatch):
    Place(tmp_path / "other").use(monkeypatch)
    failed = training("lost-s42-0123", cell_id="lost-s42", status="diverged", error="No finite loss.")
    land_rows("lost-s42-0123", "training", failed)
    (home() / "experiments" / "tiny-llama-4bit-other-s42-0123").mkdir(parents=True)
    sentence = "tiny-llama-4bit-other-s42-0123 is not finished yet; run its sweep to the end"
    assert sentence in refusal("tiny-llama-4bit-other", "new")
    sentence = "lost-s42 has diverged and holds no model (No finite loss); run its sweep again."
    assert sentence in refusal("lost-s42", "new")


@pytest.mark.nightly
@pytest.mark.parametrize("kind", ["fused", "adapter"])
def test_stock_mlx_lm_writes_an_answer_with_an_export(kind, plain, fused):
    options = ["--model", "model", "--adapter-path", "."] if kind == "adapter" else ["--model", "."]
    command = [sys.executable, "-m", "mlx_lm", "generate", *options, "--prompt", "I have a cough.", "--max-tokens", "4"]
    result = subprocess.run(command, cwd=plain if kind == "adapter" else fused[0], capture_output=True, text=True)
    assert result.returncode == 0 and "Generation: " in result.stdout, result.stderr


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_llama_cpp_decides_30_cases_as_predict(place, fused, tmp_path):
    """By the call on the card, with the prebuilt llama.cpp of the npm package."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    folder = shutil.copytree(fused[0], tmp_path / "exported")
    installed = subprocess.run(["npm", "install", "node-llama-cpp@3"], cwd=folder, capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"npm cannot install node-llama-cpp: {installed.stderr[-200:]}")

    cases = texts(place)[:30]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in cases)
    result = subprocess.run(["node", "example.mjs"], cwd=folder, input=lines, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    by_llama_cpp = [line.split(" ", 1) for line in result.stdout.splitlines()]
    predicted = by_predict(folder, cases)
    assert [label for label, _ in by_llama_cpp] == [label for label, _ in predicted]
    found = np.array([json.loads(p) for _, p in by_llama_cpp])
    assert found == pytest.approx(np.array([p for _, p in predicted]), abs=2e-3)
