"""The whole: a frozen encoder, the bridge, a frozen LLM.

The bases are loaded first and the bridge is built beside them; `PalamModel` only joins them, and
saving it saves the bridge alone.
"""

import dataclasses
import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from palam.errors import PalamError
from palam.models.backbones.adapters import load_adapter, with_lora
from palam.models.backbones.encoder import encoder_max_length, encoder_shape, load_encoder
from palam.models.backbones.llm import (
    check_llm,
    compile_layers,
    embedding_rms,
    enable_checkpointing,
    keep_frozen,
    load_llm,
    with_compiled,
)
from palam.models.backbones.loading import freeze, load_tokenizer
from palam.models.bridge import PalamBridge
from palam.models.checkpoint import (
    ADAPTER_FOLDER,
    CHECKPOINT_MARKER,
    load_bridge,
    push_checkpoint,
    write_checkpoint,
)
from palam.models.configuration import PalamConfig
from palam.models.encoding import LiveEncoding, TextEncoding
from palam.models.fingerprint import check_fingerprint, fingerprint
from palam.models.model_card import CARD
from palam.models.model_config import ModelConfig, option_defaults
from palam.models.processing import IGNORE, PalamProcessor
from palam.models.registry import FUSIONS, MAPPERS
from palam.models.sequence import LLMInputs, MappedText, build_llm_inputs
from palam.models.template import Template
from palam.utils.device import Placement
from palam.utils.files import atomic_directory

DEFAULT_MAX_LENGTH = 256


class Bases(NamedTuple):
    """Loaded base models."""

    encoder: PreTrainedModel
    llm: PreTrainedModel


class BatchInputs(TypedDict, total=False):
    """What a [`PalamProcessor`] makes of texts, and a [`PalamModel`] takes."""

    encoder_input_ids: Tensor | None
    """[batch, text tokens], for the encoder; None if the LLM reads the text itself."""
    encoder_attention_mask: Tensor | None
    """[batch, text tokens]; None is all real."""
    input_ids: Tensor | None
    """[batch, LLM tokens] with `TEXT_SLOT` where the text stands; None is the text alone."""
    attention_mask: Tensor | None
    """[batch, LLM tokens]; None is all real."""
    labels: Tensor | None
    """[batch, LLM tokens], `-100` where there is no loss."""


class PalamModel(nn.Module):
    """Encoder → fusion → mapper → LLM, in evaluation. Made by `from_bases` or `from_pretrained`.

    Both base models are frozen: no gradient and no dropout, whatever `train()` is called.

    Attributes:
        encoder, llm: the frozen base models.
        bridge: the [`PalamBridge`], all that is trained (besides an optional LoRA on the LLM).
        processor: the [`PalamProcessor`] that makes this model's inputs.
        encoding: what maps texts; the live encoder, unless states that were kept take its place.
        card: the model card's text, if it was loaded with one; it is saved again.
    """

    accepts_loss_kwargs = True

    def __init__(
        self,
        encoder: PreTrainedModel,
        bridge: PalamBridge,
        llm: PreTrainedModel,
        processor: PalamProcessor,
    ) -> None:
        super().__init__()
        self.encoder: Any = freeze(encoder)
        self.bridge = bridge
        self.llm: Any = freeze(llm)
        self.processor = processor
        self.live_encoding = LiveEncoding(self.encoder, bridge)
        self.encoding: TextEncoding = self.live_encoding
        self.card: str | None = None
        self._compiled_layers: list[Any] = []
        inside_lora = hasattr(self.llm, "get_base_model")
        bare_llm = self.llm.get_base_model() if inside_lora else self.llm
        self._llm_arguments = set(inspect.signature(bare_llm.forward).parameters)
        self.eval()

    # ------------------------------------------------------------------ making and loading
    @classmethod
    def from_bases(
        cls, encoder: str | PreTrainedModel, llm: str | PreTrainedModel, **options: Any
    ) -> "PalamModel":
        """A new bridge between two base models.

        Args:
            encoder, llm: hub ids, folders, `starter:encoder` and `starter:llm`, or loaded models.
            **options: the other settings of [`ModelConfig`], whose defaults are taken; options of
                the fusion and the mapper, e.g. `rank=32`, `hidden_size=1024`; those of
                [`Placement`]; and `processor` and `seed`, as `from_config` takes them.

        Raises:
            PalamError: a model that cannot be used or found, or an unknown name or option.
        """
        loaded = {"encoder": encoder, "llm": llm}
        names = {
            part: base if isinstance(base, str) else base.name_or_path
            for part, base in loaded.items()
        }
        settings: dict[str, Any] = {}
        for field in dataclasses.fields(ModelConfig):
            if field.name in options:
                settings[field.name] = options.pop(field.name)
        others = Placement.__annotations__.keys() | {"processor", "seed"}
        own = {name: options.pop(name) for name in list(options) if name not in others}
        config = _with_own_options(ModelConfig(**names, **settings), own)
        bases = {part: base for part, base in loaded.items() if not isinstance(base, str)}
        return cls.from_config(config, **bases, **options)

    @classmethod
    def from_config(
        cls,
        config: ModelConfig,
        *,
        encoder: PreTrainedModel | None = None,
        llm: PreTrainedModel | None = None,
        processor: PalamProcessor | None = None,
        seed: int = 0,
        **placement: Unpack[Placement],
    ) -> "PalamModel":
        """A new bridge as a configuration describes it.

        Args:
            config: the base models' names, the bridge and the template.
            encoder, llm: the base models if they are loaded already, in place of loading them.
            processor: None is one of the bases' tokenizers and the configuration's template.
            seed: of the bridge's initial weights.
            **placement: of the base models. The bridge's own weights are always fp32.

        Raises:
            PalamError: a model that cannot be used or found.
        """
        bases = _load_bases(config, encoder, llm, placement)
        processor = processor or _new_processor(config, bases)
        width, layers = encoder_shape(bases.encoder)
        bridge_config = PalamConfig(
            encoder=config.encoder,
            encoder_revision=config.encoder_revision,
            llm=config.llm,
            llm_revision=config.llm_revision,
            encoder_hidden_size=width,
            encoder_num_layers=layers,
            llm_hidden_size=_llm_width(bases.llm),
            fusion=config.fusion,
            fusion_options=config.all_fusion_options,
            mapper=config.mapper,
            mapper_options=config.mapper_options,
            embedding_rms=embedding_rms(bases.llm),
            fingerprints=_fingerprints(bases, processor),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bridge = PalamBridge(bridge_config).to(_embedding_device(bases.llm))
            model = cls(bases.encoder, bridge, bases.llm, processor)
            model._scale_mapper_to_embeddings()
        return model

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        encoder: str | PreTrainedModel | None = None,
        llm: str | PreTrainedModel | None = None,
        *,
        revision: str | None = None,
        allow_mismatch: bool = False,
        **placement: Unpack[Placement],
    ) -> "PalamModel":
        """Load a bridge and the base models that it names.

        Args:
            path: checkpoint folder or hub id.
            encoder, llm: where the base models are, if not where the checkpoint says; or the
                loaded models.
            revision: of the checkpoint on the hub.
            allow_mismatch: load base models that are not those the bridge was trained with, if the
                shapes fit.
            **placement: of the base models.

        Raises:
            PalamError: no checkpoint there, a base model that is missing, or one that is another.
        """
        bridge = load_bridge(path, revision)
        config = bridge.config
        named = {
            part: base if base is None or isinstance(base, str) else base.name_or_path
            for part, base in {"encoder": encoder, "llm": llm}.items()
        }
        processor = PalamProcessor.from_pretrained(path, revision=revision, **named)
        # A base model that has moved is saved under its old name.
        processor.encoder, processor.llm = config.encoder, config.llm
        where = ModelConfig(
            encoder=named["encoder"] or config.encoder,
            encoder_revision=None if encoder else config.encoder_revision,
            llm=named["llm"] or config.llm,
            llm_revision=None if llm else config.llm_revision,
        )
        bases = _load_bases(
            where,
            None if isinstance(encoder, str) else encoder,
            None if isinstance(llm, str) else llm,
            placement,
        )
        if not allow_mismatch:
            _check_fingerprints(config, bases, processor)
        _check_shapes(config, bases)
        bridge = bridge.to(_embedding_device(bases.llm))
        llm_model = bases.llm
        if config.adapter:
            llm_model = load_adapter(llm_model, str(path), ADAPTER_FOLDER, revision)
        model = cls(bases.encoder, bridge, llm_model, processor)
        card = Path(path) / CARD
        if card.is_file() and not allow_mismatch:
            model.card = card.read_text(encoding="utf-8")
        return model

    def _scale_mapper_to_embeddings(self) -> None:
        """Scale the mapper so that its output has the RMS of the LLM's embeddings, on any tokens."""
        vocabulary = self.encoder.get_input_embeddings().weight.shape[0]
        ids = torch.randint(vocabulary, (8, 32))
        with torch.no_grad(), self.evaluating():
            mapped = self.live_encoding.mapped(ids, torch.ones_like(ids))
        rms = mapped.float().square().mean().sqrt().item()
        self.bridge.mapper.rescale(self.config.embedding_rms / rms)

    # ------------------------------------------------------------------ what it is
    @property
    def config(self) -> PalamConfig:
        """The bridge's configuration."""
        bridge: Any = self.bridge
        config: PalamConfig = bridge.config
        return config

    @property
    def device(self) -> torch.device:
        """Where the bridge and the LLM's embeddings are."""
        return self.bridge.boundary.device

    def add_lora(
        self, rank: int = 8, alpha: int | None = None, target_modules: Any = "all-linear"
    ) -> None:
        """Put a trainable LoRA on the frozen LLM; it is saved beside the bridge as a PEFT adapter.

        Args:
            rank, alpha: of the adapter; alpha is 2 · rank if None.
            target_modules: see peft's `LoraConfig`.

        Raises:
            PalamError: peft is not installed, or there is an adapter already.
        """
        if self.config.adapter:
            raise PalamError("the LLM has a LoRA adapter already")
        self.llm = with_lora(self.llm, rank, alpha or 2 * rank, target_modules)
        self.config.adapter = True
        self.card = None
        self.train(self.training)

    def train(self, mode: bool = True) -> "PalamModel":
        """Set the bridge to training or evaluation; the base models stay in evaluation."""
        super().train(mode)
        self.encoder.eval()
        keep_frozen(self.llm, mode)
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation within the block (no dropout, the LLM keeps its cache), then as it was."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None
    ) -> None:
        """Recompute the LLM's activations in the backward pass instead of keeping them."""
        enable_checkpointing(self.llm, gradient_checkpointing_kwargs)
        self.train(self.training)

    def compile_llm(self) -> None:
        """Compile the LLM's layers for steps with a gradient; see [`compile_layers`]."""
        self._compiled_layers = compile_layers(self.llm)

    # ------------------------------------------------------------------ saving
    def save_pretrained(self, folder: str | os.PathLike[str], card: str | None = None) -> None:
        """Save the bridge alone: configuration, weights, template and model card.

        The folder appears, or is replaced, at once: a crash leaves the old one or none.

        Args:
            folder: new, empty, or an older checkpoint.
            card: the model card's text; None is the one it was loaded with, or one written from
                the configuration.

        Raises:
            PalamError: the folder holds something else, or cannot be written.
        """
        with atomic_directory(folder, marker=CHECKPOINT_MARKER) as aside:
            self.write_checkpoint(aside, card)

    def write_checkpoint(self, folder: Path, card: str | None = None) -> None:
        """Write the checkpoint's files into an existing folder (`save_pretrained` does it safely)."""
        write_checkpoint(folder, self.bridge, self.processor, self.llm, card or self.card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        **options: Any,
    ) -> str:
        """Upload the checkpoint to the hub and return its address.

        Args:
            repo_id: `name` or `organisation/name`; created if it does not exist.
            private, token: see `huggingface_hub.HfApi.create_repo`.
            **options: for `HfApi.upload_folder`, e.g. `commit_message`, `revision`, `create_pr`.
        """
        parts = (self.bridge, self.processor, self.llm, self.card)
        return push_checkpoint(repo_id, *parts, private=private, token=token, **options)

    # ------------------------------------------------------------------ reading
    def encode(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The encoder's L layers at the real tokens: L tensors [tokens, d_enc], with the bridge.

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].
        """
        return self.live_encoding.layers(ids, mask)

    def embed(self, ids: Tensor) -> Tensor:
        """The LLM's input embeddings of ids, by its own module (some scale inside it)."""
        vectors: Tensor = self.llm.get_input_embeddings()(ids)
        return vectors

    def llm_inputs(self, **batch: Unpack[BatchInputs]) -> LLMInputs:
        """Map the texts and join all that the LLM reads; see [`build_llm_inputs`].

        Raises:
            PalamError: nothing to read, more than one slot in a row, or a slot without a text.
        """
        encoder_ids = batch.get("encoder_input_ids")
        input_ids = batch.get("input_ids")
        if input_ids is None:
            if encoder_ids is None:
                raise PalamError("nothing to read: give encoder_input_ids or input_ids")
            input_ids = torch.zeros(len(encoder_ids), 0, dtype=torch.long)
        text = None
        if encoder_ids is not None:
            mask = batch.get("encoder_attention_mask")
            mask = torch.ones_like(encoder_ids) if mask is None else mask
            mapped = self.encoding.mapped(encoder_ids, mask)
            text = MappedText(mapped, mask, self.bridge.boundary)
        return build_llm_inputs(
            self.embed,
            input_ids.to(self.device),
            batch.get("attention_mask"),
            text,
            batch.get("labels"),
        )

    def forward(
        self,
        *,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        **batch: Any,
    ) -> CausalLMOutputWithPast:
        """Read texts through the bridge.

        Args:
            logits_to_keep: how many positions, counted from the end, get logits; 0 is all. Only
                labels after the first of them count in the loss.
            num_items_in_batch: number of labels over which the loss is averaged; None is this
                batch's own.
            **batch: see [`BatchInputs`]; what else trainers pass is ignored.

        Returns:
            `loss` (mean cross-entropy per label, or None) and `logits` [batch, positions,
            vocabulary]. Sequences end at the last position: rows are padded on the left.
        """
        inputs: Any = {name: batch[name] for name in BatchInputs.__annotations__ if name in batch}
        joined = self.llm_inputs(**inputs)
        logits = self.run_llm(joined, logits_to_keep).logits
        loss = None
        if joined.labels is not None:
            targets = joined.labels[:, -logits.shape[1] :][:, 1:].to(logits.device)
            scores = logits[:, :-1].float().flatten(0, 1)
            total = F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORE, reduction="sum")
            own_count = (targets != IGNORE).sum().clamp(min=1)
            loss = total / (own_count if num_items_in_batch is None else num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    def run_llm(
        self,
        inputs: LLMInputs,
        logits_to_keep: int = 0,
        *,
        use_cache: bool = False,
        cache: Any = None,
    ) -> Any:
        """The LLM over its input, after what a cache holds.

        Args:
            inputs: of `llm_inputs`.
            logits_to_keep: at how many last positions logits are wanted; 0 is all.
            use_cache: whether the output has a cache.
            cache: of what was read before, or None.
        """
        embeds = inputs.inputs_embeds
        total = embeds.shape[1]
        arguments: dict[str, Any] = {
            "attention_mask": inputs.attention_mask,
            "use_cache": use_cache,
        }
        if cache is not None:
            # transformers' newer releases call it `cache`, and warn of the old name.
            name = "cache" if "cache" in self._llm_arguments else "past_key_values"
            arguments[name] = cache
        if "position_ids" in self._llm_arguments:
            arguments["position_ids"] = inputs.position_ids
        keep = 0 if logits_to_keep >= total else logits_to_keep
        if keep and "logits_to_keep" in self._llm_arguments:
            # An index tensor: an int slices a view whose matmul copies the whole vocabulary
            # matrix once per row.
            arguments["logits_to_keep"] = torch.arange(total - keep, total, device=embeds.device)
        compiled = self._compiled_layers if torch.is_grad_enabled() and not use_cache else []
        with with_compiled(compiled):
            output = self.llm(inputs_embeds=embeds, **arguments)
        if keep and output.logits.shape[1] != keep:
            output.logits = output.logits[:, -keep:]
        return output

    @torch.no_grad()
    def generate(self, **options: Any) -> Any:
        """Let the LLM continue, in evaluation.

        It stops at the LLM's own stop tokens and at its tokenizer's EOS, with which answers end in
        training.

        Args:
            **options: the batch, see [`BatchInputs`]; all else is for transformers' `generate`.

        Returns:
            The new ids [batch, n], without the prompt.
        """
        names = [name for name in BatchInputs.__annotations__ if name in options]
        batch: Any = {name: options.pop(name) for name in names}
        if "generation_config" not in options:
            options = {**self._stopping(), **options}
        if "logits_to_keep" in self._llm_arguments:  # an index, see `run_llm`
            options.setdefault("logits_to_keep", torch.tensor([-1], device=self.device))
        with self.evaluating():
            inputs = self.llm_inputs(**batch)
            return self.llm.generate(
                inputs_embeds=inputs.inputs_embeds,
                attention_mask=inputs.attention_mask,
                **options,
            )

    def _stopping(self) -> dict[str, Any]:
        """Where generation stops, and what fills up the rows that have."""
        tokenizer = self.processor.llm_tokenizer
        eos = tokenizer.eos_token_id
        if eos is None:
            return {}
        defaults = self.llm.generation_config
        stops = defaults.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        options: dict[str, Any] = {"eos_token_id": list({eos, *stops} - {None})}
        if defaults.pad_token_id is None:
            pad = tokenizer.pad_token_id
            options["pad_token_id"] = eos if pad is None else pad
        return options


def _with_own_options(config: ModelConfig, own: dict[str, Any]) -> ModelConfig:
    """A configuration with options that are the fusion's or the mapper's, whichever has them.

    Raises:
        PalamError: an option that neither has; the message lists those that there are.
    """
    of_fusion = set(option_defaults(FUSIONS, config.fusion))
    of_mapper = set(option_defaults(MAPPERS, config.mapper))
    unknown = sorted(set(own) - of_fusion - of_mapper)
    if unknown:
        listed = ", ".join(sorted(of_fusion | of_mapper)) or "none"
        raise PalamError(
            f"{unknown[0]!r} is no option of {config.fusion} and {config.mapper}; "
            f"their options are: {listed}"
        )
    fusion_options = {name: value for name, value in own.items() if name in of_fusion}
    mapper_options = {name: value for name, value in own.items() if name not in of_fusion}
    return dataclasses.replace(
        config,
        fusion_options=config.fusion_options | fusion_options,
        mapper_options=config.mapper_options | mapper_options,
    )


def _load_bases(
    config: ModelConfig,
    encoder: PreTrainedModel | None,
    llm: PreTrainedModel | None,
    placement: Placement,
) -> Bases:
    """The base models, loaded where they are not given, and checked."""
    if encoder is None:
        on_one_device = placement.copy()
        on_one_device.pop("device_map", None)
        encoder = load_encoder(config.encoder, revision=config.encoder_revision, **on_one_device)
    if llm is None:
        llm = load_llm(config.llm, revision=config.llm_revision, **placement)
    check_llm(llm)
    return Bases(encoder, llm)


def _new_processor(config: ModelConfig, bases: Bases) -> PalamProcessor:
    """A processor of the bases' tokenizers.

    Raises:
        PalamError: a `max_length` that is more than the encoder takes.
    """
    encoder_tokenizer = load_tokenizer(config.encoder, config.encoder_revision)
    llm_tokenizer = load_tokenizer(config.llm, config.llm_revision)
    longest = encoder_max_length(bases.encoder, encoder_tokenizer)
    if config.max_length is not None and config.max_length > longest:
        raise PalamError(
            f"max_length is {config.max_length}, but the encoder takes at most {longest} tokens"
        )
    return PalamProcessor(
        encoder_tokenizer,
        llm_tokenizer,
        encoder=config.encoder,
        llm=config.llm,
        template=Template.build(config.mode, config.prompt, llm_tokenizer),
        max_length=config.max_length or min(DEFAULT_MAX_LENGTH, longest),
        append_source_tokens=config.append_source_tokens,
    )


def _embedding_device(llm: PreTrainedModel) -> torch.device:
    embeddings: Any = llm.get_input_embeddings()
    device: torch.device = embeddings.weight.device
    return device


def _llm_width(llm: PreTrainedModel) -> int:
    embeddings: Any = llm.get_input_embeddings()
    return int(embeddings.weight.shape[-1])


def _fingerprints(bases: Bases, processor: PalamProcessor) -> dict[str, Any]:
    return {
        "encoder": fingerprint(bases.encoder, processor.encoder_tokenizer),
        "llm": fingerprint(bases.llm, processor.llm_tokenizer),
    }


def _check_fingerprints(config: PalamConfig, bases: Bases, processor: PalamProcessor) -> None:
    found = _fingerprints(bases, processor)
    hint = "; give the right one, or --allow-mismatch to use it all the same"
    for role, base in (("encoder", bases.encoder), ("LLM", bases.llm)):
        part = role.lower()
        expected = config.fingerprints.get(part)
        check_fingerprint(role, expected, found[part], base.name_or_path, hint)


def _check_shapes(config: PalamConfig, bases: Bases) -> None:
    found = (*encoder_shape(bases.encoder), _llm_width(bases.llm))
    needed = (config.encoder_hidden_size, config.encoder_num_layers, config.llm_hidden_size)
    if found != needed:
        raise PalamError(
            f"the base models' encoder width, layers and LLM width are {found}; "
            f"this bridge needs {needed}"
        )
