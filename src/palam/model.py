"""The whole: a frozen encoder, the bridge, a frozen LLM.

The bases are loaded first and the bridge is built beside them; `PalamModel` only joins them, and saving it saves the
bridge alone.
"""

import inspect
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from palam import encoder as encoders
from palam import llm as llms
from palam.bridge import PalamBridge, load_bridge
from palam.card import CARD, model_card
from palam.configuration import PalamConfig, split_options
from palam.errors import PalamError
from palam.files import replacing
from palam.fingerprint import check, fingerprint
from palam.processor import IGNORE, TEXT_SLOT, PalamProcessor
from palam.template import Template

if TYPE_CHECKING:
    from palam.align import Solved
    from palam.states import StateCache

DEFAULT_MAX_LENGTH = 256
ADAPTER = "adapter"
MARKER = ("config.json", '"model_type": "palam"')
"""What a folder must hold to be replaced by a checkpoint: this file, with this text in it."""


@dataclass
class Assembled:
    """The LLM's input: left-padded, with explicit positions. All tensors are [batch, length, ...]."""

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None


class PalamModel(nn.Module):
    """Encoder → fusion → mapper → LLM. Made by `from_bases` or `from_pretrained`, in evaluation.

    Both base models are frozen: no gradient and no dropout, whatever `train()` is called.

    Attributes:
        encoder, llm: the frozen base models.
        bridge: the [`PalamBridge`], all that is trained (besides an optional LoRA on the LLM).
        processor: the [`PalamProcessor`] that makes this model's inputs.
        card: the model card's text, if it was loaded with one; it is saved again.
        cache: encoder states that were kept; None reads every text anew.
        joint: whether the LLM takes several labels in one row; None is not known yet.
        compiled: the LLM's layers as `compile_llm` made them, for steps with a gradient.
    """

    accepts_loss_kwargs = True

    def __init__(
        self, encoder: PreTrainedModel, bridge: PalamBridge, llm: PreTrainedModel, processor: PalamProcessor
    ) -> None:
        super().__init__()
        self.encoder: Any = llms.freeze(encoder)
        self.bridge = bridge
        self.llm: Any = llms.freeze(llm)
        self.processor = processor
        self.card: str | None = None
        self.cache: StateCache | None = None
        self.joint: bool | None = None
        self.compiled: list[Any] = []
        base: Any = getattr(self.llm, "get_base_model", lambda: self.llm)()  # inside a LoRA
        self._llm_arguments = set(inspect.signature(base.forward).parameters)
        self.eval()

    @classmethod
    def from_bases(
        cls, encoder: str | PreTrainedModel, llm: str | PreTrainedModel, *,
        fusion: str = "global_softmax", mapper: str = "linear", seed: int = 0,
        processor: PalamProcessor | None = None, mode: str = "paper", prompt: str | None = None,
        max_length: int | None = None, augment: bool = False, dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None, device_map: Any = None, attention: str | None = None,
        load_in: str | None = None, encoder_revision: str | None = None, llm_revision: str | None = None,
        **options: Any,
    ) -> "PalamModel":  # fmt: skip
        """A new bridge between two base models.

        Args:
            encoder, llm: hub ids, folders, `starter:encoder` and `starter:llm`, or loaded models.
            fusion, mapper: names in `palam.fusion.FUSIONS` and `palam.mapper.MAPPERS`.
            seed: of the bridge's initial weights.
            processor: made from the bases' tokenizers, `mode`, `prompt`, `max_length` and `augment` if None.
            mode, prompt: the template, see [`Template.build`].
            max_length: most encoder tokens of a text; None is the smaller of 256 and what the encoder takes.
            augment: see [`PalamProcessor`].
            dtype, device, device_map, attention, load_in: of the base models (see [`load_llm`]). The bridge's own
                weights are always fp32.
            encoder_revision, llm_revision: revisions on the hub.
            **options: of the fusion and the mapper, e.g. `normalize="layer"`, `rank=32`, `hidden_size=1024`.

        Raises:
            PalamError: a model that cannot be used or found, or an unknown name or option.
        """
        fusion_options, mapper_options = split_options(fusion, mapper, options)
        how = {"dtype": dtype, "device": device, "device_map": device_map, "attention": attention, "load_in": load_in}
        encoder_model, llm_model, shapes = _load_bases(encoder, llm, encoder_revision, llm_revision, **how)
        names = encoder_model.name_or_path, llm_model.name_or_path
        if processor is None:
            encoder_tokenizer = encoders.load_tokenizer(names[0], encoder_revision)
            llm_tokenizer = encoders.load_tokenizer(names[1], llm_revision)
            longest = encoders.encoder_max_length(encoder_model, encoder_tokenizer)
            if max_length is not None and max_length > longest:
                raise PalamError(f"max_length is {max_length}, but the encoder takes at most {longest} tokens")
            processor = PalamProcessor(
                encoder_tokenizer, llm_tokenizer, encoder=names[0], llm=names[1],
                template=Template.build(mode, prompt, llm_tokenizer),
                max_length=min(DEFAULT_MAX_LENGTH, longest) if max_length is None else max_length, augment=augment,
            )  # fmt: skip
        config = PalamConfig(
            encoder=names[0], encoder_revision=encoder_revision, llm=names[1], llm_revision=llm_revision,
            encoder_hidden_size=shapes[0], encoder_num_layers=shapes[1], llm_hidden_size=shapes[2],
            fusion=fusion, fusion_options=fusion_options, mapper=mapper, mapper_options=mapper_options,
            embedding_rms=llms.embedding_rms(llm_model),
            fingerprints=_fingerprints(encoder_model, llm_model, processor),
        )  # fmt: skip
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bridge = PalamBridge(config).to(llm_model.get_input_embeddings().weight.device)
            model = cls(encoder_model, bridge, llm_model, processor)
            model._calibrate()
        return model

    @classmethod
    def from_pretrained(
        cls, path: str | os.PathLike[str], encoder: str | PreTrainedModel | None = None,
        llm: str | PreTrainedModel | None = None, *, dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None, device_map: Any = None, attention: str | None = None,
        load_in: str | None = None, revision: str | None = None, allow_mismatch: bool = False,
    ) -> "PalamModel":  # fmt: skip
        """Load a bridge and the base models that it names.

        Args:
            path: checkpoint folder or hub id.
            encoder, llm: where the base models are, if not where the checkpoint says; or the loaded models.
            dtype, device, device_map, attention, load_in: of the base models, see [`load_llm`].
            revision: of the checkpoint on the hub.
            allow_mismatch: load base models that are not those the bridge was trained with, if the shapes fit.

        Raises:
            PalamError: no checkpoint there, a base model that is missing, or one that is another.
        """
        bridge = load_bridge(path, revision)
        config = bridge.config
        names = [base if base is None or isinstance(base, str) else base.name_or_path for base in (encoder, llm)]
        processor = PalamProcessor.from_pretrained(path, encoder=names[0], llm=names[1], revision=revision)
        processor.encoder, processor.llm = config.encoder, config.llm  # a moved base is saved under its old name
        revisions = None if encoder else config.encoder_revision, None if llm else config.llm_revision
        how = {"dtype": dtype, "device": device, "device_map": device_map, "attention": attention, "load_in": load_in}
        bases = encoder or config.encoder, llm or config.llm
        encoder_model, llm_model, shapes = _load_bases(*bases, *revisions, **how)
        if not allow_mismatch:
            found = _fingerprints(encoder_model, llm_model, processor)
            for kind, base in (("encoder", encoder_model), ("LLM", llm_model)):
                part = kind.lower()
                hint = "; give the right one, or --allow-mismatch to use it all the same"
                check(kind, config.fingerprints.get(part), found[part], base.name_or_path, hint)
        needed = (config.encoder_hidden_size, config.encoder_num_layers, config.llm_hidden_size)
        if shapes != needed:
            given = "the base models' encoder width, layers and LLM width"
            raise PalamError(f"{given} are {shapes}; this bridge needs {needed}")
        bridge = bridge.to(llm_model.get_input_embeddings().weight.device)
        if config.adapter:
            llm_model = llms.import_peft().PeftModel.from_pretrained(
                llm_model, str(path), subfolder=ADAPTER, revision=revision
            )
        model = cls(encoder_model, bridge, llm_model, processor)
        if (card := Path(path) / CARD).is_file() and not allow_mismatch:
            model.card = card.read_text(encoding="utf-8")
        return model

    def align(self, texts: Sequence[str], languages: Sequence[str | None] | None = None, **options: Any) -> "Solved":
        """Solve the bridge from English text in closed form, in place; with no training it can then be used.

        Args:
            texts, languages, **options: see [`palam.align.solve`]. A fusion's own weights are searched first.
        """
        from palam.align import Sample, batches, solve

        weights = list(self.bridge.fusion.parameters())  # a fusion without any needs no search
        sample = Sample.take(self, batches(self, texts, languages)) if weights else None
        return solve(self, texts, languages, sample=sample, **options)

    def add_lora(self, rank: int = 8, alpha: int | None = None, target_modules: Any = "all-linear") -> None:
        """Put a trainable LoRA on the frozen LLM; it is saved beside the bridge as a PEFT adapter.

        Args:
            rank, alpha: of the adapter; alpha is 2 · rank if None.
            target_modules: see peft's `LoraConfig`.

        Raises:
            PalamError: peft is not installed, or there is an adapter already.
        """
        if self.config.adapter:
            raise PalamError("the LLM has a LoRA adapter already")
        self.llm = llms.with_lora(self.llm, rank, alpha or 2 * rank, target_modules)
        self.config.adapter = True
        self.card = None
        self.train(self.training)

    def _calibrate(self) -> None:
        """Scale the mapper so that its output has the RMS of the LLM's embeddings, on arbitrary tokens."""
        ids = torch.randint(self.encoder.get_input_embeddings().weight.shape[0], (8, 32))
        with torch.no_grad(), self.evaluating():
            mapped, _ = self.bridge(self.encode(ids, torch.ones_like(ids)))
        self.bridge.mapper.rescale(self.config.embedding_rms / mapped.float().square().mean().sqrt().item())

    @property
    def config(self) -> PalamConfig:
        """The bridge's configuration."""
        bridge: Any = self.bridge
        config: PalamConfig = bridge.config
        return config

    def write(self, folder: Path, card: str | None = None) -> None:
        """Write the checkpoint's files into an existing folder (`save_pretrained` does it safely)."""
        self.bridge.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        if self.config.adapter:
            # The base's vocabulary is never extended; peft would ask the hub whether it was.
            self.llm.save_pretrained(str(folder / ADAPTER), save_embedding_layers=False)
            (folder / ADAPTER / CARD).unlink(missing_ok=True)  # an empty form
        (folder / CARD).write_text(card or self.card or model_card(self), encoding="utf-8")

    def save_pretrained(self, folder: str | os.PathLike[str], card: str | None = None) -> None:
        """Save the bridge alone: configuration, weights, template and model card.

        The folder appears, or is replaced, at once: a crash leaves the old one or none.

        Args:
            folder: new, empty, or an older checkpoint.
            card: the model card's text; None is the one it was loaded with, or one written from the configuration.

        Raises:
            PalamError: the folder holds something else, or cannot be written.
        """
        with replacing(folder, marker=MARKER) as aside:
            self.write(aside, card)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any
    ) -> str:
        """Upload the checkpoint to the hub and return its address.

        Args:
            repo_id: `name` or `organisation/name`; created if it does not exist.
            private, token: see `huggingface_hub.HfApi.create_repo`.
            **options: for `HfApi.upload_folder`, e.g. `commit_message`, `revision`, `create_pr`.
        """
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder))
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))

    def train(self, mode: bool = True) -> "PalamModel":
        """Set the bridge to training or evaluation; the base models stay in evaluation."""
        super().train(mode)
        self.encoder.eval()
        llms.keep_frozen(self.llm, mode)
        return self

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation within the block (no dropout, the LLM keeps its cache), then the mode it was in."""
        was_training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(was_training)

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Recompute the LLM's activations in the backward pass instead of keeping them."""
        llms.enable_checkpointing(self.llm, gradient_checkpointing_kwargs)
        self.train(self.training)

    def compile_llm(self) -> None:
        """Compile the LLM's layers for steps with a gradient; see [`palam.llm.compile_layers`]."""
        self.compiled = llms.compile_layers(self.llm)

    @property
    def device(self) -> torch.device:
        """Where the bridge and the LLM's embeddings are."""
        return self.bridge.boundary.device

    def encode(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The encoder's L layers at the real tokens alone: L tensors [tokens, d_enc] on the bridge's device.

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].
        """
        mask = mask.to(self.encoder.device)
        states = encoders.encode(self.encoder, ids.to(mask.device), mask)
        real = mask.nonzero(as_tuple=True)
        return [state[real].to(self.device) for state in states]

    def embed(self, ids: Tensor) -> Tensor:
        """The LLM's input embeddings of ids, by its own module (some scale inside it)."""
        vectors: Tensor = self.llm.get_input_embeddings()(ids)
        return vectors

    def assemble(
        self, encoder_input_ids: Tensor | None, encoder_attention_mask: Tensor | None, input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None, labels: Tensor | None = None,
    ) -> Assembled:  # fmt: skip
        """Join prefix, mapped text, boundary, suffix and answer into the LLM's input.

        Only real tokens are taken from either side, so it makes no difference where they were padded. The text and
        the boundary go where `input_ids` holds `TEXT_SLOT`, or to the front of a row that has none. See `forward`.

        Raises:
            PalamError: more than one slot in a row, a slot without a text, or a row with nothing to read.
        """
        device = self.device
        if input_ids is None:
            if encoder_input_ids is None:
                raise PalamError("nothing to read: give encoder_input_ids or input_ids")
            input_ids = torch.zeros(len(encoder_input_ids), 0, dtype=torch.long)
        input_ids = input_ids.to(device)
        known = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(device)
        slot = (input_ids == TEXT_SLOT) & known.bool()
        if (slot.sum(1) > (encoder_input_ids is not None)).any():
            raise PalamError("a row of input_ids holds the text's slot more than once, or without a text for it")
        real = known.bool() & ~slot
        place = real.cumsum(1) - 1  # of each token, among its row's own
        length = real.sum(1)
        rows, columns, vectors = [real.nonzero()[:, 0]], [place[real]], [self.embed(input_ids[real])]
        if encoder_input_ids is not None:
            mask = torch.ones_like(encoder_input_ids) if encoder_attention_mask is None else encoder_attention_mask
            text = mask.to(device).bool()
            inserted = text.sum(1) + 1  # and the boundary
            before = (slot.cumsum(1) == 0) & slot.any(1, keepdim=True) & real
            start = before.sum(1)
            columns = [torch.where(before, place, place + inserted[:, None])[real]]
            columns += [(start[:, None] + text.cumsum(1) - 1)[text], start + inserted - 1]
            rows += [text.nonzero()[:, 0], torch.arange(len(text), device=device)]
            if self.cache is None:
                mapped, _ = self.bridge(self.encode(encoder_input_ids, mask))
            else:
                mapped = self.cache.mapped(self, encoder_input_ids, mask)
            vectors += [mapped.to(vectors[0].dtype), self.bridge.boundary.to(vectors[0].dtype).expand(len(text), -1)]
            length = length + inserted
        if not length.all():
            raise PalamError("a row holds nothing to read: its text is empty and nothing stands around it")
        total = int(length.max())
        shift = total - length  # left padding
        row, column = torch.cat(rows), torch.cat(columns)
        at = (row, column + shift[row])
        joined = vectors[0].new_zeros(len(length), total, vectors[0].shape[-1]).index_put(at, torch.cat(vectors))
        joined_labels = None
        if labels is not None:
            joined_labels = torch.full((len(length), total), IGNORE, device=device)
            joined_labels[at[0][: len(columns[0])], at[1][: len(columns[0])]] = labels.to(device)[real]
        positions = torch.arange(total, device=device) - shift[:, None]
        return Assembled(joined, (positions >= 0).long(), positions.clamp(min=0), joined_labels)

    def forward(
        self, encoder_input_ids: Tensor | None = None, encoder_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None, attention_mask: Tensor | None = None, labels: Tensor | None = None,
        logits_to_keep: int = 0, num_items_in_batch: Tensor | int | None = None, **loss_kwargs: Any,
    ) -> CausalLMOutputWithPast:  # fmt: skip
        """Read texts through the bridge.

        Args:
            encoder_input_ids, encoder_attention_mask: [batch, text tokens], for the encoder; None if the LLM reads
                the text itself from `input_ids`.
            input_ids, attention_mask: [batch, LLM tokens] with `TEXT_SLOT` where the text stands; None is the text
                alone.
            labels: [batch, LLM tokens], `-100` where there is no loss.
            logits_to_keep: how many positions, counted from the end, get logits; 0 is all. Only labels after the
                first of them count in the loss.
            num_items_in_batch: number of labels over which the loss is averaged; None is this batch's own.
            **loss_kwargs: taken and ignored, as trainers pass them.

        Returns:
            `loss` (mean cross-entropy per label, or None) and `logits` [batch, positions, vocabulary]. Sequences end
            at the last position: rows are padded on the left.
        """
        joined = self.assemble(encoder_input_ids, encoder_attention_mask, input_ids, attention_mask, labels)
        logits = self.run_llm(joined, logits_to_keep).logits
        loss = None
        if joined.labels is not None:
            targets = joined.labels[:, -logits.shape[1] :][:, 1:].to(logits.device)
            scores = logits[:, :-1].float().flatten(0, 1)
            loss = F.cross_entropy(scores, targets.flatten(), ignore_index=IGNORE, reduction="sum")
            wanted = num_items_in_batch if num_items_in_batch is not None else (targets != IGNORE).sum().clamp(min=1)
            loss = loss / wanted
        return CausalLMOutputWithPast(loss=loss, logits=logits)

    def run_llm(self, joined: Assembled, logits_to_keep: int = 0, *, use_cache: bool = False, cache: Any = None) -> Any:
        """The LLM over an assembled input, after what `cache` holds, with logits at the last positions (0: all)."""
        total = joined.inputs_embeds.shape[1]
        arguments: dict[str, Any] = {"attention_mask": joined.attention_mask, "use_cache": use_cache}
        if cache is not None:
            # transformers' newer releases call it `cache`, and warn of the old name.
            arguments["cache" if "cache" in self._llm_arguments else "past_key_values"] = cache
        if "position_ids" in self._llm_arguments:
            arguments["position_ids"] = joined.position_ids
        keep = 0 if logits_to_keep >= total else logits_to_keep
        if keep and "logits_to_keep" in self._llm_arguments:
            # An index tensor: an int slices a view whose matmul copies the whole vocabulary matrix once per row.
            arguments["logits_to_keep"] = torch.arange(total - keep, total, device=joined.inputs_embeds.device)
        with llms.with_compiled(self.compiled if torch.is_grad_enabled() and not use_cache else []):
            output = self.llm(inputs_embeds=joined.inputs_embeds, **arguments)
        if keep and output.logits.shape[1] != keep:
            output.logits = output.logits[:, -keep:]
        return output

    @torch.no_grad()
    def generate(
        self, encoder_input_ids: Tensor | None = None, encoder_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None, attention_mask: Tensor | None = None, **generate_kwargs: Any,
    ) -> Any:  # fmt: skip
        """Let the LLM continue, in evaluation. Takes what transformers' `generate` takes.

        It stops at the LLM's own stop tokens and at its tokenizer's EOS, with which answers end in training.

        Returns:
            The new ids [batch, n], without the prompt.
        """
        tokenizer, settings = self.processor.llm_tokenizer, self.llm.generation_config
        eos, stops = tokenizer.eos_token_id, settings.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        if "generation_config" not in generate_kwargs and eos is not None:
            generate_kwargs.setdefault("eos_token_id", list({eos, *stops} - {None}))
            if settings.pad_token_id is None:
                generate_kwargs.setdefault("pad_token_id", eos if (pad := tokenizer.pad_token_id) is None else pad)
        if "logits_to_keep" in self._llm_arguments:  # an index, see `run_llm`
            generate_kwargs.setdefault("logits_to_keep", torch.tensor([-1], device=self.device))
        with self.evaluating():
            joined = self.assemble(encoder_input_ids, encoder_attention_mask, input_ids, attention_mask)
            return self.llm.generate(
                inputs_embeds=joined.inputs_embeds, attention_mask=joined.attention_mask, **generate_kwargs
            )


def _load_bases(
    encoder: str | PreTrainedModel, llm: str | PreTrainedModel, encoder_revision: str | None, llm_revision: str | None,
    *, device_map: Any, **how: Any,
) -> tuple[Any, Any, tuple[int, int, int]]:  # fmt: skip
    """The base models, loaded where named; encoder width, encoder layers, width of the LLM's embeddings."""
    if isinstance(encoder, str):
        encoder = encoders.load_encoder(encoder, revision=encoder_revision, **how)
    if isinstance(llm, str):
        llm = llms.load_llm(llm, revision=llm_revision, device_map=device_map, **how)
    llms.check_llm(llm)
    embeddings: Any = llm.get_input_embeddings()
    return encoder, llm, (*encoders.encoder_shape(encoder), embeddings.weight.shape[-1])


def _fingerprints(encoder: PreTrainedModel, llm: PreTrainedModel, processor: PalamProcessor) -> dict[str, Any]:
    of_encoder = fingerprint(encoder, processor.encoder_tokenizer)
    return {"encoder": of_encoder, "llm": fingerprint(llm, processor.llm_tokenizer)}
