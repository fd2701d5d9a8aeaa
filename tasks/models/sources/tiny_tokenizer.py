"""The small tokenizer of models with random weights, trained on a few sentences."""

from __future__ import annotations

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from tasks.models.gguf_tokenizer import byte_level_with_single_digits, save_tokenizer, start_with
from tasks.runtime.errors import BadInput
from tasks.spec import LABELS

VOCABULARY = 768
SPECIAL = {"pad": "<|pad|>", "bos": "<|im_start|>", "eos": "<|im_end|>"}  # ids 0, 1, 2
# ChatML, as in SmolLM2: a system message is added where there is none.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SENTENCES = [
    "You are a triage nurse. Read the patient's message and answer with one word: ED, GP or HOME.",
    "Emergency department, now. General practitioner, in days. Home care and rest at home.",
    "Message: I have had a sore throat and a runny nose for two days, but no fever.\nAnswer: HOME",
    "Message: My chest feels tight and the pain goes into my left arm and jaw.\nAnswer: ED",
    "Message: The rash on my leg has been spreading for a week and it itches.\nAnswer: GP",
    (
        "Message: My daughter is two years old, hot, sleepy, and has not been drinking since this "
        "morning.\nAnswer: ED"
    ),
    (
        "Message: I cut my finger while cooking; the bleeding stopped after five "
        "minutes.\nAnswer: HOME"
    ),
    "Message: For three weeks I have been coughing and losing weight.\nAnswer: GP",
    "system user assistant ED GP HOME ED GP HOME ED GP HOME",
    "ED\nGP\nHOME\nED\nGP\nHOME\nED\nGP\nHOME",  # an answer of a chat has no space before it
    "The pain started suddenly, is severe, and gets worse when I breathe or move.",
    "There is no blood, no vomiting, no headache; I can eat, drink, walk and sleep as usual.",
    "BP 98/61, pulse 120, SpO2 91 %, temperature 38.5 C, weight 70 kg.",
]


def write_tiny_tokenizer(folder: Path, chat: bool) -> None:
    """Write a byte-level BPE tokenizer, with a chat template like SmolLM2's or plain like Gemma's.

    Raises BadInput if the installed tokenizers library does not learn the labels as tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    byte_level_with_single_digits(tokenizer)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        min_frequency=1,
        show_progress=False,
        special_tokens=[AddedToken(token, normalized=False) for token in SPECIAL.values()],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    _refuse_split_labels(tokenizer)

    if not chat:
        tokenizer.post_processor = start_with(SPECIAL["bos"], 1)

    special = {f"{name}_token": token for name, token in SPECIAL.items()}
    save_tokenizer(tokenizer, folder, special, CHAT_TEMPLATE if chat else None)


def _refuse_split_labels(tokenizer: Tokenizer) -> None:
    """Raise BadInput if a label, with or without a space before it, is not a single token."""
    for text in (*LABELS, *(f" {label}" for label in LABELS)):
        if len(tokenizer.encode(text).ids) != 1:
            raise BadInput(
                f"The tiny tokenizer cuts {text!r} into pieces; "
                "report this with your tokenizers version."
            )
