"""The whole: a frozen encoder, the bridge, a frozen LLM.

The bases are loaded first and the bridge is built beside them; `PalamModel` only joins them, and
saving it saves the bridge alone.
"""

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    NoRepeatNGramLogitsProcessor,
    PreTrainedModel,
)
from transformers.modeling_outputs import CausalLMOutputWithPast

from palam.errors import PalamError
from palam.models.backbones.adapters import load_adapter, with_lora, without_adapter
from palam.models.backbones.encoder import encoder_shape, table_positions
from palam.models.backbones.encoder_pair import EncoderPair, encoders_of
from palam.models.backbones.llm import (
    GREEDY_OPTIONS,
    CompiledLayer,
    FiniteLogits,
    compile_layers,
    embedding_rms,
    enable_checkpointing,
    generates_from_vectors,
    keep_frozen,
    shard_layers,
    stop_ids,
    stopping_options,
    with_compiled,
)
from palam.models.backbones.loading import freeze
from palam.models.bases import (
    LoadedEncoder,
    check_fingerprints,
    check_shapes,
    fingerprints,
    load_bases,
    locate,
    locate_encoder,
)
from palam.models.bridge import PalamBridge
from palam.models.checkpoint import (
    ADAPTER_FOLDER,
    CHECKPOINT_MARKER,
    load_bridge,
    write_checkpoint,
)
from palam.models.configuration import PalamConfig
from palam.models.encoding import LiveEncoding, TextEncoding
from palam.models.greedy import generate_greedily
from palam.models.guidance import (
    FirstHalf,
    PairedGuidance,
    check_guidance,
    inputs_without_text,
)
from palam.models.guidance_scale import NO_GUIDANCE
from palam.models.joined_tokens import first_mask
from palam.models.llm_cache import cache_argument
from palam.models.model_card import CARD
from palam.models.model_config import ModelConfig
from palam.models.new_processor import build_processor
from palam.models.processing import IGNORE, PalamProcessor
from palam.models.publishing import CardDetails, publish
from palam.models.sequence import LLMInputs, MappedText, build_llm_inputs
from palam.models.token_engine import TokenEngine
from palam.utils.device import Placement
from palam.utils.files import atomic_directory


class PalamModel(nn.Module):
    """Encoder → fusion → mapper → LLM, in evaluation. Made by `from_bases` or `from_pretrained`.

    Both base models are frozen: no gradient and no dropout, whatever `train()` is called.

    Attributes:
        encoder, llm: the frozen base models; the encoder may be an [`EncoderPair`].
        bridge: the [`PalamBridge`], all that is trained (besides an optional LoRA on the LLM).
        processor: the [`PalamProcessor`] that makes this model's inputs.
        live_encoding: the [`LiveEncoding`] that reads every text anew.
        encoding: the [`TextEncoding`] that maps texts: the live one, unless another is set.
        token_engine: the [`TokenEngine`] that makes free answers; None is the LLM itself.
        card: the model card's text, if it was loaded with one; it is saved again.
        vector_dropout: share of the mapped vectors that are zero in training.
        generates_from_vectors: whether the LLM's class can; else it generates greedily alone.
        shards_llm: whether the LLM's layers are spread over several processes, which then must read
            at the same time.
    """

    accepts_loss_kwargs = True

    def __init__(
        self,
        encoder: LoadedEncoder,
        bridge: PalamBridge,
        llm: PreTrainedModel,
        processor: PalamProcessor,
    ) -> None:
        super().__init__()
        _check_second_encoder(encoder, bridge, processor)
        self.encoder: Any = freeze(encoder)
        self.bridge = bridge
        self.llm: Any = freeze(llm)
        self.processor = processor
        self.live_encoding = LiveEncoding(self.encoder, bridge)
        self.encoding: TextEncoding = self.live_encoding
        self.token_engine: TokenEngine | None = None
        self.card: str | None = None
        self.base_fingerprints: dict[str, Any] | None = None
        self.shards_llm = False
        self.vector_dropout = 0.0
        self._compiled_layers: list[CompiledLayer] = []
        bare_llm = without_adapter(self.llm)
        processor.llm_positions = table_positions(bare_llm)
        self.generates_from_vectors = generates_from_vectors(bare_llm)
        self._llm_arguments = frozenset(inspect.signature(bare_llm.forward).parameters)
        self.eval()

    # ------------------------------------------------------------------ making and loading
    @classmethod
    def from_bases(
        cls, encoder: str | LoadedEncoder, llm: str | PreTrainedModel, **options: Any
    ) -> "PalamModel":
        """A new bridge between two base models.

        Args:
            encoder, llm: hub ids, folders, `starter:encoder` and `starter:llm`, or loaded models.
            **options: the other settings of [`ModelConfig`], e.g. `second_encoder`; options of
                the fusion and the mapper, e.g. `rank=32`, `hidden_size=1024`; those of
                [`Placement`]; and `processor` and `seed`, as `from_config` takes them.

        Raises:
            PalamError: a model that cannot be used or found, or an unknown name or option.
        """
        names = {"encoder": _name(encoder), "llm": _name(llm)}
        if isinstance(encoder, EncoderPair):
            names["second_encoder"] = _name(encoder.second)
        construction = {"processor", "seed", *Placement.__annotations__}
        beside = {name: options.pop(name) for name in construction & options.keys()}
        return cls.from_config(
            ModelConfig.from_options(**names, **options),
            encoder=None if isinstance(encoder, str) else encoder,
            llm=None if isinstance(llm, str) else llm,
            **beside,
        )

    @classmethod
    def from_config(
        cls,
        config: ModelConfig,
        *,
        encoder: LoadedEncoder | None = None,
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
        bases = load_bases(
            locate_encoder(encoder, None, config),
            locate(llm, config.llm, config.llm_revision),
            placement,
        )
        shape, *other_shapes = map(encoder_shape, encoders_of(bases.encoder))
        processor = processor or build_processor(config, bases.encoder)
        second: dict[str, Any] = {}
        for second_shape in other_shapes:
            second = {
                "second_encoder": config.second_encoder,
                "second_encoder_revision": config.second_encoder_revision,
                "second_encoder_hidden_size": second_shape.hidden_size,
                "second_encoder_num_layers": second_shape.num_layers,
            }
        bridge_config = PalamConfig(
            **second,
            encoder=config.encoder,
            encoder_revision=config.encoder_revision,
            llm=config.llm,
            llm_revision=config.llm_revision,
            encoder_hidden_size=shape.hidden_size,
            encoder_num_layers=shape.num_layers,
            llm_hidden_size=bases.llm_hidden_size,
            fusion=config.fusion,
            fusion_options=config.all_fusion_options,
            mapper=config.mapper,
            mapper_options=config.mapper_options,
            embedding_rms=embedding_rms(bases.llm),
            fingerprints=fingerprints(bases, processor),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bridge = PalamBridge(bridge_config)
            bridge.to(device=bases.bridge_device)  # type: ignore[call-arg]
            model = cls(bases.encoder, bridge, bases.llm, processor)
            model._scale_mapper_to_embeddings()
        return model

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        encoder: str | LoadedEncoder | None = None,
        llm: str | PreTrainedModel | None = None,
        *,
        second_encoder: str | None = None,
        revision: str | None = None,
        allow_mismatch: bool = False,
        **placement: Unpack[Placement],
    ) -> "PalamModel":
        """Load a bridge and the base models that it names.

        Args:
            path: checkpoint folder, hub id or `starter:bridge`.
            encoder, llm: where the base models are, if not where the checkpoint says; or the
                loaded models.
            second_encoder: where that is, if the bridge has one and it is not there.
            revision: of the checkpoint on the hub.
            allow_mismatch: load base models that are not those the bridge was trained with, if the
                shapes fit.
            **placement: of the base models.

        Raises:
            PalamError: no checkpoint there, a base model that is missing, or one that is another.
        """
        bridge = load_bridge(path, revision)
        config = bridge.config
        processor = PalamProcessor.from_pretrained(
            path,
            encoder=_other_name(encoder, config.encoder),
            llm=_other_name(llm, config.llm),
            second_encoder=second_encoder,
            revision=revision,
        )
        # A base model that has moved is saved under its old name.
        processor.encoder = config.encoder
        processor.encoder_revision = config.encoder_revision
        processor.llm = config.llm
        processor.llm_revision = config.llm_revision
        processor.second_encoder = config.second_encoder
        processor.second_encoder_revision = config.second_encoder_revision
        bases = load_bases(
            locate_encoder(encoder, second_encoder, config),
            locate(llm, config.llm, config.llm_revision),
            placement,
        )
        base_fingerprints = None
        if not allow_mismatch:
            base_fingerprints = check_fingerprints(config, bases, processor)
        check_shapes(config, bases)
        bridge.to(device=bases.bridge_device)  # type: ignore[call-arg]
        frozen_llm = bases.llm
        if config.adapter:
            frozen_llm = load_adapter(bases.llm, str(path), ADAPTER_FOLDER, revision)
        model = cls(bases.encoder, bridge, frozen_llm, processor)
        model.base_fingerprints = base_fingerprints
        card = Path(path) / CARD
        if card.is_file() and not allow_mismatch:
            model.card = card.read_text(encoding="utf-8", errors="replace")
        return model

    def _scale_mapper_to_embeddings(self) -> None:
        """Scale the mapper's output, on any tokens, to the RMS of the LLM's embeddings."""
        ids = None
        for encoder in encoders_of(self.encoder):
            embeddings: Any = encoder.get_input_embeddings()
            vocabulary_size = embeddings.weight.shape[0]
            drawn = torch.randint(vocabulary_size, (8, 32))
            # Each token of a second encoder stands behind one of the first's.
            ids = drawn if ids is None else torch.stack([ids, ~drawn], -1).flatten(1)
        assert ids is not None
        with torch.no_grad(), self.evaluating():
            mapped = self.live_encoding.mapped(ids, torch.ones_like(ids))
        rms = mapped.float().square().mean().sqrt().item()
        self.bridge.mapper.rescale(self.config.embedding_rms / rms)

    # ------------------------------------------------------------------ what it is
    @property
    def config(self) -> PalamConfig:
        """The bridge's configuration."""
        return self.bridge.config

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
        """Recompute the LLM's activations in the backward pass; see [`enable_checkpointing`]."""
        enable_checkpointing(self.llm, gradient_checkpointing_kwargs)
        self.train(self.training)

    def compile_llm(self) -> None:
        """Compile the LLM's layers for steps with a gradient; see [`compile_layers`]."""
        self._compiled_layers = compile_layers(self.llm)

    def shard_llm(self, device: torch.device) -> None:
        """Spread the LLM's layers over the processes and move all else to this one's device.

        Args:
            device: of this process.

        Raises:
            PalamError: see [`shard_layers`].
        """
        shard_layers(self.llm, device)
        self.to(device)
        self.shards_llm = True

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
        """Write the checkpoint's files into an existing folder; see `save_pretrained`."""
        write_checkpoint(folder, self.bridge, self.processor, self.llm, card or self.card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        details: CardDetails | None = None,
        **options: Any,
    ) -> str:
        """Upload the checkpoint to the hub, as `palam push` does, and return its address.

        Its card is completed, and no path of this machine is in it.

        Args:
            repo_id: `name` or `organisation/name`; created if it does not exist.
            private: whether a new repository can be seen by its owner alone; None is as the
                organisation has it.
            token: of the hub; None is that of the environment or of `hf auth login`.
            details: what the card says that the checkpoint does not, such as the licence.
            **options: for `HfApi.upload_folder`, e.g. `commit_message`, `revision`, `create_pr`.

        Raises:
            PalamError: a name that the hub does not take, no token, no permission, or the hub
                cannot be reached.
        """
        details = details or CardDetails()
        return publish(
            self.write_checkpoint, repo_id, details, private=private, token=token, **options
        )

    # ------------------------------------------------------------------ what the LLM reads
    def encode(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The encoder's layers at the real tokens; see [`LiveEncoding.layers`].

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].

        Returns:
            L tensors [tokens, d_enc], on the bridge's device.
        """
        return self.live_encoding.layers(ids, mask)

    def embed(self, ids: Tensor) -> Tensor:
        """The LLM's input embeddings of ids, by its own module (some scale inside it)."""
        vectors: Tensor = self.llm.get_input_embeddings()(ids)
        return vectors

    def llm_inputs(
        self,
        *,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> LLMInputs:
        """Map the texts and join all that the LLM reads; see [`build_llm_inputs`].

        The arguments are those of `forward`.

        Raises:
            PalamError: nothing to read, more than one slot in a row, a slot without a text, or more
                tokens than the LLM has positions.
        """
        text = None
        if encoder_input_ids is not None:
            mask = encoder_attention_mask
            mask = torch.ones_like(encoder_input_ids) if mask is None else mask
            mapped = self.encoding.mapped(encoder_input_ids, mask)
            mask = first_mask(encoder_input_ids, mask)
            if self.training and self.vector_dropout:
                kept = torch.rand(len(mapped), 1, device=mapped.device) >= self.vector_dropout
                mapped = mapped * kept
            text = MappedText(mapped, mask, self.bridge.boundary)
        if input_ids is None:
            if encoder_input_ids is None:
                raise PalamError("nothing to read: give encoder_input_ids or input_ids")
            input_ids = encoder_input_ids.new_zeros(len(encoder_input_ids), 0)
        input_ids = input_ids.to(self.device)
        inputs = build_llm_inputs(self.embed, input_ids, attention_mask, text, labels)
        self.check_length(inputs.inputs_embeds.shape[1])
        return inputs

    def check_length(self, length: int) -> None:
        """Refuse a sequence that is longer than the LLM's table of positions.

        Raises:
            PalamError: it is.
        """
        most = self.processor.llm_positions
        if most is not None and length > most:
            raise PalamError(
                f"the LLM has {most} positions, and text, prompt and answer take {length} tokens; "
                "shorten the prompt or the answer, or lower max_length"
            )

    # ------------------------------------------------------------------ reading
    def forward(
        self,
        *,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        output_hidden_states: bool = False,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Read texts through the bridge, as a [`PalamProcessor`] prepares them.

        What else trainers pass is ignored.

        Args:
            encoder_input_ids: [batch, text tokens], for the encoder; None if the LLM reads the
                text itself.
            encoder_attention_mask: [batch, text tokens]; None is all real.
            input_ids: [batch, LLM tokens] with `TEXT_SLOT` where the text stands; None is the text
                alone.
            attention_mask: [batch, LLM tokens]; None is all real.
            labels: [batch, LLM tokens], `-100` where there is no loss.
            logits_to_keep: how many positions, counted from the end, get logits; 0 is all. Only
                labels after the first of them count in the loss.
            num_items_in_batch: number of labels over which the loss is averaged; None is this
                batch's own.
            output_hidden_states: also return the LLM's last hidden states.

        Returns:
            `loss` (mean cross-entropy per label, or None), `logits` [batch, positions, vocabulary],
            and in `hidden_states`, if asked for, one tensor [batch, positions, d_llm], from which
            the logits are computed. Sequences end at the last position: rows are padded on the
            left.

        Raises:
            PalamError: nothing to read, more than one slot in a row, or a slot without a text.
        """
        inputs = self.llm_inputs(
            encoder_input_ids=encoder_input_ids,
            encoder_attention_mask=encoder_attention_mask,
            input_ids=input_ids,
            attention_mask=attention_mask,
            labels=labels,
        )
        output = self.run_llm(inputs, logits_to_keep, output_hidden_states=output_hidden_states)
        logits = output.logits
        loss = None
        if inputs.labels is not None:
            loss = answer_loss(logits, inputs.labels, num_items_in_batch)
        hidden_states = None
        if output_hidden_states:
            hidden_states = (output.hidden_states[-1][:, -logits.shape[1] :],)
        return CausalLMOutputWithPast(loss=loss, logits=logits, hidden_states=hidden_states)

    def run_llm(
        self,
        inputs: LLMInputs,
        logits_to_keep: int = 0,
        *,
        use_cache: bool = False,
        cache: Any = None,
        output_hidden_states: bool = False,
    ) -> Any:
        """The LLM over its input, after what a cache holds.

        Args:
            inputs: of `llm_inputs`.
            logits_to_keep: at how many last positions logits are wanted; 0 is all.
            use_cache: whether the output has a cache.
            cache: of what was read before, or None.
            output_hidden_states: whether the output has the hidden states of all positions.

        Returns:
            The LLM's own output: `logits` [batch, positions, vocabulary] and its cache.
        """
        embeds = inputs.inputs_embeds
        length = embeds.shape[1]
        keep = 0 if logits_to_keep >= length else logits_to_keep
        arguments: dict[str, Any] = {}
        if cache is not None:
            arguments[cache_argument(self._llm_arguments)] = cache
        if "position_ids" in self._llm_arguments:
            arguments["position_ids"] = inputs.position_ids
        if keep and "logits_to_keep" in self._llm_arguments:
            # An index tensor: an int slices a view whose matmul copies the whole vocabulary
            # matrix once per row.
            arguments["logits_to_keep"] = torch.arange(length - keep, length, device=embeds.device)
        if output_hidden_states:
            arguments["output_hidden_states"] = True
        compiled = self._compiled_layers if torch.is_grad_enabled() and not use_cache else []
        with with_compiled(compiled):
            output = self.llm(
                inputs_embeds=embeds,
                attention_mask=inputs.attention_mask,
                use_cache=use_cache,
                **arguments,
            )
        if keep and output.logits.shape[1] != keep:
            output.logits = output.logits[:, -keep:]
        return output

    @torch.no_grad()
    def generate(
        self,
        *,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Let the LLM continue texts, in evaluation; see [`stop_ids`] for where it stops.

        With `do_sample=False` each token is the likeliest one: what the LLM's own generation config
        says of repetition and the like is switched off, unless it is given here.

        Args:
            encoder_input_ids, encoder_attention_mask, input_ids, attention_mask: as in `forward`.
            **generate_kwargs: of transformers' `generate`. `no_repeat_ngram_size` is of the answer
                alone: what stands in the prompt may be said. `guidance_scale`, for greedy answers,
                moves them away from what the LLM says without the text, see [`guided_scores`].

        Returns:
            The new ids [batch, n], without the prompt; or what else transformers' `generate`
            returns by its arguments.

        Raises:
            PalamError: nothing to read, more than one slot in a row, a slot without a text, more
                tokens than the LLM has positions, sampling or guidance with an LLM whose class
                generates from ids alone, guidance that has no meaning (see [`check_guidance`]), or
                logits that are not finite.
        """
        scale = generate_kwargs.pop("guidance_scale", None)
        is_guided = scale not in (None, NO_GUIDANCE)
        if is_guided:
            check_guidance(scale, generate_kwargs, encoder_input_ids is not None)
            generate_kwargs["do_sample"] = False
        options: dict[str, Any] = {}
        if "generation_config" not in generate_kwargs:
            options.update(self._generation_options(generate_kwargs))
        if "logits_to_keep" in self._llm_arguments:
            options["logits_to_keep"] = torch.tensor([-1], device=self.device)  # as in `run_llm`
        options.update(generate_kwargs)
        with self.evaluating():
            inputs = self.llm_inputs(
                encoder_input_ids=encoder_input_ids,
                encoder_attention_mask=encoder_attention_mask,
                input_ids=input_ids,
                attention_mask=attention_mask,
            )
            length = inputs.inputs_embeds.shape[1]
            self.check_length(length - 1 + (options.get("max_new_tokens") or 1))
            if not self.generates_from_vectors:
                options["guidance_scale"] = scale
                return generate_greedily(self.run_llm, self.embed, inputs, options)
            if not is_guided:
                return self._generate_from(inputs, options)
            without_text = inputs_without_text(self.embed, self.device, input_ids, attention_mask)
            paired = LLMInputs.stacked([inputs, without_text.widened(length)])
            streamer = options.pop("streamer", None)
            if streamer is not None:
                options["streamer"] = FirstHalf(streamer)
            generated = self._generate_from(paired, options, [PairedGuidance(scale)])
            return generated[: len(generated) // 2]

    def _generate_from(
        self,
        inputs: LLMInputs,
        options: dict[str, Any],
        last_processors: Sequence[LogitsProcessor] = (),
    ) -> Any:
        """What the LLM's own `generate` makes of vectors.

        Args:
            inputs: what it reads.
            options: of transformers' `generate`; changed.
            last_processors: of the logits, after all others: what those rule out is not said.
        """
        processors = [FiniteLogits(self.llm.dtype), *(options.pop("logits_processor", None) or [])]
        if options.get("no_repeat_ngram_size"):
            # As an option, it would warn in each call that the prompt does not count.
            processors.append(NoRepeatNGramLogitsProcessor(options["no_repeat_ngram_size"]))
            options["no_repeat_ngram_size"] = 0
        return self.llm.generate(
            inputs_embeds=inputs.inputs_embeds,
            attention_mask=inputs.attention_mask,
            logits_processor=LogitsProcessorList([*processors, *last_processors]),
            **options,
        )

    def stop_ids(self) -> list[int]:
        """Where generation stops; see [`stop_ids`]."""
        return stop_ids(self.llm, self.processor.llm_tokenizer, self.processor.end_ids())

    def _generation_options(self, generate_kwargs: dict[str, Any]) -> dict[str, Any]:
        """What `generate` sets in place of the LLM's generation config."""
        tokenizer = self.processor.llm_tokenizer
        options = stopping_options(self.llm, tokenizer, self.processor.end_ids())
        if generate_kwargs.get("do_sample") is False:
            options.update(GREEDY_OPTIONS)
        return options


def answer_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
    """Mean cross-entropy per label.

    Args:
        logits: [batch, positions, vocabulary], at the last positions of the sequence.
        labels: [batch, length], of the whole sequence.
        num_items_in_batch: number of labels to divide by; None counts those after the first
            position with logits.
    """
    targets = labels[:, -logits.shape[1] :][:, 1:].to(logits.device)
    predictions = logits[:, :-1].float().flatten(0, 1)
    total = F.cross_entropy(predictions, targets.flatten(), ignore_index=IGNORE, reduction="sum")
    if num_items_in_batch is None:
        num_items_in_batch = (targets != IGNORE).sum().clamp(min=1)
    return total / num_items_in_batch


def _check_second_encoder(
    encoder: LoadedEncoder, bridge: PalamBridge, processor: PalamProcessor
) -> None:
    """Refuse parts of which some are for two encoders and some for one.

    Raises:
        PalamError: they are.
    """
    has_two = isinstance(encoder, EncoderPair)
    parts = {
        "the bridge": bridge.second_fusion is not None,
        "the processor": processor.second_tokenizer is not None,
    }
    for part, is_for_two in parts.items():
        if is_for_two != has_two:
            number = 1 + has_two
            raise PalamError(f"encoders: {number}, and {part} is for {1 + is_for_two}")


def _name(base: str | LoadedEncoder | None) -> str | None:
    """What the user calls a base model, loaded or not."""
    return base if base is None or isinstance(base, str) else base.name_or_path


def _other_name(base: str | LoadedEncoder | None, name: str) -> str | None:
    """Where a base model is, loaded or not, if it is not the configured one.

    Args:
        base: a loaded model, or where it is; None is as configured.
        name: what is configured.
    """
    is_loaded = not (base is None or isinstance(base, str))
    # Of a loaded model with that name, the tokenizer is at the configured revision.
    return None if is_loaded and _name(base) == name else _name(base)
