"""Reading other languages: label scores, generation, accuracy."""

from palam.reading.evaluate import Evaluation, evaluate, load_languages, predict, wilson
from palam.reading.generate import generate
from palam.reading.score import label_scores, measure_priors

__all__ = ["Evaluation", "evaluate", "generate", "label_scores", "load_languages", "measure_priors", "predict"]
__all__ += ["wilson"]
