"""An engine on tiny models."""

import pytest

from palam.serving.bridges import ServedBridge
from palam.serving.engine import Engine
from palam.serving.limits import ServeLimits


@pytest.fixture
def running():
    """`running(model, ..., max_batch=4)`: an engine of models, called a, b, ...; it is closed."""
    engines = []

    def start(*models, observer=None, **limits):
        names = "abcdefgh"
        bridges = [ServedBridge(name, model) for name, model in zip(names, models, strict=False)]
        engine = Engine(bridges, ServeLimits(**limits), observer)
        engine.start()
        engines.append(engine)
        return engine

    yield start
    for engine in engines:
        engine.close()
