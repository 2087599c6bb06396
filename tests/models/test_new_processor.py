"""How long a text may be, and a processor, found without a model's weights."""

import pytest
import tiny

from palam import PalamError
from palam.models.backbones.encoder import load_encoder
from palam.models.backbones.loading import load_tokenizer
from palam.models.model_config import ModelConfig
from palam.models.new_processor import build_processor, longest_text, longest_text_of


@pytest.mark.parametrize("family", tiny.ENCODERS)
def test_the_longest_text_is_the_same_without_weights(base_folder, family):
    name = str(base_folder(family))
    tokenizer = load_tokenizer(name)
    assert longest_text_of(name, tokenizer) == longest_text(load_encoder(name), tokenizer)


def test_what_the_encoder_does_not_take_is_refused(base_folder):
    name = str(base_folder("xlmr"))
    encoder = load_encoder(name)
    tokenizer = load_tokenizer(name)
    assert longest_text(encoder, tokenizer) == 128
    assert longest_text(encoder, tokenizer, 128) == 128
    with pytest.raises(PalamError, match="is 129, but the encoder takes at most 128 tokens"):
        longest_text(encoder, tokenizer, 129)


def test_a_processor_without_weights_has_all_of_the_configuration(base_folder):
    config = ModelConfig(
        encoder=str(base_folder("xlmr")),
        llm=str(base_folder("llama")),
        second_encoder=str(base_folder("bert")),
        prompt="{text}\nTopic:",
        max_length=16,
        append_source_tokens=True,
    )
    processor = build_processor(config)
    assert processor.max_length == 16
    assert processor.second_max_length == 32
    assert processor.second_encoder == config.second_encoder
    assert processor.append_source_tokens
    assert processor.template.suffix == "\nTopic:"
    text = " ".join(tiny.TEXT["en"].split())
    (row,) = processor.encode_texts([text])
    assert sum(token_id >= 0 for token_id in row["input_ids"]) == 16
