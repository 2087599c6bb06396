"""Training a bridge on English alone."""

from palam.settings import TrainSettings
from palam.training.data import AnswerDataset, Collator, LengthGroupedSampler, PrefixDataset
from palam.training.run import train
from palam.training.trainer import NonFiniteLoss, PalamTrainer, PalamTrainingArguments

__all__ = ["AnswerDataset", "Collator", "LengthGroupedSampler", "NonFiniteLoss", "PalamTrainer"]
__all__ += ["PalamTrainingArguments", "PrefixDataset", "TrainSettings", "train"]
