"""Two encoders in one bridge: their fused states side by side before the mapper."""

import json
import shutil

import pytest
import torch
from tiny import TEXT

from palam import PalamError, PalamModel, align, generate, score_labels
from palam.inference.layer_weights import layer_weights
from palam.models.backbones.encoder import encode
from palam.models.backbones.encoder_pair import EncoderPair
from palam.models.model_card import model_card
from palam.models.processing import PalamProcessor
from palam.training.encoder_cache import EncoderStateCache

TEXTS = [TEXT["en"][:70], TEXT["si"][:20], "x", TEXT["am"]]
LABELS = ["sports", "health"]
SECONDS = ["xlmr", "t5", "modernbert"]


@pytest.fixture
def pair(tiny_model, base_folder):
    """A bridge from a tiny BERT and another tiny encoder."""

    def build(second="xlmr", encoder="bert", **options):
        settings = {"mode": "prompt", "normalize": "layer", **options}
        return tiny_model(encoder, second_encoder=str(base_folder(second)), **settings)

    return build


def states_alone(encoder, tokenizer, text):
    """An encoder's layers of one text, with the characters of each token."""
    encoded = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    ids = torch.tensor([encoded["input_ids"]])
    layers = [state[0] for state in encode(encoder, ids, torch.ones_like(ids))]
    return layers, encoded["offset_mapping"], encoded["special_tokens_mask"]


@pytest.mark.parametrize("second", SECONDS)
def test_states_stand_side_by_side_at_the_first_ones_tokens(pair, second):
    model = pair(second)
    assert isinstance(model.encoder, EncoderPair)
    text = TEXT["en"][:60]
    batch = model.processor([text])
    layers = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
    first, spans, special = states_alone(
        model.encoder.first, model.processor.encoder_tokenizer, text
    )
    other, other_spans, other_special = states_alone(
        model.encoder.second, model.processor.second_tokenizer, text
    )
    assert len(layers) == len(first) + len(other)
    for mine, expected in zip(layers, first, strict=False):
        assert torch.allclose(mine, expected, atol=1e-5)
    starts = [start for start, _ in spans]
    checked = 0
    for token, (start, end) in enumerate(spans):
        if special[token]:
            continue
        following = [other for other in starts[token + 1 :] if other > start]
        upto = following[0] if following else end + 99
        members = [
            place
            for place, (begin, _) in enumerate(other_spans)
            if not other_special[place] and start <= begin < upto
        ]
        if members:
            checked += 1
            for mine, layer in zip(layers[len(first) :], other, strict=True):
                assert torch.allclose(mine[token], layer[members].mean(0), atol=1e-5)
    assert checked > 5


@pytest.mark.parametrize("fusion", ["mean", "global_softmax", "transformer_softmax", "last"])
def test_the_mapper_reads_both_fused(pair, fusion):
    model = pair(fusion=fusion)
    batch = model.processor(TEXTS)
    layers = model.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
    count = model.config.encoder_num_layers
    bridge = model.bridge
    fused = torch.cat(
        [bridge.fusion(layers[:count])[0], bridge.second_fusion(layers[count:])[0]], -1
    )
    assert fused.shape[-1] == bridge.fused_size
    assert torch.equal(bridge(layers)[0], bridge.mapper(fused))


def test_a_batch_is_as_its_texts_alone(pair):
    model = pair("t5")
    together = score_labels(model, TEXTS, LABELS)
    alone = torch.cat([score_labels(model, [text], LABELS) for text in TEXTS])
    assert torch.allclose(together, alone, atol=1e-4)
    answers = generate(model, TEXTS, max_new_tokens=4)
    assert answers == [generate(model, [text], max_new_tokens=4)[0] for text in TEXTS]


def test_the_second_encoder_counts(pair):
    model = pair()
    before = score_labels(model, TEXTS, LABELS)
    with torch.no_grad():
        model.encoder.second.get_input_embeddings().weight.mul_(3)
    assert not torch.allclose(before, score_labels(model, TEXTS, LABELS), atol=1e-3)


def test_a_text_that_is_cut_is_cut_for_both(pair):
    model = pair(max_length=8)
    (features,) = model.processor.encode_texts([TEXT["en"]], return_offsets_mapping=True)
    ids = features["input_ids"]
    assert sum(token_id >= 0 for token_id in ids) == 8
    end = max(end for _, end in features["offset_mapping"])
    (shorter,) = model.processor.encode_texts([TEXT["en"][:end]])
    assert [token_id for token_id in ids if token_id < 0] == [
        token_id for token_id in shorter["input_ids"] if token_id < 0
    ]


def test_saved_then_loaded_it_is_as_before(pair, tmp_path):
    model = pair(fusion="global_softmax")
    expected = score_labels(model, TEXTS, LABELS)
    model.save_pretrained(tmp_path / "bridge")
    saved = {path.name for path in (tmp_path / "bridge").iterdir()}
    assert saved == {"config.json", "model.safetensors", "processor_config.json", "README.md"}
    loaded = PalamModel.from_pretrained(tmp_path / "bridge")
    assert torch.equal(score_labels(loaded, TEXTS, LABELS), expected)
    again = PalamModel.from_pretrained(tmp_path / "bridge", loaded.encoder, loaded.llm)
    assert again.encoder is loaded.encoder
    assert torch.equal(score_labels(again, TEXTS, LABELS), expected)


def test_a_second_encoder_that_has_moved_or_is_another(pair, base_folder, tmp_path):
    model = pair()
    expected = score_labels(model, TEXTS, LABELS)
    folder = tmp_path / "bridge"
    model.save_pretrained(folder)
    moved = shutil.copytree(base_folder("xlmr"), tmp_path / "moved")
    loaded = PalamModel.from_pretrained(folder, second_encoder=str(moved))
    assert torch.equal(score_labels(loaded, TEXTS, LABELS), expected)
    loaded.save_pretrained(tmp_path / "again")
    named = json.loads((tmp_path / "again" / "processor_config.json").read_text())
    assert named["second_encoder"] == str(base_folder("xlmr"))
    with pytest.raises(PalamError, match="is not the second encoder that this bridge was trained"):
        PalamModel.from_pretrained(folder, second_encoder=str(base_folder("xlmr", seed=5)))
    with pytest.raises(PalamError, match="this bridge has two encoders, and one is given"):
        PalamModel.from_pretrained(folder, model.encoder.first)


def test_a_bridge_with_one_encoder_takes_no_second(tiny_model, pair, base_folder, tmp_path):
    tiny_model().save_pretrained(tmp_path / "bridge")
    with pytest.raises(PalamError, match="this bridge has one encoder; give no second one"):
        PalamModel.from_pretrained(tmp_path / "bridge", second_encoder=str(base_folder("xlmr")))
    with pytest.raises(PalamError, match="this bridge has one encoder, and two are given"):
        PalamModel.from_pretrained(tmp_path / "bridge", pair().encoder)


def test_a_processor_for_one_encoder_is_refused(pair, tmp_path):
    folder = tmp_path / "bridge"
    pair().save_pretrained(folder)
    path = folder / "processor_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "second_encoder": None}))
    with pytest.raises(PalamError, match="encoders: 2, and the processor is for 1"):
        PalamModel.from_pretrained(folder)


def test_a_tokenizer_without_offsets_is_refused(pair):
    class Slow:
        is_fast = False

    model = pair()
    with pytest.raises(PalamError, match="the second encoder's tokenizer gives no character"):
        PalamProcessor(
            model.processor.encoder_tokenizer,
            model.processor.llm_tokenizer,
            second_tokenizer=Slow(),
        )


@pytest.mark.parametrize("fusion", ["mean", "global_softmax"])
def test_kept_states_are_those_that_would_be_computed(pair, fusion, tmp_path):
    model = pair("t5", fusion=fusion)
    batch = model.processor(TEXTS)
    ids, mask = batch["encoder_input_ids"], batch["encoder_attention_mask"]
    expected = model.live_encoding.mapped(ids, mask)
    cache = EncoderStateCache(model, 10**8, tmp_path)
    cache.fill([row["input_ids"] for row in model.processor.encode_texts(TEXTS)])
    assert len(cache.states) == len(TEXTS)
    assert torch.allclose(cache.mapped(ids, mask), expected, atol=1e-5)


@pytest.mark.parametrize("fusion", ["mean", "global_softmax"])
def test_the_start_is_solved_from_both(pair, fusion):
    texts = [TEXT["en"][start : start + 60] for start in range(0, 300, 7)]
    alone = pair("xlmr", fusion=fusion)
    result = align(alone, texts)
    assert result.tokens > 200
    assert alone.bridge.mapper.readout.weight.any(0).all()


def test_what_layers_count(pair):
    view = layer_weights(pair("t5", fusion="global_softmax"), TEXTS[0])
    assert view.weights.shape == view.norms.shape == (len(view.tokens), 6)
    assert torch.allclose(view.weights[:, :3].sum(1), torch.ones(len(view.tokens)))
    assert torch.allclose(view.weights[:, 3:].sum(1), torch.ones(len(view.tokens)))


def test_the_card_names_both(pair):
    model = pair()
    card = model_card(model.config, parameters=1, template=model.processor.template, max_length=64)
    assert "# A Palam bridge: bert + xlmr → llama" in card
    assert "The second encoder, **xlmr**, was a local folder in training" in card
