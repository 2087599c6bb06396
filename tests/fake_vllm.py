"""A stand-in for vLLM, that makes the likeliest tokens with a tiny model."""

from types import SimpleNamespace

import torch

from palam.integrations.vllm import VllmEngine
from palam.models.sequence import LLMInputs

PROMPT = {"mode": "prompt", "prompt": "{text}\nTopic:"}


class FakeVllm:
    """Makes the likeliest tokens with a model of its own, in vLLM's form of requests and outputs.

    Args:
        model: over the LLM that the engine is started for.
        most: how many requests go on in a step.
        scale: of the vectors, as an LLM has it that is read otherwise.
    """

    def __init__(self, model, most=3, scale=1.0):
        self.model = model
        self.most = most
        self.scale = scale
        self.requests = {}
        self.begun = {}
        self.aborted = []
        self.started_with = None

    def start(self, **options):
        self.started_with = options
        return self

    def add_request(self, name, prompt, options):
        request = SimpleNamespace(vectors=prompt["prompt_embeds"] * self.scale, **options, made=0)
        self.requests[name] = request
        self.begun[name] = request

    def abort_request(self, names):
        self.aborted += names
        for name in names:
            del self.requests[name]

    @torch.no_grad()
    def step(self):
        outputs = []
        for name, request in list(self.requests.items())[: self.most]:
            positions = torch.arange(len(request.vectors))[None]
            inputs = LLMInputs(
                request.vectors[None].clone(), torch.ones_like(positions), positions, None
            )
            token = self.model.run_llm(inputs, 1).logits[0, -1].argmax()
            request.vectors = torch.cat([request.vectors, self.model.embed(token[None])])
            request.made += 1
            done = request.made == request.max_tokens or int(token) in request.stop_token_ids
            if done:
                del self.requests[name]
            new = SimpleNamespace(token_ids=[int(token)])
            outputs.append(SimpleNamespace(request_id=name, outputs=[new], finished=done))
        return outputs


def start_fake(tiny_model, *, keep_llm=False, most=3, scale=1.0, max_length=None, **options):
    """A model with the engine, the engine, the fake: `.model`, `.engine`, `.fake`."""
    options = {"llm": "llama", **PROMPT, **options}
    model = tiny_model(**options)
    fake = FakeVllm(tiny_model(**options), most, scale)
    engine = VllmEngine(model, keep_llm=keep_llm, max_length=max_length, start=fake.start)
    fake.begun.clear()
    return SimpleNamespace(model=model, engine=engine, fake=fake)
