"""The whole: a frozen encoder, the bridge, a frozen LLM.

The bases are loaded first and the bridge is built beside them; `PalamModel` only joins them, and saving it saves the
bridge alone.
"""

import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import HfApi
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from palam import encoder as encoders
from palam import llm as llms
from palam.bridge import PalamBridge, load_bridge, split_options
from palam.configuration import PalamConfig
from palam.errors import PalamError
from palam.files import replacing
from palam.fingerprint import check, fingerprint
from palam.processor import IGNORE, TEXT_SLOT, PalamProcessor, load_tokenizer
from palam.template import Template

DEFAULT_MAX_LENGTH = 256
ADAPTER = "adapter"


@dataclass
class Assembled:
    """The LLM's input: left-padded, with explicit positions. All tensors are [batch, length, ...]."""

    inputs_embeds: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    labels: Tensor | None


class PalamModel(nn.Module):
    """Encoder → fusion → mapper → LLM. Made by `from_bases` or `from_pretrained`.

    Both base models are frozen: no gradient and no dropout, whatever `train()` is called.

    Attributes:
        encoder, llm: the frozen base models.
        bridge: the [`PalamBridge`], all that is trained (besides an optional LoRA on the LLM).
        processor: the [`PalamProcessor`] that makes this model's inputs.
    """

    accepts_loss_kwargs = True

    def __init__(
        self, encoder: PreTrainedModel, bridge: PalamBridge, llm: PreTrainedModel, processor: PalamProcessor
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.bridge = bridge
        self.llm = llm
        self.processor = processor
        llms.freeze(self.encoder)
        llms.freeze(self.llm)
        base = llm.get_base_model() if hasattr(llm, "get_base_model") else llm
        self._llm_arguments = set(inspect.signature(base.forward).parameters)

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def from_bases(
        cls,
        encoder: str | PreTrainedModel,
        llm: str | PreTrainedModel,
        *,
        fusion: str = "global_softmax",
        mapper: str = "linear",
        processor: PalamProcessor | None = None,
        mode: str = "paper",
        prompt: str | None = None,
        max_length: int | None = None,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        device_map: Any = None,
        attention: str | None = None,
        encoder_revision: str | None = None,
        llm_revision: str | None = None,
        **options: Any,
    ) -> "PalamModel":
        """A new bridge between two base models.

        Args:
            encoder, llm: hub ids, folders, `starter:encoder` and `starter:llm`, or loaded models.
            fusion, mapper: names in `palam.fusion.FUSIONS` and `palam.mapper.MAPPERS`.
            processor: made from the bases' tokenizers if None.
            mode, prompt: the template, see [`Template.build`].
            max_length: most encoder tokens of a text; None is the smaller of 256 and what the encoder takes.
            seed: of the bridge's initial weights.
            dtype, device, device_map, attention: of the base models (see [`load_llm`]). The bridge's own weights are
                always fp32.
            encoder_revision, llm_revision: revisions on the hub.
            **options: of the fusion and the mapper, e.g. `normalize="layer"`, `rank=32`, `hidden_size=1024`.

        Raises:
            PalamError: a model that cannot be used or found, or an unknown name or option.
        """
        fusion_options, mapper_options = split_options(fusion, mapper, options)
        if isinstance(encoder, str):
            encoder_name = encoder
            encoder = encoders.load_encoder(
                encoder, revision=encoder_revision, dtype=dtype, device=device, attention=attention
            )
        else:
            encoder_name = encoder.name_or_path
        if isinstance(llm, str):
            llm_name = llm
            llm = llms.load_llm(
                llm, revision=llm_revision, dtype=dtype, device=device, device_map=device_map, attention=attention
            )
        else:
            llm_name = llm.name_or_path
        llms.check_llm(llm)
        width, layers = encoders.encoder_shape(encoder)
        if processor is None:
            encoder_tokenizer = load_tokenizer(encoder_name, encoder_revision)
            longest = encoders.encoder_max_length(encoder, encoder_tokenizer)
            if max_length is not None and max_length > longest:
                raise PalamError(f"max_length is {max_length}, but the encoder takes at most {longest} tokens")
            llm_tokenizer = load_tokenizer(llm_name, llm_revision)
            processor = PalamProcessor(
                encoder_tokenizer,
                llm_tokenizer,
                encoder=encoder_name,
                llm=llm_name,
                template=Template.build(mode, prompt, llm_tokenizer),
                max_length=max_length or min(DEFAULT_MAX_LENGTH, longest),
            )
        config = PalamConfig(
            encoder=encoder_name,
            llm=llm_name,
            encoder_revision=encoder_revision,
            llm_revision=llm_revision,
            encoder_hidden_size=width,
            encoder_num_layers=layers,
            llm_hidden_size=llm.get_input_embeddings().weight.shape[-1],
            fusion=fusion,
            fusion_options=fusion_options,
            mapper=mapper,
            mapper_options=mapper_options,
            embedding_rms=llms.embedding_rms(llm),
            fingerprints={
                "encoder": fingerprint(encoder, processor.encoder_tokenizer),
                "llm": fingerprint(llm, processor.llm_tokenizer),
            },
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            bridge = PalamBridge(config).to(llm.get_input_embeddings().weight.device)
            model = cls(encoder, bridge, llm, processor)
            model._calibrate()
        return model

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        encoder: str | None = None,
        llm: str | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        device: str | torch.device | None = None,
        device_map: Any = None,
        attention: str | None = None,
        revision: str | None = None,
        allow_mismatch: bool = False,
    ) -> "PalamModel":
        """Load a bridge and the base models that it names.

        Args:
            path: checkpoint folder or hub id.
            encoder, llm: where the base models are, if not where the checkpoint says.
            dtype, device, device_map, attention: of the base models, see [`load_llm`].
            revision: of the checkpoint on the hub.
            allow_mismatch: load base models that are not those the bridge was trained with, if the shapes fit.

        Raises:
            PalamError: no checkpoint there, a base model that is missing, or one that is another.
        """
        bridge = load_bridge(path, revision)
        config = bridge.config
        processor = PalamProcessor.from_pretrained(path, encoder=encoder, llm=llm, revision=revision)
        encoder_model = encoders.load_encoder(
            encoder or config.encoder,
            revision=None if encoder else config.encoder_revision,
            dtype=dtype,
            device=device,
            attention=attention,
        )
        llm_model = llms.load_llm(
            llm or config.llm,
            revision=None if llm else config.llm_revision,
            dtype=dtype,
            device=device,
            device_map=device_map,
            attention=attention,
        )
        for part, kind, base, tokenizer in (
            ("encoder", "encoder", encoder_model, processor.encoder_tokenizer),
            ("llm", "LLM", llm_model, processor.llm_tokenizer),
        ):
            if not allow_mismatch:
                expected = config.fingerprints.get(part)
                check(kind, expected, fingerprint(base, tokenizer), getattr(processor, part))
        widths = (*encoders.encoder_shape(encoder_model), llm_model.get_input_embeddings().weight.shape[-1])
        if widths != (config.encoder_hidden_size, config.encoder_num_layers, config.llm_hidden_size):
            raise PalamError(
                f"the base models' encoder width, layers and LLM width are {widths}; this bridge needs "
                f"{(config.encoder_hidden_size, config.encoder_num_layers, config.llm_hidden_size)}"
            )
        if config.adapter:
            llm_model = _peft().PeftModel.from_pretrained(
                llm_model, str(path), subfolder=ADAPTER, revision=revision
            )
        bridge = bridge.to(llm_model.get_input_embeddings().weight.device)
        return cls(encoder_model, bridge, llm_model, processor).eval()

    def add_lora(self, rank: int = 8, alpha: int | None = None, target_modules: Any = "all-linear") -> None:
        """Put a trainable LoRA on the frozen LLM; it is saved beside the bridge as a PEFT adapter.

        Args:
            rank, alpha: of the adapter; alpha is 2 · rank if None.
            target_modules: see peft's `LoraConfig`.
        """
        peft = _peft()
        settings = peft.LoraConfig(
            r=rank, lora_alpha=alpha or 2 * rank, target_modules=target_modules, task_type="CAUSAL_LM"
        )
        self.llm = peft.get_peft_model(self.llm, settings)
        self.config.adapter = True
        self.train(self.training)

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Scale the mapper so that its output has the RMS of the LLM's embeddings, on arbitrary tokens."""
        vocabulary = self.encoder.get_input_embeddings().weight.shape[0]
        ids = torch.randint(vocabulary, (8, 32), device=self.encoder.device)
        mapped, _ = self.bridge.eval()(self.encode(ids, torch.ones_like(ids)))
        self.bridge.mapper.rescale(self.bridge.config.embedding_rms / mapped.float().square().mean().sqrt().item())

    # -- saving ---------------------------------------------------------------------------------------------------

    @property
    def config(self) -> PalamConfig:
        """The bridge's configuration."""
        return self.bridge.config

    def write(self, folder: Path, card: str | None = None) -> None:
        """Write the checkpoint's files into an existing folder (`save_pretrained` does it safely)."""
        self.bridge.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        if self.config.adapter:
            self.llm.save_pretrained(str(folder / ADAPTER))
        if card is None:
            from palam.card import model_card

            card = model_card(self)
        (folder / "README.md").write_text(card, encoding="utf-8")

    def save_pretrained(self, folder: str | os.PathLike[str], card: str | None = None) -> None:
        """Save the bridge alone: configuration, weights, template and model card.

        The folder appears, or is replaced, at once: a crash leaves the old one or none.

        Args:
            folder: new, empty, or an older checkpoint.
            card: the model card's text; written from the configuration if None.

        Raises:
            PalamError: the folder holds something else.
        """
        with replacing(folder, marker="config.json") as aside:
            self.write(aside, card)

    def push_to_hub(self, repo_id: str, *, private: bool | None = None, token: str | None = None, **options: Any) -> str:
        """Upload the checkpoint to the hub and return its address.

        Args:
            repo_id: `name` or `organisation/name`; created if it does not exist.
            private, token: see `huggingface_hub.HfApi.create_repo`.
            **options: for `HfApi.upload_folder`, e.g. `commit_message`, `revision`, `create_pr`.
        """
        import tempfile

        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with tempfile.TemporaryDirectory() as folder:
            self.write(Path(folder))
            return str(api.upload_folder(repo_id=repo_id, folder_path=folder, **options))

    # -- frozen ---------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> "PalamModel":
        """Set the bridge to training or evaluation; the base models stay in evaluation."""
        super().train(mode)
        self.encoder.eval()
        llms.keep_frozen(self.llm, mode)
        return self

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Recompute the LLM's activations in the backward pass instead of keeping them."""
        llms.enable_checkpointing(self.llm, gradient_checkpointing_kwargs)

    @property
    def device(self) -> torch.device:
        """Where the bridge and the LLM's embeddings are."""
        return self.bridge.boundary.device

    # -- reading --------------------------------------------------------------------------------------------------

    def encode(self, ids: Tensor, mask: Tensor) -> list[Tensor]:
        """The encoder's L layers at the real tokens alone: L tensors [tokens, d_enc] on the bridge's device.

        Args:
            ids, mask: the encoder's tokens and attention mask [batch, text tokens].
        """
        device = self.encoder.device
        real = mask.to(device).bool()
        states = encoders.encode(self.encoder, ids.to(device), mask.to(device))
        return [state[real].to(self.device) for state in states]

    def embed(self, ids: Tensor) -> Tensor:
        """The LLM's input embeddings of ids, by its own module (some scale inside it)."""
        return self.llm.get_input_embeddings()(ids)  # type: ignore[no-any-return]

    def assemble(
        self,
        encoder_input_ids: Tensor | None,
        encoder_attention_mask: Tensor | None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
    ) -> Assembled:
        """Join prefix, mapped text, boundary, suffix and answer into the LLM's input.

        Only real tokens are taken from either side, so it makes no difference where they were padded. The text and
        the boundary go where `input_ids` holds `TEXT_SLOT`, or to the front of a row that has none. See `forward`.
        """
        device = self.device
        if input_ids is None:
            if encoder_input_ids is None:
                raise PalamError("nothing to read: give encoder_input_ids or input_ids")
            input_ids = torch.zeros(len(encoder_input_ids), 0, dtype=torch.long)
        input_ids = input_ids.to(device)
        batch = input_ids.shape[0]
        known = torch.ones_like(input_ids) if attention_mask is None else attention_mask.to(device)
        slot = (input_ids == TEXT_SLOT) & known.bool()
        if (slot.sum(1) > 1).any():
            raise PalamError("a row of input_ids holds the text's slot more than once")
        real = known.bool() & ~slot
        before = torch.where(slot.any(1, keepdim=True), slot.cumsum(1) == 0, torch.zeros_like(slot)) & real
        rank = real.cumsum(1) - 1  # each token's place among its row's own tokens
        embeds = self.embed(input_ids.clamp(min=0))
        length = real.sum(1)
        if encoder_input_ids is not None:
            mask = torch.ones_like(encoder_input_ids) if encoder_attention_mask is None else encoder_attention_mask
            text = mask.to(device).bool()
            mapped, _ = self.bridge(self.encode(encoder_input_ids, mask))
            text_length = text.sum(1)
            inserted = text_length + 1  # and the boundary
            length = length + inserted
            rank = torch.where(before, rank, rank + inserted[:, None])
        total = int(length.max())
        shift = (total - length)[:, None]  # left padding
        rows = torch.arange(batch, device=device)[:, None]
        joined = embeds.new_zeros(batch, total, embeds.shape[-1])
        joined = joined.index_put((rows.expand_as(real)[real], (rank + shift)[real]), embeds[real])
        if encoder_input_ids is not None:
            start = before.sum(1, keepdim=True) + shift
            place = start + text.cumsum(1) - 1
            joined = joined.index_put((rows.expand_as(text)[text], place[text]), mapped.to(joined.dtype))
            boundary = self.bridge.boundary.to(joined.dtype).expand(batch, -1)
            joined = joined.index_put((rows[:, 0], start[:, 0] + text_length), boundary)
        columns = torch.arange(total, device=device)
        joined_mask = (columns >= shift).long()
        joined_labels = None
        if labels is not None:
            joined_labels = torch.full((batch, total), IGNORE, device=device)
            joined_labels[rows.expand_as(real)[real], (rank + shift)[real]] = labels.to(device)[real]
        return Assembled(joined, joined_mask, (columns - shift).clamp(min=0), joined_labels)

    def forward(
        self,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        **loss_kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Read texts through the bridge.

        Args:
            encoder_input_ids, encoder_attention_mask: [batch, text tokens], for the encoder; None if the LLM reads
                the text itself from `input_ids`.
            input_ids, attention_mask: [batch, LLM tokens] with `TEXT_SLOT` where the text stands; None is the text
                alone.
            labels: [batch, LLM tokens], `-100` where there is no loss.
            logits_to_keep: how many positions, counted from the end, get logits; 0 is all.
            num_items_in_batch: number of labels over which the loss is averaged; None is this batch's own.
            **loss_kwargs: taken and ignored, as trainers pass them.

        Returns:
            `loss` (mean cross-entropy per label, or None) and `logits` [batch, positions, vocabulary]. Sequences end
            at the last position: rows are padded on the left.
        """
        joined = self.assemble(encoder_input_ids, encoder_attention_mask, input_ids, attention_mask, labels)
        output = self.run_llm(joined, logits_to_keep)
        loss = None
        if joined.labels is not None:
            targets = joined.labels[:, -output.logits.shape[1] :][:, 1:]
            loss = F.cross_entropy(
                output.logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
            )
            wanted = num_items_in_batch if num_items_in_batch is not None else (targets != IGNORE).sum().clamp(min=1)
            loss = loss / wanted
        return CausalLMOutputWithPast(loss=loss, logits=output.logits)

    def run_llm(
        self, joined: Assembled, logits_to_keep: int = 0, *, use_cache: bool = False, cache: Any = None
    ) -> CausalLMOutputWithPast:
        """The LLM over an assembled input, after what `cache` holds, with logits at the last positions (0: all)."""
        total = joined.inputs_embeds.shape[1]
        arguments: dict[str, Any] = {"attention_mask": joined.attention_mask, "use_cache": use_cache}
        if cache is not None:
            arguments["past_key_values"] = cache
        if "position_ids" in self._llm_arguments:
            arguments["position_ids"] = joined.position_ids
        keep = 0 if logits_to_keep >= total else logits_to_keep
        if keep and "logits_to_keep" in self._llm_arguments:
            # An index tensor: an int slices a view whose matmul copies the whole vocabulary matrix once per row.
            arguments["logits_to_keep"] = torch.arange(total - keep, total, device=joined.inputs_embeds.device)
        output: CausalLMOutputWithPast = self.llm(inputs_embeds=joined.inputs_embeds, **arguments)
        if keep and output.logits is not None and output.logits.shape[1] != keep:
            output.logits = output.logits[:, -keep:]
        return output

    @torch.no_grad()
    def generate(
        self,
        encoder_input_ids: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Let the LLM continue. Takes what transformers' `generate` takes; returns the new ids [batch, n]."""
        joined = self.assemble(encoder_input_ids, encoder_attention_mask, input_ids, attention_mask)
        settings = getattr(self.llm, "generation_config", None)
        if "pad_token_id" not in generate_kwargs and (settings is None or settings.pad_token_id is None):
            tokenizer = self.processor.llm_tokenizer
            generate_kwargs["pad_token_id"] = (
                tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
            )
        return self.llm.generate(
            inputs_embeds=joined.inputs_embeds, attention_mask=joined.attention_mask, **generate_kwargs
        )

    @torch.no_grad()
    def layer_weights(self, text: str, language: str | None = None) -> tuple[list[str], Tensor, Tensor]:
        """How much each layer counts for each token of a text.

        Returns:
            The encoder's tokens, their layer weights [tokens, L] (one-hot on the last layer for `last`), and the norms
            [tokens, L] of the states that were weighted; weight × norm is what a layer contributes.
        """
        batch = self.processor([text], languages=[language])
        states = self.encode(batch["encoder_input_ids"], batch["encoder_attention_mask"])
        _, weights = self.bridge.eval()(states)
        norms = torch.stack([self.bridge.fusion.prepare(state).float().norm(dim=-1) for state in states], -1)
        if weights is None:
            weights = torch.zeros_like(norms)
            weights[:, -1] = 1
        tokens = self.processor.encoder_tokenizer.convert_ids_to_tokens(batch["encoder_input_ids"][0].tolist())
        return tokens, weights.float().cpu(), norms.cpu()


def _peft() -> Any:
    try:
        import peft
    except ImportError:
        raise PalamError('LoRA needs peft: pip install "palam[lora]"') from None
    return peft
