"""What is scored is what was trained: one template, token for token."""

from dataclasses import replace
from typing import get_args

import pytest
from transformers import AutoTokenizer

from tasks.corpus.prompts import encode, load_prompt, make_template
from tasks.grids.grid import known_models
from tasks.models.convert import run_quantize
from tasks.models.sources.fetch import fetch_base
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS, PromptChoice

VERSION = PromptChoice.model_fields["version"].annotation
TEXT = "I was needed at work with a BP of 98/61, SpO2 91 % and 38.5C. I recommended rest at home."
WORDS = {"ED": "emergency", "GP": "doctor", "HOME": "rest at home"}
CHOICES = [PromptChoice(), PromptChoice(version=2), PromptChoice(version=2, answers=WORDS)]


@pytest.fixture(scope="module", params=["tiny-llama", "tiny-gemma3"])
def tokenizer(request, tmp_path_factory):
    home = tmp_path_factory.mktemp("models")
    source = fetch_base(known_models()[request.param], home)
    variant = run_quantize({"source": str(source), "root": str(home), "bits": 4, "group_size": 64})
    return AutoTokenizer.from_pretrained(variant["folder"]), variant["prompt"] == "chat"


@pytest.fixture(scope="module")
def template(tokenizer):
    return make_template(tokenizer[0], load_prompt(), tokenizer[1])


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.title or "default")
def test_prompt_and_completion_are_the_tokens_of_the_whole_conversation(tokenizer, choice):
    prompt = load_prompt(choice)
    template = make_template(tokenizer[0], prompt, tokenizer[1])

    for k, label in enumerate(map(prompt.answer, LABELS)):
        case = encode(template, "a", TEXT, LABELS[k], 2048)
        tokens = list(case.prompt + template.completions[k])
        if template.chat:
            messages = [*prompt.messages(TEXT), {"role": "assistant", "content": label}]
            whole = template.tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        else:
            whole = template.tokenizer.encode(prompt.plain_text(TEXT))
            whole += template.tokenizer.encode(f" {label}{prompt.plain_end}", add_special_tokens=False)

        assert tokens == list(whole)
        text = template.tokenizer.decode(tokens)
        if not template.chat:
            examples = [f"Message: {one.text}\nAnswer: {prompt.answer(one.label)}\n" for one in prompt.examples]
            whole_prompt = f"{prompt.instruction}\n\n{''.join(examples)}Message: {TEXT}\nAnswer:"
            assert text.endswith(f"{whole_prompt} {label}\n")

        assert TEXT in text and prompt.instruction in text
        assert template.tokenizer.decode(list(template.completions[k])[: template.label_lengths[k]]).strip() == label


def test_a_prompts_text_changes_only_with_its_version():
    prompts = [load_prompt(PromptChoice(version=version)) for version in get_args(VERSION)]
    assert {prompt.version: prompt.digest for prompt in prompts} == {1: "5f8e8a155a5a", 2: "8261ab809bd8"}, (
        "add a version to prompts.toml and to PromptChoice, then pin it here"
    )


def test_the_instruction_names_the_answer_words_and_the_examples_show_each_label_once():
    words = load_prompt(PromptChoice(answers=WORDS))
    assert words.instruction.endswith(
        "answer with one of: emergency (emergency department, now), doctor (general practitioner, in days) or "
        "rest at home (home care)."
    )
    one = load_prompt(PromptChoice(answers=WORDS | {"HOME": "home"}))
    assert "answer with one word: emergency (" in one.instruction and one.digest != words.digest
    assert PromptChoice(answers={label: label for label in LABELS}) == PromptChoice()

    prompt = load_prompt(PromptChoice(version=2, answers=WORDS))
    assert sorted(example.label for example in prompt.examples) == sorted(LABELS)
    messages = prompt.messages(TEXT)
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 3, "user"]
    assert [message["content"] for message in messages[2::2]] == [WORDS[example.label] for example in prompt.examples]


def test_an_overlong_text_loses_its_middle_and_says_so_and_no_text_is_parsed(template):
    long = "start " + "word " * 400 + "finish"
    case = encode(template, "a", long, "GP", 256)
    assert case.shortened and len(case.prompt) + max(map(len, template.completions)) <= 256
    text = template.tokenizer.decode(list(case.prompt))
    assert "start" in text and "finish" in text and "..." in text
    assert not encode(template, "a", TEXT, "GP", 2048).shortened

    for too_few in (8, 1):  # less than the instruction, and less than an answer
        with pytest.raises(BadInput, match="its longest answer alone are longer than max_tokens"):
            encode(template, "a", long, "GP", too_few)


class GivenTokens:
    def __init__(self, **tokens: tuple[int, ...]):
        self.tokens = tokens

    def encode(self, text, add_special_tokens=True):
        if add_special_tokens:
            return [1, 2]
        return [*self.tokens[text.split()[0]], 99]

    def decode(self, tokens):
        return next((label for label, its in self.tokens.items() if [*its] == tokens), "?")


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ({"ED": (14,), "GP": (7,), "HOME": (14, 24)}, "label HOME begins like ED in this tokenizer"),
        ({"ED": (14,), "GP": (7,), "HOME": (7,)}, "does not give the label HOME back"),
        ({"HOME": (7,), "GP": (8,), "rest": (7,)}, "does not give the answer 'rest' of the label HOME back"),
    ],
)
def test_labels_that_tokens_do_not_tell_apart_are_refused(tokens, sentence):
    answers = {"ED": "HOME", "GP": "GP", "HOME": "rest"} if "rest" in tokens else None
    prompt = load_prompt(PromptChoice(answers=answers)) if answers else replace(load_prompt(), plain_end=" end")
    with pytest.raises(BadInput, match=sentence):
        make_template(GivenTokens(**tokens), prompt, chat=False)
