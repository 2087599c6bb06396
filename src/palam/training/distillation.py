"""TODO palam.training.distillation."""

from dataclasses import replace

from palam.errors import PalamError
from palam.inference import generation as generate
from palam.models.modeling import PalamModel
from palam.models.template import Template
from palam.tasks.readers import read_texts
from palam.training.config import TrainConfig
from palam.training.data import PrefixDataset, seeded_number

ANSWER_TOKENS = 28  # of an answer to a prompt


def answer_prompts_with_llm(settings: TrainConfig, data: PrefixDataset, model: PalamModel) -> None:
    """Let the LLM answer one of the prompts about each text, which it reads itself: this is then learned too."""
    prompts = list(read_texts(str(settings.prompts)))
    if not prompts:
        raise PalamError(f"{settings.prompts} holds no prompt")
    for number, prompt in enumerate(prompts):
        template = Template.build(settings.mode, prompt, model.processor.llm_tokenizer)
        asking = PalamModel(
            model.encoder, model.bridge, model.llm, replace(model.processor, template=template)
        )
        rows = [
            row
            for row in range(len(data))
            if seeded_number("prompt", settings.seed, row) % len(prompts) == number
        ]
        texts, languages = [data.texts[row] for row in rows], [data.language] * len(rows)
        said = generate(asking, texts, llm_only=True, max_new_tokens=ANSWER_TOKENS)
        features = (
            asking.processor.features(texts, said, languages, llm_only=llm_only)
            for llm_only in (False, True)
        )
        for row, answer, read, own in zip(rows, said, *features, strict=True):
            if answer:
                data.asked[row] = read | {"teacher_ids": own["input_ids"], "row": row}
